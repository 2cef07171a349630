"""Variants of the paper's network, to measure what each part of it is worth."""
