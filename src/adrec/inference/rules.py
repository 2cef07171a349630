"""What may be recommended: rules for all and for each user, by item, by time and by category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypedDict

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from adrec.config.stage import SeenOrData
from adrec.data.dataset import Dataset
from adrec.data.moments import PER_SECOND, seconds_of
from adrec.data.spans import Int64s, spans
from adrec.data.vocab import Vocabulary
from adrec.inference.notes import Ids, examples, missing
from adrec.inference.scorer import Histories
from adrec.inference.scores import Masked, Only
from adrec.nn.scores import ItemPairs
from adrec.utils.errors import ConfigError, DataError
from adrec.utils.text import counted

Listed = Ids | pl.DataFrame  # items for all, or a table of ``user`` and ``item``
NONE = np.empty(0, dtype=np.int64)
NO_PAIRS = np.empty((2, 0), dtype=np.int64)


class Rules(TypedDict, total=False):
    """What may be recommended.

    Attributes:
        seen: ``keep`` or ``leave-out`` the items of the history; by default (``data``) as the data set says.
        seen_within: leave out the items of the last days of a history alone, such as ``30d``; before the last moment of
            the data set.
        items: recommend only these: ids for all, or a table with columns ``user`` and ``item`` for each user.
        exclude: never recommend these, in the same forms.
        per_category: the largest number of recommended items of one category.
        categories: the category of items by id; items without one are not limited.
        diversity: 0..1, how much an item loses for resembling items above it (:mod:`adrec.inference.diversity`).
    """

    seen: SeenOrData
    seen_within: str | timedelta | None
    items: Listed | None
    exclude: Listed | None
    per_category: int | None
    categories: Mapping[Any, Any] | None
    diversity: float


@dataclass(frozen=True)
class Limits:
    """Items that may not be recommended, to all and in each of m rows.

    Attributes:
        allowed: whether each item number may be recommended at all, bool [V + 1]; None if all may.
        limited: rows that have a list of items of their own, int64.
        own: (row, item number) of these lists, int64 [2, n], sorted by row.
        left_out: (row, item number) that are left out, int64 [2, n], sorted by row.
    """

    allowed: NDArray[np.bool_] | None = None
    limited: Int64s = field(default_factory=lambda: NONE)
    own: NDArray[np.int64] = field(default_factory=lambda: NO_PAIRS)
    left_out: NDArray[np.int64] = field(default_factory=lambda: NO_PAIRS)

    def rows(self, chosen: Int64s) -> Limits:
        """Return the limits of some rows, which become rows 0, 1, .."""
        if self.own.size == self.left_out.size == len(self.limited) == 0:
            return self
        limited = np.flatnonzero(np.isin(chosen, self.limited))
        return replace(self, limited=limited, own=_of_rows(self.own, chosen), left_out=_of_rows(self.left_out, chosen))

    def masked(self, seen: tuple[Int64s, Int64s] | None) -> Masked:
        """Return the mask of these rows, with the (row, item number) of their ``seen`` items."""
        pairs = self.left_out if seen is None else np.concatenate([self.left_out, np.stack(seen)], axis=1)
        only = None
        if len(self.limited):
            only = Only(torch.from_numpy(self.limited), ItemPairs.of(self.own[0], self.own[1]))
        excluded = None if self.allowed is None else torch.from_numpy(~self.allowed)
        return replace(Masked.of(pairs[0], pairs[1]), excluded=excluded, only=only)


def by_row(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (row, item number) pairs, [2, n], sorted by row."""
    return pairs[:, np.argsort(pairs[0], kind="stable")]


def _of_rows(pairs: NDArray[np.int64], chosen: Int64s) -> NDArray[np.int64]:
    """Return the pairs, sorted by row, of the ``chosen`` rows, which become rows 0, 1, .."""
    starts, ends = (np.searchsorted(pairs[0], chosen, side=side) for side in ("left", "right"))
    lengths = ends - starts
    items = pairs[1][spans(starts, lengths)]
    return by_row(np.stack([np.repeat(np.arange(len(chosen)), lengths), items]))


