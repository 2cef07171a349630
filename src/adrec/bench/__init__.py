"""The benchmark: comparison of models on the same users, stored as a ledger of small jobs."""
