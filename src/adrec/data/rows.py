"""What every source of rows gives: pieces of a table, each row with its place, and the rows that are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

FrameKind = Literal["polars", "pandas", "pyarrow", "path"]


@dataclass(frozen=True)
class Malformed:
    """A row that has not the form of the others.

    Attributes:
        number: its line, or its row.
        what: is wrong with it.
        text: what stands there; bytes that are no UTF-8 as ``\\xff``.
    """

    number: int
    what: str
    text: str


@dataclass(frozen=True)
class Piece:
    """Some rows of a source, in their order.

    Attributes:
        columns: the columns that were asked for, of whatever types they have.
        numbers: the line (of a text file) or row of each, from 1, int64 [m].
        malformed: the rows that are not among them.
        texts: returns what stands in the source for the rows at these indices; their columns as JSON by default.
    """

    columns: pl.DataFrame
    numbers: NDArray[np.int64]
    malformed: Sequence[Malformed] = ()
    texts: Callable[[Sequence[int]], list[str]] | None = None

    def text(self, indices: Sequence[int]) -> list[str]:
        """Return what stands in the source for the rows at ``indices``."""
        if not indices:
            return []
        if self.texts is not None:
            return self.texts(indices)
        return self.columns[list(indices)].write_ndjson().splitlines()


@dataclass(frozen=True)
class Opened:
    """A source whose columns are known and not read yet, so that one nobody asks for does no harm.

    Attributes:
        name: of the source.
        columns: their names.
        pieces: yields the rows with these columns, in pieces that fit in memory.
        kind: of the source.
        unit: what its rows are counted in.
        texts: whether every value is a text, so that ``12`` may be meant as a number.
        guesses: sentences on what was guessed of its format.
        digest: returns the SHA-256 of a file, once its pieces were read.
    """

    name: str
    columns: Sequence[str]
    pieces: Callable[[Sequence[str]], Iterator[Piece]]
    kind: FrameKind
    unit: Literal["line", "row"] = "row"
    texts: bool = False
    guesses: Sequence[str] = field(default_factory=tuple)
    digest: Callable[[], str | None] = lambda: None

    def at(self, number: int) -> str:
        """Return where a row is: ``ratings.csv line 7``."""
        return f"{self.name} {self.unit} {number}"


def whole_table(table: pl.DataFrame) -> Piece:
    """Return a table as one piece, its rows counted from 1."""
    return Piece(table, np.arange(1, table.height + 1))
