"""Export of the parts of a split as tables of original ids, so that other programs can train on the same data."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from adrec.data.dataset import Dataset
from adrec.data.spans import spans
from adrec.data.split import Split

Part = Literal["train", "history", "validation", "test"]


def part_table(dataset: Dataset, split: Split, part: Part) -> pl.DataFrame:
    """Return user, item and time of a part under the names of their columns, user after user, oldest first.

    ``train`` has the training interactions; ``validation`` and ``test`` the held-out ones. ``history`` has all
    interactions of the test users before their first test interaction: the input of a recommendation.
    """
    starts = np.asarray(dataset.offsets[:-1])
    if part == "train":
        positions = spans(starts, np.asarray(split.train_ends) - starts)
    elif part == "history":
        users, first = np.unique(split.test.users, return_index=True)
        positions = spans(starts[users], split.test.ends[first] - starts[users])
    else:
        positions = np.asarray(split.targets(part).positions)
    owners = np.searchsorted(dataset.offsets, positions, side="right") - 1
    return pl.DataFrame(
        {
            dataset.info.named("user"): dataset.users.decode(owners),
            dataset.info.named("item"): dataset.catalogue.decode(dataset.items[positions].astype(np.int64) - 1),
            dataset.info.named("time"): np.asarray(dataset.times[positions]),
        }
    )
