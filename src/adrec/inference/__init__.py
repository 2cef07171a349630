"""From histories to scores, and from scores to recommended items."""
