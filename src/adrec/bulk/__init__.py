"""Recommendations for many users: by shards, and as a function of Arrow batches for other engines."""
