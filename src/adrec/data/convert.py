"""Columns of any type become ids, times and numbers, or a sentence that names the first value that cannot."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from adrec.data.vocab import INTEGER
from adrec.errors import DataError

TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum)
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
LONGEST_SHOWN = 40


@dataclass(frozen=True)
class Place:
    """How to name a row of a source.

    Attributes:
        name: of the source.
        first_line: the line of a text file's first row; None where rows are counted from 1.
    """

    name: str
    first_line: int | None = None

    def row(self, index: int) -> str:
        """Return where the row ``index`` (from 0) is: ``ratings.csv line 7``."""
        if self.first_line is None:
            return f"{self.name} row {index + 1}"
        return f"{self.name} line {index + self.first_line}"


def _refuse_first(bad: pl.Series, column: pl.Series, place: Place, what: str, advice: str) -> None:
    """Raise :class:`DataError` for the first row where ``bad`` is true."""
    index = bad.arg_max() if bad.any() else None
    if index is not None:
        shown = repr(column[index])
        shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."
        value = "" if column[index] is None else f": {shown}"
        more = int(bad.sum()) - 1
        others = f" (and in {more:,} more rows)" if more else ""
        raise DataError(f"{place.row(index)}, column {column.name!r}: {what}{value}{others}; {advice}.")


def _refuse_missing(column: pl.Series, place: Place) -> None:
    missing = column.is_null()
    if column.dtype.is_float():
        missing = missing | column.is_nan().fill_null(False)
    if column.dtype == pl.String:
        missing = missing | (column == "").fill_null(False)
    _refuse_first(missing, column, place, "the value is missing", "fill it in or drop the row")


def ids(column: pl.Series, place: Place) -> pl.Series:
    """Return ids as Int64 or String.

    Integers stay integers, and so do floats that are whole (pandas makes them of integers). Texts of a text file
    become integers where every one is printed as an integer would be: ``"007"`` makes the column text.

    Raises:
        DataError: for a missing value, a float that is not whole, or another type.
    """
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    _refuse_missing(column, place)
    if column.dtype == pl.String:
        from_text_file = place.first_line is not None
        if from_text_file and column.str.contains(INTEGER).all():
            integers = column.cast(pl.Int64, strict=False)
            return column if integers.null_count() else integers
        return column
    if column.dtype.is_float():
        broken = column != column.round()
        _refuse_first(broken, column, place, "the id is not a whole number", "give ids as integers or texts")
        # Above this several integers are one floating point number: two people would become one.
        exact = 2**24 if column.dtype == pl.Float32 else 2**53
        inexact = (column.abs() >= exact) & column.is_finite()
        _refuse_first(inexact, column, place, "the id is too large to be exact as a float", "give integers or texts")
    elif not column.dtype.is_integer():
        raise DataError(
            f"{place.name}, column {column.name!r}: ids of type {column.dtype} are not read; give integers or texts."
        )
    integers = column.cast(pl.Int64, strict=False)
    _refuse_first(integers.is_null(), column, place, "the id does not fit 64 bits", "give ids as texts")
    return integers


def numbers(column: pl.Series, place: Place) -> pl.Series:
    """Return numbers as Float64. Raises :class:`DataError` for the first value that is missing or is none."""
    _refuse_missing(column, place)
    values = column.cast(pl.Float64, strict=False) if _may_be_number(column) else None
    if values is None:
        raise DataError(f"{place.name}, column {column.name!r}: values of type {column.dtype} are not numbers.")
    bad = ~values.is_finite().fill_null(False)
    _refuse_first(bad, column, place, "the value is not a number", "mend or drop the row")
    return values


def _may_be_number(column: pl.Series) -> bool:
    return column.dtype == pl.String or column.dtype.is_numeric()


def times(column: pl.Series, place: Place) -> tuple[pl.Series, str]:
    """Return times that sort as they should, Int64 or Float64, and their kind.

    Integers stay as they are (``integer``), and so do other numbers (``float``); dates and ISO texts become
    ``microseconds`` since 1970, in UTC where no zone is given.

    Raises:
        DataError: for the first missing or unreadable time.
    """
    _refuse_missing(column, place)
    if column.dtype in (pl.Date, pl.Datetime):
        moments = column.cast(pl.Datetime("us")) if column.dtype == pl.Date else column.dt.cast_time_unit("us")
        return moments.cast(pl.Int64), "microseconds"
    if column.dtype == pl.String and not _begins_with_number(column):
        moments = _iso(column)
        _refuse_first(moments.is_null(), column, place, "the time cannot be read", "write numbers or ISO dates")
        return moments, "microseconds"
    if not _may_be_number(column):
        raise DataError(
            f"{place.name}, column {column.name!r}: times of type {column.dtype} are not read; give numbers or dates."
        )
    if column.dtype == pl.String:
        unread = ~column.str.contains(NUMBER)
        _refuse_first(unread, column, place, "the time cannot be read", "write numbers or ISO dates in every row")
    integers = column.cast(pl.Int64, strict=False)
    values = column.cast(pl.Float64)
    if integers.null_count() == 0 and (column.dtype == pl.String or (integers == values).all()):
        return integers, "integer"
    _refuse_first(~values.is_finite(), column, place, "the time cannot be read", "write finite numbers")
    whole = values.cast(pl.Int64, strict=False)
    return (whole, "integer") if whole.null_count() == 0 and (whole == values).all() else (values, "float")


def _begins_with_number(column: pl.Series) -> bool:
    return column.head(1).str.contains(NUMBER).all()


def _iso(column: pl.Series) -> pl.Series:
    """Return microseconds since 1970 of ISO dates and date-times, null where a text is none."""
    text = (
        column.str.strip_chars().str.replace(r"^(\d{4}-\d\d-\d\d)[Tt]", "${1} ").str.replace(r"[Zz]$| UTC$", "+00:00")
    )
    naive = [
        text.str.to_datetime(form, time_unit="us", strict=False).cast(pl.Int64)
        for form in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")
    ]
    zoned = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="us", strict=False).cast(pl.Int64)
    days = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")).cast(pl.Int64)
    return pl.select(pl.coalesce(*naive, zoned, days)).to_series()
