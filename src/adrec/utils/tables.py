"""Writing of tables as CSV, JSON lines or Parquet, by the file's ending."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from adrec.utils.errors import ConfigError
from adrec.utils.files import atomic_file
from adrec.utils.folders import check_side_output


@contextmanager
def _polars_errors() -> Iterator[None]:
    """Turn what Polars raises on a full disk into the error of the operating system."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        if "os error" not in str(error).lower():
            raise
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error


def write_parquet(table: pl.DataFrame, path: Path, **options: Any) -> None:
    """Write a table as Parquet. Raises :class:`OSError` if the disk is full."""
    with _polars_errors():
        table.write_parquet(path, **options)


def _write_csv(table: pl.DataFrame, path: Path) -> None:
    with _polars_errors():
        table.write_csv(path)


def _write_ndjson(table: pl.DataFrame, path: Path) -> None:
    with _polars_errors():
        table.write_ndjson(path)


WRITERS: Mapping[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".csv": _write_csv,
    ".jsonl": _write_ndjson,
    ".parquet": write_parquet,
}


def check_output(out: Path | None, option: str = "--out") -> None:
    """Raise :class:`UserError` if the ending of ``out`` is unsupported, or ``out`` is inside a run or a data set."""
    if out is not None:
        _check_ending(out, f"{option} {out}")
        check_side_output(out, option)


def _check_ending(out: Path, named: str) -> None:
    if out.suffix not in WRITERS:
        raise ConfigError(f"{named} should end in one of {', '.join(WRITERS)}.")


def write_table(table: pl.DataFrame, out: Path) -> None:
    """Write ``table`` to ``out`` atomically."""
    _check_ending(out, str(out))
    with atomic_file(out) as temporary:
        WRITERS[out.suffix](table, temporary)
