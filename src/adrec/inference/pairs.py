"""Scores of given pairs of users and items."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from adrec.data.dataset import Dataset
from adrec.inference.scorer import Histories, Scorer, scored_batches


def score(scorer: Scorer, dataset: Dataset, pairs: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return the model's score of each pair, from the user's whole history, and how many have none.

    Args:
        scorer: the model.
        dataset: the data set.
        pairs: ``user`` and ``item``.

    Returns:
        The pairs in their order, under the names of the data set's columns, with ``score``: null if the item, or every
        item of the user's history, is unknown to the model. Scores of one user can be compared: higher is better.
    """
    users = dataset.users.encode(pairs["user"])
    items = dataset.catalogue.encode(pairs["item"]) + 1
    items[items > scorer.num_items] = 0
    scores = np.full(len(users), np.nan)
    wanted = np.unique(users[(users >= 0) & (items > 0)])
    offsets = np.asarray(dataset.offsets)
    known = Histories(dataset.items, offsets[wanted], offsets[wanted + 1]).known(scorer.num_items)
    spoken = known.ends > known.starts
    wanted, histories = wanted[spoken], Histories(known.items, known.starts[spoken], known.ends[spoken])
    for chosen, found in scored_batches(scorer, histories):
        place = np.full(dataset.num_users + 1, -1)  # the last is that of unknown users, -1
        place[wanted[chosen]] = np.arange(len(chosen))
        mine = np.flatnonzero((place[users] >= 0) & (items > 0))
        rows, numbers = torch.from_numpy(place[users[mine]]), torch.from_numpy(items[mine])
        scores[mine] = found.of(rows.to(found.device), numbers.to(found.device)).cpu().numpy()
    table = pl.DataFrame(
        [
            pairs["user"].alias(dataset.info.named("user")),
            pairs["item"].alias(dataset.info.named("item")),
            pl.Series("score", scores).fill_nan(None),
        ]
    )
    return table, int(np.isnan(scores).sum())
