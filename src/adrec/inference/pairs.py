"""Scores of given pairs of users and items."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from adrec.data.dataset import Dataset
from adrec.data.spans import spans
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
    order = np.argsort(users, kind="stable")  # the pairs, user by user
    ordered = users[order]
    for chosen, found in scored_batches(scorer, histories):
        starts, ends = (np.searchsorted(ordered, wanted[chosen], side=side) for side in ("left", "right"))
        mine, rows = order[spans(starts, ends - starts)], np.repeat(np.arange(len(chosen)), ends - starts)
        known_items = items[mine] > 0
        mine, rows = mine[known_items], rows[known_items]
        where = torch.from_numpy(rows).to(found.device), torch.from_numpy(items[mine]).to(found.device)
        scores[mine] = found.of(*where).cpu().numpy()
    table = pl.DataFrame(
        [
            pairs["user"].alias(dataset.info.named("user")),
            pairs["item"].alias(dataset.info.named("item")),
            pl.Series("score", scores).fill_nan(None),
        ]
    )
    return table, int(np.isnan(scores).sum())
