"""The benchmark: many models on the same users, as a ledger of small jobs."""
