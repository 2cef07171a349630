"""A condition on the columns of a table, in SQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from adrec.data.convert import MISSING_MARKS, NUMBER
from adrec.data.report import NUM_EXAMPLES
from adrec.data.rows import Opened, Piece
from adrec.utils.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True)
class Where:
    """A condition.

    Attributes:
        text: the condition, such as ``event = 'purchase' AND price > 3``.
        columns: the columns that it reads.
        numbers: those of a text file that are compared as numbers.
    """

    text: str
    columns: Sequence[str]
    numbers: frozenset[str] = frozenset()

    @classmethod
    def of(cls, text: str, opened: Opened) -> Where:
        """Return the condition for a source; columns of a text file whose first values are numbers are compared so.

        Raises:
            ConfigError: if it is no condition in SQL.
            DataError: if the source lacks a column.
        """
        try:
            expression = pl.sql_expr(text)
            columns = sorted(set(expression.meta.root_names()))
        except pl.exceptions.PolarsError as error:
            raise ConfigError(
                f"--where {text!r} is no condition in SQL: {_reason(error)} (columns may be in double quotes)."
            ) from error
        if re.search(r'"(Agg|Over|Window|Len|Explode|SortBy)"', expression.meta.serialize(format="json")):
            raise ConfigError(f"--where {text!r} looks at several rows at once; write a condition on one row.")
        for name in columns:
            if name not in opened.columns:
                near = did_you_mean(name, opened.columns)
                raise DataError(
                    f"{opened.name} has no column {name!r}{near}, which --where names; texts are in single quotes."
                )
        return cls(text, columns, cls._numbers(text, opened, columns))

    @staticmethod
    def _numbers(text: str, opened: Opened, columns: Sequence[str]) -> frozenset[str]:
        """Return the columns to compare as numbers: all that look so, if the condition makes no sense of texts."""
        if not opened.texts or not columns:
            return frozenset()
        head = opened.head(columns)
        try:
            head.select(pl.sql_expr(text))
            return frozenset()
        except pl.exceptions.PolarsError:
            return frozenset(name for name in columns if head[name].dtype == pl.String and _is_number(head[name]))

    def split(self, piece: Piece, name: str) -> tuple[Piece, int, list[int]]:
        """Return the rows that meet the condition, how many do not, and the numbers of the first of these.

        Raises :class:`DataError` if the condition cannot be computed on the rows of the source ``name``.
        """
        columns = piece.columns.with_columns(pl.col(column).cast(pl.Float64, strict=False) for column in self.numbers)
        for column in self.numbers:
            texts = piece.columns[column]
            odd = texts.filter(columns[column].is_null() & texts.is_not_null() & ~texts.is_in([*MISSING_MARKS, ""]))
            if len(odd):
                raise DataError(
                    f"{name}, column {column!r} has {odd[0]!r}, and --where compares it as numbers; compare it with a "
                    "text in single quotes."
                )
        try:
            met = columns.select(pl.sql_expr(self.text).alias("met")).to_series()
        except pl.exceptions.PolarsError as error:
            raise DataError(f"--where {self.text!r} cannot be computed on {name}: {_reason(error)}.") from error
        if met.dtype != pl.Boolean:
            raise DataError(f"--where {self.text!r} is no condition: it gives {met.dtype}, not true or false.")
        met = met.fill_null(False)
        if len(met) != piece.columns.height:
            met = met.new_from_index(0, piece.columns.height)  # a condition that reads no column
        rows = np.flatnonzero(met.to_numpy())
        kept = replace(
            piece,
            columns=piece.columns.filter(met),
            numbers=piece.numbers[rows],
            texts=None if piece.texts is None else lambda some: piece.text([int(rows[row]) for row in some]),
        )
        others = piece.numbers[~met.to_numpy()]
        return kept, len(others), others[:NUM_EXAMPLES].tolist()


def _is_number(column: pl.Series) -> bool:
    values = column.drop_nulls()
    values = values.filter(~values.is_in([*MISSING_MARKS, ""]))
    return len(values) > 0 and bool(values.str.contains(NUMBER).all())


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
