"""Variants of the paper's network for ablation studies."""
