"""Evaluation: ranks, metrics and their intervals."""
