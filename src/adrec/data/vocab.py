"""The map between users' own ids and contiguous numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec.errors import DataError

INTEGER = r"^(0|-?[1-9][0-9]*)$"  # a text that an integer id is printed as: "007" is not one


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Distinct ids in the order of their first appearance.

    Attributes:
        ids: the ids, Int64 or String; the position of an id is its index.
    """

    ids: pl.Series

    @classmethod
    def from_column(cls, column: pl.Series) -> Vocabulary:
        """Return the vocabulary of a column without nulls."""
        return cls(column.unique(maintain_order=True).alias("id").rechunk())

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self, values: Sequence[Any] | pl.Series) -> NDArray[np.int64]:
        """Return each id's index, -1 where it is unknown, int64 [m].

        Where the vocabulary has integers, a text such as ``"12"`` means 12 (``"012"`` is unknown); where it has
        texts, 12 means ``"12"``: on the command line and in CSV files every id is a text.
        """
        wanted = self._as_own_type(values)
        index = pl.DataFrame({"id": self.ids, "index": np.arange(len(self))})
        found = wanted.alias("id").to_frame().join(index, on="id", how="left", maintain_order="left")
        return found["index"].fill_null(-1).cast(pl.Int64).to_numpy()

    def decode(self, indices: NDArray[np.integer]) -> pl.Series:
        """Return the ids at ``indices`` [m]. Raises IndexError for -1 (unknown) and whatever else is no index."""
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"indices must be 0..{len(self) - 1}")
        return self.ids.gather(indices)

    def _as_own_type(self, values: Sequence[Any] | pl.Series) -> pl.Series:
        if isinstance(values, pl.Series) and values.dtype == self.ids.dtype:
            return values
        if self.ids.dtype == pl.String:
            texts = [None if value is None else str(value) for value in values]
            return pl.Series("id", texts, dtype=pl.String)
        return pl.Series("id", [_integer(value) for value in values], dtype=pl.Int64)

    def write(self, path: Path) -> None:
        """Write the ids as a Parquet file with one column, ``id``."""
        self.ids.alias("id").to_frame().write_parquet(path)

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read what :meth:`write` wrote. Raises :class:`DataError` where the file is damaged."""
        try:
            return cls(pl.read_parquet(path)["id"])
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{path} cannot be read; prepare the data set again.") from error


def _integer(value: Any) -> int | None:
    """Return an integer id, or None for anything that is not one (or does not fit 64 bits)."""
    if isinstance(value, str):
        canonical = value == "0" or value.removeprefix("-").lstrip("0") == value.removeprefix("-") != ""
        if not (canonical and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()):
            return None
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    integral = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return int(value) if integral and -(2**63) <= value < 2**63 else None
