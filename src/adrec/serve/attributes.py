"""Attributes of items: titles, filters and categories, by item number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec.data.spans import Int64s
from adrec.inference.categories import Capped
from adrec.inference.engine import Engine

EXACT = 2**53  # whole numbers below are exact as floats
SEVERAL = "|"  # between the values of an attribute that has several


class Attributes:
    """The attributes of the items that a model knows.

    Args:
        table: ``item`` and an attribute a column, all texts (:func:`adrec.data.lists.read_attributes`).
        engine: knows the item numbers.
        names: the column of titles; None if there is none.
    """

    def __init__(self, table: pl.DataFrame, engine: Engine, names: str | None) -> None:
        numbers = engine.numbers_or_0(table["item"].to_list())
        self._known = table.drop("item").filter(pl.Series(numbers > 0))
        self._numbers = numbers[numbers > 0]
        self._size = engine.num_items + 1
        self._by_value: dict[str, Mapping[str, Int64s]] = {}
        self._categories: dict[str, NDArray[np.int64]] = {}
        self.titles: list[str | None] = [None] * self._size
        if names is not None:
            for number, title in zip(self._numbers.tolist(), self._known[names].to_list(), strict=True):
                self.titles[number] = title

    @property
    def num_items(self) -> int:
        """The number of known items that have a row."""
        return len(self._numbers)

    @property
    def names(self) -> Sequence[str]:
        """The attributes."""
        return self._known.columns

    @cached_property
    def lowered(self) -> list[str]:
        """The titles in lower case, by item number."""
        return [(title or "").lower() for title in self.titles]

    def having(self, attribute: str, values: Sequence[Any]) -> Int64s:
        """Return the numbers of the items that have one of some values of an attribute."""
        if attribute not in self._by_value:
            column = self._known[attribute].str.split(SEVERAL)
            rows = pl.DataFrame({"value": column, "number": self._numbers}).explode("value").drop_nulls("value")
            found_by: dict[str, list[int]] = {}
            for value, numbers in rows.group_by("value", maintain_order=True).agg("number").iter_rows():
                found_by.setdefault(as_text(value), []).extend(numbers)
            self._by_value[attribute] = {text: np.array(each, dtype=np.int64) for text, each in found_by.items()}
        own = self._by_value[attribute]
        found = [own[text] for text in map(as_text, values) if text in own]
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)

    def capped(self, attribute: str, most: int) -> Capped:
        """Return the choice of at most ``most`` items of each value of an attribute."""
        if attribute not in self._categories:
            values = self._known[attribute]
            codes = {value: code for code, value in enumerate(values.drop_nulls().unique(maintain_order=True), 1)}
            numbers = np.zeros(self._size, dtype=np.int64)
            numbers[self._numbers] = [codes.get(value, 0) for value in values.to_list()]
            self._categories[attribute] = numbers
        return Capped(self._categories[attribute], most)


def as_text(value: Any) -> str:
    """Return a value of JSON or of a table in one form: ``1999.0`` is ``1999``, ``True`` is ``true``."""
    text = str(value)
    if text in ("True", "False"):
        return text.lower()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() and abs(number) < EXACT else text
