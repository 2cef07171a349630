"""Files in: CSV, TSV and Parquet become a table, or one sentence that says why not."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl

from adrec.data.convert import Place
from adrec.errors import DataError

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".inter": "\t"}  # others where the header has none of these
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
    # A name such as "ratings[1].parquet" is a name, not a pattern.
    try:
        return pl.read_parquet(path, glob=False, hive_partitioning=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file; write it again.") from error


def _read_text(path: Path, separator: str) -> pl.DataFrame:
    header = _header(path)
    if separator not in header:
        separator = next((other for other in ",;\t" if other in header), separator)
    names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
    twice = next((name for index, name in enumerate(names) if name and name in names[:index]), None)
    if twice is not None:
        raise DataError(f"{path} has two columns {twice!r} in its header (line 1); rename one.")
    try:
        table = pl.read_csv(path, separator=separator, infer_schema=False, glob=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path} {_what_is_wrong(path, separator, len(names))}") from error
    # Polars makes repeated names distinct: those that are empty in the header stay as it wrote them.
    table.columns = [name or its for name, its in zip(names, table.columns, strict=True)]
    return _without_blank_end(table)


def _header(path: Path) -> str:
    with path.open("rb") as file:
        line = file.readline(csv.field_size_limit())
    try:
        header = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} line 1 is not UTF-8 text; save the file as UTF-8.") from error
    if not header.strip():
        raise DataError(f"{path} line 1 is blank; the first line names the columns.")
    if "\r" in header:
        raise DataError(f"{path} has lines that end in a carriage return alone; save it with ordinary line ends.")
    if header.count('"') % 2:
        raise DataError(f"{path} line 1 has a quote that is not closed on it; name the columns on one line.")
    return header


def _without_blank_end(table: pl.DataFrame) -> pl.DataFrame:
    """Leave out blank lines at the end of a file, which Polars reads as rows of nulls."""
    while table.height and all(value is None for value in table.row(-1)):
        table = table.head(-1)
    return table


def _what_is_wrong(path: Path, separator: str, num_columns: int) -> str:
    """Find the first line that cannot be read, the slow way: this runs only when reading has failed."""
    lonely = 0  # the first line that has a quote without its partner
    with path.open("rb") as file:
        reader = csv.reader((line.decode() for line in file), delimiter=separator, strict=True)
        try:
            for fields in reader:
                if len(fields) > num_columns:
                    return (
                        f"line {reader.line_num} has {len(fields)} fields where the header has {num_columns}; put a "
                        f"value that holds {separator!r} in double quotes."
                    )
                if any(field.count('"') % 2 for field in fields):
                    lonely = lonely or reader.line_num
        except UnicodeDecodeError:
            return f"line {reader.line_num + 1} is not UTF-8 text; save the file as UTF-8."
        except csv.Error:
            lonely = lonely or reader.line_num
    where = f"has a quote that is not closed, up to line {lonely}" if lonely else "cannot be read"
    return f"{where}; close every double quote, and double it where it is part of a value."
