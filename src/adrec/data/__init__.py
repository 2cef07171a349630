"""Data: a table of interactions becomes a prepared data set and packed batches."""
