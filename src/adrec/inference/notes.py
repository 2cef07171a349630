"""Notes on recommendations, and checks of what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s, spans
from adrec.inference.scorer import Histories
from adrec.utils.errors import ConfigError
from adrec.utils.text import counted

Ids = Sequence[Any] | pl.Series


def examples(values: Iterable[Any], most: int = 3) -> str:
    """Return the first few values as text, with the number of the remaining ones."""
    listed = list(values)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(repr(value) for value in listed[:most]) + more


def missing(ids: Ids, indices: Int64s) -> list[Any]:
    """Return the ids whose index is -1: those that are not in the vocabulary."""
    return [ids[at] for at in np.flatnonzero(indices < 0).tolist()]


def silent(popular: NDArray[np.bool_], whom: tuple[str, str]) -> list[str]:
    """Return a note on those of whose history no item is known, if there are any."""
    if not popular.any():
        return []
    people = counted(int(popular.sum()), *whom)
    return [f"no item of {people} is known: the most popular items are recommended (source 'popular')."]


def few(numbers: Int64s, k: int, whom: tuple[str, str]) -> list[str]:
    """Return a note on the rows of ``numbers`` that have fewer than ``k`` items, if there are any."""
    short = len(numbers) if numbers.shape[1] < k else int((numbers[:, -1] == 0).sum())
    return [f"{counted(short, *whom)} cannot get {k} items: nothing else may be recommended."] if short else []


def unlearned(dataset: Dataset, num_items: int, histories: Histories) -> list[str]:
    """Return a note on the items that are unknown to the model because they were added after its training."""
    new = dataset.num_items - num_items
    if new <= 0:
        return []
    lengths = histories.ends - histories.starts
    passed = int((histories.items[spans(histories.starts, lengths)] > num_items).sum())
    also = f", and {counted(passed, 'interaction')} with them passed over" if passed else ""
    return [
        f"the model does not know {counted(new, 'item')} of the data yet (they came after its training): they "
        f"are not recommended{also}."
    ]


def check_k(k: int) -> None:
    """Raise :class:`ConfigError` where ``k`` is not a whole number of at least 1."""
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise ConfigError(f"k, the number of items, must be a whole number of at least 1; it is {k!r}.")
