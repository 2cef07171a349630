"""Conversion of the Python interface's inputs and outputs: ids from any list, tables in the library of the input."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast, get_args

import polars as pl

from adrec.utils.errors import ConfigError

FrameKind = Literal["polars", "pandas", "pyarrow"]


def frame_kind(table: Any) -> FrameKind:
    """Return the frame library of ``table``, in which results are returned; polars if it is not a frame."""
    module = type(table).__module__.partition(".")[0]
    return "pandas" if module == "pandas" else "pyarrow" if module == "pyarrow" else "polars"


def checked_kind(name: str) -> FrameKind:
    """Return the frame library of a name. Raises :class:`ConfigError` for another."""
    if name not in get_args(FrameKind):
        raise ConfigError(f"frame is one of {', '.join(get_args(FrameKind))}; it is {name!r}.")
    return cast("FrameKind", name)


def ids(values: Iterable[Any] | None) -> list[Any] | None:
    """Return ids as a list of plain Python values; None stays None.

    Raises :class:`ConfigError` for a single text, number or date instead of a list.
    """
    if values is None:
        return None
    if is_frame(values):
        raise ConfigError("a list of ids is expected, and a table was given; give one of its columns.")
    kind = next((name for name in ("to_pylist", "tolist") if hasattr(values, name)), None)
    plain = getattr(values, kind)() if kind else values
    if isinstance(plain, str | bytes) or not isinstance(plain, Iterable):
        raise ConfigError(f"a list of ids is expected, such as [{plain!r}]; it was given {plain!r}.")
    return plain if isinstance(plain, list) else list(plain)


def is_frame(values: Any) -> bool:
    """Whether ``values`` are a table of any library, not a column or a list."""
    return hasattr(values, "columns") and hasattr(values, "shape")


def as_kind(kind: FrameKind, table: pl.DataFrame) -> Any:
    """Return a table as a frame of ``kind``."""
    if kind == "pandas":
        return table.to_pandas()
    return table.to_arrow() if kind == "pyarrow" else table


def told(table: pl.DataFrame, notes: Sequence[str]) -> pl.DataFrame:
    """Return a table, with each of the notes on it as a warning where the user called."""
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=4)
    return table
