"""The run folder, and the training of a model into it."""
