"""Opening of input files. The format follows from the options, the content or the name, in this order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import polars as pl

from adrec.data.delimited import open_delimited
from adrec.data.jsonlines import open_jsonlines
from adrec.data.lines import BOM
from adrec.data.nested import FORMATS
from adrec.data.preparation import Preparation
from adrec.data.rows import HEAD_ROWS, Opened, Piece, whole_table
from adrec.data.source import PARQUET, STDIN, Source
from adrec.utils.errors import DataError
from adrec.utils.files import sha256
from adrec.utils.platforms import total_memory

NAMES = {"parquet": "Parquet", "jsonl": "JSON lines", "python-lines": "lines of Python literals"}
SPOOL_BYTES = 1 << 24
FEWEST_BYTES = 8  # of a value in memory


def open_file(path: Path, options: Preparation, notes: Sequence[str] = ()) -> Opened:
    """Open a file, or standard input for ``-``.

    Raises :class:`DataError` if the file is missing, empty, damaged, or in an unsupported format.
    """
    source = Source.open(path, options.encoding)
    kind = options.format or _format(source)
    guesses = [*notes]
    idle = options.of_delimited() if kind != "delimited" else ()
    idle += ("encoding",) if kind == "parquet" and options.encoding is not None else ()
    if idle or (options.format is None and kind != "delimited"):
        by = "by its content" if options.format is None else "as was asked for"
        without = f"; {' and '.join(idle)} {'is' if len(idle) == 1 else 'are'} not used" if idle else ""
        guesses.append(f"{source.name}: {NAMES.get(kind, kind)}, {by}{without}")
    if kind == "parquet":
        opened = _open_parquet(source)
    elif kind == "delimited":
        opened = open_delimited(source, options)
    elif kind in FORMATS:
        opened = FORMATS[kind](source, options)
    else:
        opened = open_jsonlines(source, kind)
    return replace(opened, guesses=(*guesses, *opened.guesses))


def _format(source: Source) -> str:
    if source.head.startswith(PARQUET):
        return "parquet"
    if source.ending in (".parquet", ".pq"):
        raise DataError(f"{source.name} is not a whole Parquet file; write it again.")
    json = source.ending in (".json", ".jsonl", ".ndjson") or source.head.removeprefix(BOM).lstrip().startswith(b"{")
    return "jsonl" if json else "delimited"


def _open_parquet(source: Source) -> Opened:
    """Open a Parquet file. Standard input and compressed files are first copied to a temporary file."""
    copy = _copy(source) if source.path == STDIN or source.compression else None
    path = source.path if copy is None else Path(copy.name)
    with _whole(source):
        columns = pl.scan_parquet(path, glob=False, hive_partitioning=False).collect_schema().names()

    def head(wanted: Sequence[str]) -> pl.DataFrame:
        with _whole(source):
            return pl.read_parquet(path, columns=list(wanted), n_rows=HEAD_ROWS, glob=False, hive_partitioning=False)

    def pieces(wanted: Sequence[str]) -> Iterator[Piece]:
        # A file name such as "ratings[1].parquet" must not be read as a glob pattern.
        with _whole(source):
            rows = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(pl.len()).collect().item()
        _check_size(source.name, rows, len(wanted))
        with _whole(source):
            table = pl.read_parquet(path, columns=list(wanted), glob=False, hive_partitioning=False)
        yield whole_table(table)
        if copy is not None:
            copy.close()

    return Opened(source.name, columns, pieces, head, "path", digest=lambda: source.sha256 or sha256(source.path))


def _check_size(name: str, rows: int, columns: int) -> None:
    """Raise :class:`DataError` for a table beyond the memory; Parquet packs repeats, so its file may be small."""
    if rows * columns * FEWEST_BYTES > total_memory():
        raise DataError(f"{name} has {rows:,} rows, which do not fit in the memory; prepare a part of it.")


def _copy(source: Source) -> IO[bytes]:
    file = tempfile.NamedTemporaryFile(suffix=".parquet")  # noqa: SIM115 - it lives as long as its reader
    for block in source.blocks(SPOOL_BYTES):
        file.write(block)
    file.flush()
    return file


@contextmanager
def _whole(source: Source) -> Iterator[None]:
    """Convert Polars' errors on a Parquet file to :class:`DataError`."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{source.name} is not a whole Parquet file; write it again.") from error
