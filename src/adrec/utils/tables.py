"""Writing of tables as CSV, JSON lines or Parquet, by the file's ending."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from adrec.utils.errors import ConfigError
from adrec.utils.files import atomic_file, check_side_output

WRITERS: Mapping[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".csv": lambda table, path: table.write_csv(path),
    ".jsonl": lambda table, path: table.write_ndjson(path),
    ".parquet": lambda table, path: table.write_parquet(path),
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
