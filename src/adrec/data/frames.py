"""Conversion of tables of other libraries to polars columns, or a one-sentence error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

import numpy as np
import polars as pl

from adrec.data.rows import HEAD_ROWS, FrameKind, Opened, whole_table
from adrec.utils.errors import DataError, needs_extra


def open_frame(source: Any) -> Opened:
    """Open a polars, pandas or pyarrow table, or any that has an Arrow stream, such as a DuckDB relation.

    No library is imported for it.

    Raises :class:`DataError` for any other type, and if two columns have the same name.
    """
    pandas, pyarrow = sys.modules.get("pandas"), sys.modules.get("pyarrow")
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        opened = _open_polars(source.lazy())
    elif pandas is not None and isinstance(source, pandas.DataFrame):
        opened = _open_pandas(source)
    elif pyarrow is not None and isinstance(source, pyarrow.Table):
        opened = _open_pyarrow(source)
    elif hasattr(source, "__arrow_c_stream__"):
        opened = _open_polars(_streamed(source).lazy(), f"the {type(source).__name__}")
    else:
        raise DataError(
            f"interactions of type {type(source).__name__} cannot be read; give a pandas, polars or pyarrow table, "
            "another that has an Arrow stream, or a path."
        )
    twice = next((name for at, name in enumerate(opened.columns) if name in opened.columns[:at]), None)
    if twice is not None:
        raise DataError(f"{opened.name} has two columns {twice!r}; rename one.")
    return opened


def _streamed(source: Any) -> pl.DataFrame:
    try:
        return pl.DataFrame(source)
    except Exception as error:  # each library raises its own
        raise _unreadable(f"the {type(source).__name__}", error) from error


def _open_polars(frame: pl.LazyFrame, name: str = "the polars table") -> Opened:
    def take(names: Sequence[str], rows: int | None = None) -> pl.DataFrame:
        try:
            return (frame.select(names) if rows is None else frame.select(names).head(rows)).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(name, error) from error

    try:
        columns = frame.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(name, error) from error
    return _opened(name, columns, take, "polars")


def _open_pandas(frame: Any) -> Opened:
    columns = [str(name) for name in frame.columns]

    def take(names: Sequence[str], rows: int | None = None) -> pl.DataFrame:
        return pl.DataFrame([_pandas_column(frame.iloc[:rows, columns.index(name)], name) for name in names])

    return _opened("the pandas table", columns, take, "pandas")


def _pandas_column(column: Any, name: str) -> pl.Series:
    # Numbers and dates are NumPy arrays and need nothing else; texts and nullable types go through pyarrow.
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufM":
        return pl.Series(name, column.to_numpy())
    try:
        if column.dtype == object and any(isinstance(value, UUID) for value in column.head(HEAD_ROWS)):
            return pl.Series(name, [None if value is None else str(value) for value in column], dtype=pl.String)
        return pl.from_pandas(column.to_frame(name))[name]
    except ImportError as error:
        raise DataError(needs_extra(f"reading column {name!r} of the pandas table", "pandas")) from error
    except Exception as error:  # pyarrow raises ten kinds
        raise DataError(
            f"the pandas table, column {name!r} has values of several types, or of one that is not read; make it "
            "integers, texts or dates."
        ) from error


def _open_pyarrow(table: Any) -> Opened:
    name = "the pyarrow table"

    def take(names: Sequence[str], rows: int | None = None) -> pl.DataFrame:
        try:
            return pl.DataFrame(pl.from_arrow(table.select(list(names)).slice(0, rows)))
        except Exception as error:  # pyarrow raises ten kinds
            raise _unreadable(name, error) from error

    return _opened(name, table.column_names, take, "pyarrow")


class _Take(Protocol):
    def __call__(self, names: Sequence[str], rows: int | None = None) -> pl.DataFrame: ...


def _opened(name: str, columns: Sequence[str], take: _Take, kind: FrameKind) -> Opened:
    return Opened(
        name,
        columns,
        pieces=lambda wanted: iter([whole_table(take(wanted))]),
        head=lambda wanted: take(wanted, HEAD_ROWS),
        kind=kind,
    )


def _unreadable(source: str, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"{source} cannot be read ({reason}); mend what it is made from.")
