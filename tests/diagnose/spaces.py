"""Small embedding spaces for the tests of maps, pictures and the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from adrec.diagnose.diagnosis import Space


def space(name: str = "a space", n: int = 40, size: int = 6, seed: int = 0, **known: Any) -> Space:
    """Return two clouds of items, one beside the other."""
    rng = np.random.default_rng(seed)
    embedding = rng.standard_normal((n, size)).astype(np.float32)
    embedding[: n // 2, 0] += 8
    return Space(name, embedding, **known)


def known(name: str, n: int = 40, seed: int = 0, ids: list[str] | None = None) -> Space:
    """Return a space of which everything is known."""
    popularity = np.random.default_rng(seed).integers(0, 300, n)
    return space(
        name,
        n,
        seed=seed,
        ids=pl.Series(ids or [f"item {k}" for k in range(n)]),
        popularity=popularity,
        stage_1=space(n=n, seed=seed + 1).embedding,
        accuracy={"ndcg@10": 0.0213},
    )
