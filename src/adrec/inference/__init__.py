"""Inference: scores of histories, and recommended items from scores."""
