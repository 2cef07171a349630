"""Conversion of columns of any type to ids and numbers. Unusable values become null, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import polars as pl

from adrec.data.report import BAD_ID, BAD_RATING, MISSING
from adrec.data.vocab import INTEGER
from adrec.utils.errors import DataError

ABSENT = "the value is missing"
MISSING_MARKS = ("NA", "N/A", "<NA>", "NULL", "Null", "null", "\\N", "nan", "NaN", "None")  # of R, SQL, pandas, Python
NOT_WHOLE = "the id is not a whole number"
LARGEST = 2**63 - 1
POINT_ZERO = r"\.0+$"
WHOLE = INTEGER.replace("$", r"(\.0+)?$")
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class Problem:
    """Values that cannot be used.

    Attributes:
        bad: mask of the rows with such a value, bool [m].
        reason: one of :data:`adrec.data.report.REASONS`.
        what: the reason in full.
    """

    bad: pl.Series
    reason: str
    what: str


@dataclass(frozen=True)
class Converted:
    """A converted column.

    Attributes:
        values: the values; null if unusable.
        problems: the reasons for the nulls.
    """

    values: pl.Series
    problems: tuple[Problem, ...]


def missing(column: pl.Series) -> Problem:
    """Return the missing values (null, NaN or empty text) as a problem."""
    bad = column.is_null()
    if column.dtype.is_float():
        bad = bad | column.is_nan().fill_null(False)
    if column.dtype == pl.String:
        bad = bad | (column == "").fill_null(False)
    return Problem(bad, MISSING, ABSENT)


def marked(column: pl.Series) -> Problem:
    """Return the texts that mark a missing value as a problem."""
    bad = column.is_in(MISSING_MARKS).fill_null(False)
    return Problem(bad, MISSING, "the text marks a missing value (--keep-null-ids makes it an id)")


def without(values: pl.Series, *problems: Problem) -> Converted:
    """Return ``values`` with null in the rows of each problem."""
    real = tuple(problem for problem in problems if problem.bad.any())
    for problem in real:
        values = values.zip_with(~problem.bad, pl.Series([None], dtype=values.dtype))
    return Converted(values, real)


def plain_text(column: pl.Series) -> pl.Series:
    """Return a categorical column as texts, and any other column unchanged."""
    return column.cast(pl.String) if isinstance(column.dtype, pl.Categorical | pl.Enum) else column


def ids(column: pl.Series, source: str, *, keep_marks: bool = True) -> Converted:
    """Return ids as Int64 or String; floats and decimals that are whole are integers, UUIDs texts.

    Integers beyond 64 bits with a sign are texts, and so are all others of their column. Without ``keep_marks``, texts
    that mark a missing value, such as ``NA``, are missing. Raises :class:`DataError` for a column of another type.
    """
    column = _as_texts(plain_text(column))
    if column.dtype == pl.String:
        return without(column, missing(column), *([] if keep_marks else [marked(column)]))
    if column.dtype.is_float():
        return _whole(column)
    if column.dtype.is_nested():
        raise DataError(f"{source}, column {column.name!r} {holds(column.dtype)}.")
    if not (column.dtype.is_integer() or column.dtype.is_decimal()):
        raise DataError(
            f"{source}, column {column.name!r}: ids of type {column.dtype} are not read; give integers or texts."
        )
    integers = column.cast(pl.Int64, strict=False)
    broken = Problem(((column != integers) & integers.is_not_null()).fill_null(False), BAD_ID, NOT_WHOLE)
    large = Problem(integers.is_null() & column.is_not_null(), BAD_ID, "the id does not fit 64 bits; give ids as texts")
    return without(integers, missing(column), broken, large)


def _as_texts(column: pl.Series) -> pl.Series:
    """Return a column of UUIDs, of nothing, or of integers beyond 64 bits with a sign as texts, others unchanged."""
    if column.dtype == pl.Object and all(isinstance(value, UUID | None) for value in column):
        return pl.Series(column.name, [None if value is None else str(value) for value in column], dtype=pl.String)
    beyond = column.dtype in (pl.UInt64, pl.Int128, pl.UInt128) and bool((column > LARGEST).any())
    return column.cast(pl.String) if beyond or column.dtype == pl.Null else column


def _whole(column: pl.Series) -> Converted:
    """Return floats that are whole as Int64 (pandas makes floats of integers with missing values)."""
    broken = Problem((column != column.round()).fill_null(False), BAD_ID, NOT_WHOLE)
    # Above this limit, several integers map to one floating point number, so two users would be merged.
    exact = 2**24 if column.dtype == pl.Float32 else 2**53
    large = ((column.abs() >= exact) & column.is_finite()).fill_null(False)
    inexact = Problem(large, BAD_ID, "the id is too large to be exact as a float")
    infinite = Problem(column.is_infinite().fill_null(False), BAD_ID, NOT_WHOLE)
    return without(column.cast(pl.Int64, strict=False), missing(column), infinite, broken, inexact)


def holds(dtype: pl.DataType) -> str:
    """Return what a column of a nested type holds, and what to do."""
    if isinstance(dtype, pl.Struct):
        return "holds objects; name one of their fields by making it a column"
    return "holds lists; explode them: one row for each item"


def meant(texts: pl.Series) -> pl.Series:
    """Return ids of a text file as Int64 if each is in canonical integer form (``007`` is not), else as texts.

    ``12.0`` is 12, as pandas writes integers of a column with missing values.
    """
    if texts.dtype != pl.String or not texts.str.contains(WHOLE).all():
        return texts
    integers = texts.str.replace(POINT_ZERO, "").cast(pl.Int64, strict=False)
    return texts if integers.null_count() else integers


def numbers(column: pl.Series, source: str) -> Converted:
    """Return numbers as Float64. Raises :class:`DataError` for a column of another type."""
    column = plain_text(column)
    if not may_be_number(column):
        raise DataError(f"{source}, column {column.name!r}: values of type {column.dtype} are not numbers.")
    values = column.cast(pl.Float64, strict=False)
    absent = missing(column)
    bad = ~values.is_finite().fill_null(False) & ~absent.bad
    return without(values, absent, Problem(bad, BAD_RATING, "the value is not a number"))


def may_be_number(column: pl.Series) -> bool:
    """Return whether a column can hold numbers: it is numeric, text or all null."""
    return column.dtype in (pl.String, pl.Null) or column.dtype.is_numeric()
