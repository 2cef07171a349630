"""Training: stages, the training loop, callbacks, and snapshots from which training can resume at any epoch."""
