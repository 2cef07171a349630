"""The model in a worker process of another engine: loaded once, whatever the number of batches."""

from __future__ import annotations

from functools import lru_cache

import torch

from adrec.api.model import ADRec
from adrec.inference.recommender import Recommender


@lru_cache(maxsize=1)
def open_recommender(
    run: str, data: str | None = None, model: str | None = None, threads: int | None = None
) -> Recommender:
    """Return the recommender of a run folder, on the CPU.

    Args:
        run: the folder.
        data: the path of its data set, if it was moved.
        model: ``module:Class``, if it is the user's own.
        threads: the number of threads of this process; None changes nothing.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    return ADRec.load(run, model=model, data=data, device="cpu").recommender()
