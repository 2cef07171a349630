"""Augmentation: additional stages, before a model's own, that generate training data."""
