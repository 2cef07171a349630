"""Common interface of row sources: pieces of a table with row numbers, and the malformed rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

FrameKind = Literal["polars", "pandas", "pyarrow", "path"]


HEAD_ROWS = 1000


@dataclass(frozen=True)
class Malformed:
    """A malformed row.

    Attributes:
        number: number of its line or row.
        what: the error.
        text: its text in the source; bytes that are not UTF-8 are escaped as ``\\xff``.
    """

    number: int
    what: str
    text: str


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a source.

    Attributes:
        columns: the requested columns, in their original types.
        numbers: the line number (of a text file) or row number of each row, from 1, int64 [m].
        malformed: the malformed rows, which ``columns`` does not contain.
        texts: returns the source text of the rows at the given indices; by default their columns as JSON.
    """

    columns: pl.DataFrame
    numbers: NDArray[np.int64]
    malformed: Sequence[Malformed] = ()
    texts: Callable[[Sequence[int]], list[str]] | None = None

    def text(self, indices: Sequence[int]) -> list[str]:
        """Return the source text of the rows at ``indices``."""
        if not indices:
            return []
        if self.texts is not None:
            return self.texts(indices)
        return self.columns[list(indices)].write_ndjson().splitlines()


@dataclass(frozen=True)
class Opened:
    """An open source with known columns. Data are read lazily, so unused columns cannot cause errors.

    Attributes:
        name: name of the source.
        columns: names of its columns.
        pieces: yields the rows of the given columns, in pieces that fit in memory.
        head: returns the given columns of the first rows.
        kind: kind of the source.
        unit: unit of its row numbers (line or row).
        texts: whether every value is text, so that ``12`` may stand for a number.
        guesses: guesses about its format, one sentence each.
        digest: returns the SHA-256 of a file, after its pieces were read.
    """

    name: str
    columns: Sequence[str]
    pieces: Callable[[Sequence[str]], Iterator[Piece]]
    head: Callable[[Sequence[str]], pl.DataFrame]
    kind: FrameKind
    unit: Literal["line", "row"] = "row"
    texts: bool = False
    guesses: Sequence[str] = field(default_factory=tuple)
    digest: Callable[[], str | None] = lambda: None

    def at(self, number: int) -> str:
        """Return the location of a row: ``ratings.csv line 7``."""
        return f"{self.name} {self.unit} {number}"


def whole_table(table: pl.DataFrame) -> Piece:
    """Return a table as one piece, its rows counted from 1."""
    return Piece(table, np.arange(1, table.height + 1))


def with_constants(opened: Opened, constants: Mapping[str, str]) -> Opened:
    """Return a source with further columns, each of one text; a column of its own goes before one of that name."""
    added = {name: value for name, value in constants.items() if name not in opened.columns}
    if not added:
        return opened

    def filled(table: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
        return table.with_columns(pl.lit(added[name]).alias(name) for name in wanted if name in added).select(wanted)

    def own(wanted: Sequence[str]) -> list[str]:
        return [name for name in wanted if name not in added] or list(opened.columns[:1])

    def pieces(wanted: Sequence[str]) -> Iterator[Piece]:
        for piece in opened.pieces(own(wanted)):
            yield replace(piece, columns=filled(piece.columns, wanted))

    return replace(
        opened,
        columns=[*opened.columns, *added],
        pieces=pieces,
        head=lambda wanted: filled(opened.head(own(wanted)), wanted),
    )
