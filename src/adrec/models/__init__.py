"""Models: the contract, the registry, ADRec and its baselines."""
