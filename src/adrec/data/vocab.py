"""The map between users' own ids and contiguous numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec.utils.errors import DataError
from adrec.utils.tables import write_parquet

INTEGER = r"^(0|-?[1-9][0-9]*)$"  # canonical integer form: "007" does not match


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Distinct ids in the order of their first appearance.

    Attributes:
        ids: the ids, Int64 or String; the position of an id is its index.
    """

    ids: pl.Series

    @classmethod
    def from_column(cls, column: pl.Series) -> Vocabulary:
        """Return the vocabulary of a column without nulls: Int64, String or Categorical."""
        ids = column.unique(maintain_order=True)
        return cls((ids if ids.dtype == pl.Int64 else ids.cast(pl.String)).alias("id").rechunk())

    def grown(self, column: pl.Series, role: str) -> Vocabulary:
        """Return this vocabulary extended by the unknown ids of ``column``; existing ids keep their indices.

        Raises :class:`DataError` if the vocabulary has integers and the column texts.
        """
        new = Vocabulary.from_column(column).ids
        if self.ids.dtype == pl.Int64 and new.dtype != pl.Int64:
            texts = new.cast(pl.String)
            odd = next((text for text in texts if _integer(text) is None), None)
            raise DataError(
                f"{role} ids were integers where this vocabulary was made, and now there are texts"
                + (f" such as {odd!r}" if odd is not None else "")
                + "; give integers, or prepare without the older vocabulary."
            )
        new = new.cast(self.ids.dtype)
        unknown = new.filter(~new.is_in(self.ids.implode()))
        return Vocabulary(pl.concat([self.ids, unknown.alias(self.ids.name)]).rechunk())

    def starts_with(self, digest: str, length: int) -> bool:
        """Return whether the first ``length`` ids are those that had this :meth:`digest`."""
        return len(self) >= length > 0 and Vocabulary(self.ids.head(length)).digest() == digest

    def digest(self) -> str:
        """Return a hash of these ids, in order."""
        hasher = hashlib.blake2b(digest_size=16)
        hasher.update(str(self.ids.dtype).encode())
        if self.ids.dtype == pl.String:
            hasher.update(self.ids.str.len_bytes().to_numpy().data)
            hasher.update("".join(self.ids).encode())
        else:
            hasher.update(self.ids.to_numpy().data)
        return hasher.hexdigest()

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

    def encode_column(self, column: pl.Series) -> NDArray[np.int64]:
        """Return the index of every id of an Int64, String or Categorical column."""
        if not isinstance(column.dtype, pl.Categorical):
            return self.encode(column)
        distinct = column.unique()
        codes = distinct.to_physical().to_numpy()
        index = np.full(int(codes.max(initial=0)) + 1, -1, dtype=np.int64)
        index[codes] = self.encode(distinct.cast(pl.String))
        numbers: NDArray[np.int64] = index[column.to_physical().to_numpy()]
        return numbers

    def decode(self, indices: NDArray[np.integer]) -> pl.Series:
        """Return the ids at ``indices`` [m]. Raises IndexError for -1 (unknown) and any other invalid index."""
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
        write_parquet(self.ids.alias("id").to_frame(), path)

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read what :meth:`write` wrote. Raises :class:`DataError` where the file is damaged."""
        try:
            return cls(pl.read_parquet(path)["id"])
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{path} cannot be read; prepare the data set again.") from error


@dataclass(frozen=True)
class Vocabularies:
    """The vocabularies of users and items of an earlier data set."""

    users: Vocabulary
    catalogue: Vocabulary


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
