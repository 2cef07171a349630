"""The model in a worker process of another engine: loaded once, whatever the number of batches."""

from __future__ import annotations

from functools import lru_cache

import torch

from adrec.api.model import ADRec
from adrec.inference.recommender import Recommender


@lru_cache(maxsize=1)
def open_recommender(run: str, data: str | None = None, threads: int | None = None) -> Recommender:
    """Return the recommender of the run folder ``run``; ``data`` is the path of its data set, if it was moved."""
    if threads is not None:
        torch.set_num_threads(threads)
    return ADRec.load(run, data=data, device="cpu").recommender()
