"""Ids of users and items, looked up in hash maps: without Polars, in any thread and after a fork."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s

Id = int | str
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")  # a whole number as a data set writes it


class Ids:
    """The ids of a data set, and the item numbers that a model knows.

    Args:
        dataset: the data set.
        num_items: V: the model knows item numbers 1..V.
    """

    def __init__(self, dataset: Dataset, num_items: int) -> None:
        self.dataset, self.num_items = dataset, num_items
        self._all_items: list[Id] = dataset.catalogue.ids.to_list()
        self._numbers = {each: number for number, each in enumerate(self._all_items[:num_items], start=1)}
        self._users = {each: index for index, each in enumerate(dataset.users.ids.to_list())}
        vocabularies = {"item": dataset.catalogue, "user": dataset.users}
        self._texts = {role: known.ids.dtype == pl.String for role, known in vocabularies.items()}

    @cached_property
    def last_time(self) -> float:
        """The time of the latest interaction, in the unit of the data set."""
        return float(np.asarray(self.dataset.times).max())

    def waiting(self, user: Id) -> list[tuple[Id, Any]]:
        """Return (item, time) of what a filter of the data set left out of a user, in its order."""
        return self._waiting.get(self._own_type("user", user), [])

    @cached_property
    def _waiting(self) -> dict[Id, list[tuple[Id, Any]]]:
        found: dict[Id, list[tuple[Id, Any]]] = {}
        rows = self.dataset.waiting()
        if rows is not None:
            for user, item, time in rows.select("user", "item", "time").iter_rows():
                found.setdefault(user, []).append((item, time))
        return found

    def _own_type(self, role: str, value: Id) -> Id:
        """Return an id as the data set has it: ``12`` means ``"12"`` where ids are texts, and the other way round."""
        if self._texts[role]:
            return str(value)
        return int(value) if isinstance(value, str) and WHOLE.fullmatch(value) else value

    def user_id(self, user: Id) -> Id:
        """Return a user's id as the data set has it."""
        return self._own_type("user", user)

    def item_id(self, item: Id) -> Id:
        """Return an item's id as the data set has it."""
        return self._own_type("item", item)

    def is_user(self, user: Id) -> bool:
        """Return whether the data set's ids of users are of this type: texts, or whole numbers."""
        return isinstance(user, str) is self._texts["user"]

    def is_item(self, item: Id) -> bool:
        """Return whether the data set's ids of items are of this type."""
        return isinstance(item, str) is self._texts["item"]

    def item_of(self, number: int) -> Id:
        """Return the id of an item number of the data set."""
        return self._all_items[number - 1]

    def numbers(self, items: Iterable[Id]) -> Int64s:
        """Return the numbers of the items that the model knows, in their order."""
        found = self.numbers_or_0(items)
        return found[found > 0]

    def numbers_or_0(self, items: Iterable[Id]) -> Int64s:
        """Return the number of each item, 0 for those that the model does not know."""
        return np.array([self.number_of(each) for each in items], dtype=np.int64)

    def number_of(self, item: Id) -> int:
        """Return the number of an item, 0 if the model does not know it."""
        return self._numbers.get(self._own_type("item", item), 0)

    def index_of(self, user: Id) -> int | None:
        """Return the index of a user of the data set; None if unknown."""
        return self._users.get(self._own_type("user", user))

    def history_of(self, user: Id) -> Int64s | None:
        """Return the item numbers of a user's history, oldest first, those that the model knows; None if unknown."""
        index = self.index_of(user)
        if index is None:
            return None
        history = self.dataset.history(index)
        return history[history <= self.num_items].astype(np.int64)

    @property
    def known_items(self) -> Iterable[Id]:
        """The ids of the items that the model knows, in the order of their numbers."""
        return self._numbers.keys()
