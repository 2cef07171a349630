"""Is an embedding space alive? Measures, the yardsticks beside them, and what both say in plain words."""
