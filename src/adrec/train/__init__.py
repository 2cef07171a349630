"""Training: stages as data, one loop, and a state that survives any interruption."""
