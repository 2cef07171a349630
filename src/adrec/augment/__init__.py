"""Augmentation: stages in front of a model's own that make what it trains on."""
