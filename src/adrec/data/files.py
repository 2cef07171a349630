"""Files in: CSV, TSV and Parquet become a table, or one sentence that says why not."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl

from adrec.data.convert import Place
from adrec.errors import DataError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
READABLE = (*SEPARATORS, ".parquet")


def read_file(path: Path) -> tuple[pl.DataFrame, Place]:
    """Read the file at ``path``; every column of a CSV or TSV file is text.

    Raises :class:`DataError` where the file is missing, empty, damaged or of another kind than its name says.
    """
    head = _head(path)
    suffix = path.suffix.lower()
    if suffix not in READABLE:
        raise DataError(
            f"{path} has an ending that is not read; give a file that ends in one of {', '.join(READABLE)}."
        )
    if head.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is compressed with gzip; decompress it first (gunzip).")
    if suffix == ".parquet":
        return _read_parquet(path), Place(str(path))
    if head.startswith(b"PAR1") or b"\0" in head:
        kind = "Parquet; name it .parquet" if head.startswith(b"PAR1") else "binary; give a text file"
        raise DataError(f"{path} is not {suffix[1:].upper()} text but {kind}.")
    return _read_text(path, SEPARATORS[suffix]), Place(str(path), first_line=2)


def _head(path: Path) -> bytes:
    """Return the first bytes of a file that is there and holds something."""
    if path.is_dir():
        empty = not any(path.iterdir())
        raise DataError(f"{path} is {'an empty' if empty else 'a'} folder; name a file of interactions.")
    try:
        with path.open("rb") as file:
            head = file.read(65536)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; check the path.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if not head:
        raise DataError(f"{path} is empty; give a file of interactions.")
    return head


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file; write it again.") from error


def _read_text(path: Path, separator: str) -> pl.DataFrame:
    header = _header(path)
    if separator == "," and "," not in header:
        separator = next((other for other in (";", "\t") if other in header), separator)
    names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise DataError(f"{path} has two columns {twice!r} in its header (line 1); rename one.")
    try:
        return pl.read_csv(
            path,
            separator=separator,
            has_header=False,
            skip_rows=1,
            new_columns=names,
            infer_schema=False,
            schema=dict.fromkeys(names, pl.String),
        )
    except pl.exceptions.NoDataError:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(_what_is_wrong(path, separator, len(names), str(error))) from error


def _header(path: Path) -> str:
    with path.open("rb") as file:
        line = file.readline(1 << 20)
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} line 1 is not UTF-8 text; save the file as UTF-8.") from error


def _what_is_wrong(path: Path, separator: str, num_columns: int, message: str) -> str:
    """Find the first line that cannot be read, the slow way: this runs only when reading has failed."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                fields = next(csv.reader([line.decode("utf-8")], delimiter=separator), [])
            except UnicodeDecodeError:
                return f"{path} line {number} is not UTF-8 text; save the file as UTF-8."
            except csv.Error:
                fields = []
            if len(fields) > num_columns:
                return (
                    f"{path} line {number} has {len(fields)} fields where the header has {num_columns}; mend the line."
                )
    return f"{path} cannot be read ({message.splitlines()[0]}); check its quotes and separators."