def limits(
    dataset: Dataset, num_items: int, rules: Rules, people: pl.Series | None, histories: Histories, *, timed: bool
) -> tuple[Limits, list[str]]:
    """Return the limits that ``rules`` set, and notes on unknown ids in them.

    Args:
        dataset: the data set.
        num_items: V, the items that the model knows.
        rules: the rules.
        people: the id of the user of each row; None if they have none.
        histories: the history of each row.
        timed: whether the histories are spans of the data set, whose times are known.

    Raises:
        DataError: if no item may be recommended.
        ConfigError: for rules per user without users, or within a time of histories without times.
    """
    own, left_out, notes = [NO_PAIRS], [NO_PAIRS], list[str]()
    items, exclude = rules.get("items"), rules.get("exclude")
    allowed, limited = None, NONE
    if items is not None or exclude is not None:
        allowed = np.full(num_items + 1, items is None or isinstance(items, pl.DataFrame))
        allowed[0] = False
        for name, listed, value in (("allowed", items, True), ("excluded", exclude, False)):
            if listed is None:
                continue
            if isinstance(listed, pl.DataFrame):
                pairs = _pairs(dataset, num_items, listed, people, name, notes)
                (own if value else left_out).append(pairs)
                limited = np.arange(len(histories)) if value else limited
            else:
                allowed[_numbers(dataset, num_items, listed, name, notes)] = value
        if not allowed[1:].any():
            raise DataError(" ".join(["the lists of allowed and excluded items leave nothing to recommend.", *notes]))
    if rules.get("seen_within") is not None:
        left_out.append(_recent(dataset, rules, histories, timed=timed))
    own_rows, out_rows = (by_row(np.concatenate(parts, axis=1)) for parts in (own, left_out))
    return Limits(allowed, limited, own_rows, out_rows), notes


def _numbers(dataset: Dataset, num_items: int, ids: Ids, name: str, notes: list[str]) -> Int64s:
    """Return the numbers of the known items of a list; a note tells of the others."""
    if len(ids) == 0:
        return NONE
    numbers = dataset.catalogue.encode(ids) + 1
    numbers[numbers > num_items] = 0
    unknown = missing(ids, numbers - 1)
    if unknown:
        notes.append(f"not in the catalogue: {counted(len(unknown), f'{name} item')}, {examples(unknown)}.")
    return numbers[numbers > 0]


def _pairs(
    dataset: Dataset, num_items: int, table: pl.DataFrame, people: pl.Series | None, name: str, notes: list[str]
) -> NDArray[np.int64]:
    """Return (row, item number) of a table of users and items, [2, n]."""
    if people is None:
        raise ConfigError(
            f"the list of {name} items has a column of users, and these histories have none; give a list of items."
        )
    distinct = Vocabulary.from_column(people)
    rows = pl.DataFrame({"person": distinct.encode(people), "row": np.arange(len(people))})
    person = distinct.encode(table["user"])
    numbers = dataset.catalogue.encode(table["item"]) + 1
    numbers[numbers > num_items] = 0
    unknown = dict.fromkeys(missing(table["item"], numbers - 1))
    if unknown:
        notes.append(f"not in the catalogue: {counted(len(unknown), f'{name} item')}, {examples(unknown)}.")
    strangers = dict.fromkeys(missing(table["user"], np.maximum(person, dataset.users.encode(table["user"]))))
    if strangers:
        notes.append(f"not in the data: {counted(len(strangers), 'user')} of the {name} items, {examples(strangers)}.")
    listed = pl.DataFrame({"person": person, "item": numbers}).filter((pl.col("person") >= 0) & (pl.col("item") > 0))
    found = listed.unique().join(rows, on="person")
    return np.stack([found["row"].to_numpy(), found["item"].to_numpy()]).astype(np.int64)


def _recent(dataset: Dataset, rules: Rules, histories: Histories, *, timed: bool) -> NDArray[np.int64]:
    """Return (row, item number) of the interactions within the last days of the data set, [2, n]."""
    unit = dataset.info.time_unit
    if rules.get("seen", "data") != "data":
        raise ConfigError("seen and seen_within exclude each other: seen items are left out within this time alone.")
    if not timed:
        raise ConfigError("seen_within needs the times of the histories, and these have none; leave it out.")
    if unit not in PER_SECOND:
        raise ConfigError(
            "seen_within needs times with a unit, and those of this data set only give an order; leave it out."
        )
    within = rules["seen_within"]
    assert within is not None
    since = np.asarray(dataset.times).max() - seconds_of(within) * PER_SECOND[unit]
    lengths = histories.ends - histories.starts
    positions, rows = spans(histories.starts, lengths), np.repeat(np.arange(len(lengths)), lengths)
    recent = np.asarray(dataset.times)[positions] >= since
    return np.stack([rows[recent], np.asarray(dataset.items)[positions[recent]].astype(np.int64)])
