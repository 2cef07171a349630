"""The published code: its data sets, its checkpoints and its weight names."""
