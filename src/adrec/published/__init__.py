"""Support for the published code: its data sets, checkpoints and weight names."""
