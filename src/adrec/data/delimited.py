"""CSV and its kin in: lines of fields between separators, read in chunks.

The grammar is RFC 4180's: a field that begins with a double quote goes on to the next single one, over separators and
line ends. A quote that is never closed, or closed in the middle of a field, makes its line malformed, and reading goes
on with the next line. A line of nothing but separators and blanks is no row.

Most chunks have no quote: Polars reads them, after the fields of each line were counted. The others are read by
Python's ``csv``.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from adrec.data.lines import BOM, LONGEST_LINE, Chunk, chunks, shown
from adrec.data.preparation import Preparation
from adrec.data.rows import Malformed, Opened, Piece
from adrec.data.source import Source
from adrec.errors import DataError

USUAL_SEPARATORS = {".tsv": "\t", ".txt": "\t", ".inter": "\t", ".data": "\t", ".dat": "::"}
SEPARATORS = ("::", ",", ";", "\t", "|")
NAMES = {"\t": "tabs", " ": "spaces"}


@dataclass(frozen=True)
class Dialect:
    """How the fields of a file are written."""

    separator: str
    quoted: bool
    columns: Sequence[str]
    has_header: bool


def open_delimited(source: Source, options: Preparation) -> Opened:
    """Open a CSV, TSV or like file. Raises :class:`DataError` where its first line cannot be one."""
    line = _first_line(source)
    separator, guesses = options.separator, []
    if separator is None:
        separator = _separator(line, source)
        guesses.append(f"{source.name}: fields separated by {NAMES.get(separator, repr(separator))}")
    quoted = options.quoted
    if quoted is None:
        quoted = len(separator) == 1 and source.ending != ".inter"
    if quoted and line.count('"') % 2:
        raise DataError(f"{source.name} line 1 has a quote that is not closed on it; name the columns on one line.")
    first = next(csv.reader([line], delimiter=separator)) if quoted else line.split(separator)
    columns = _columns([name.strip() for name in first], options.header, source)
    dialect = Dialect(separator, quoted, columns, has_header=options.header is None)
    return Opened(
        name=source.name,
        columns=columns,
        pieces=lambda wanted: _pieces(source, dialect, [list(columns).index(name) for name in wanted]),
        kind="path",
        unit="line",
        texts=True,
        guesses=guesses,
        digest=lambda: source.sha256,
    )


def _first_line(source: Source) -> str:
    line, end, _ = source.head.removeprefix(BOM).partition(b"\n")
    if b"\0" in line:
        raise DataError(f"{source.name} is not text but binary; give CSV, TSV, JSON lines or Parquet.")
    if not end and len(source.head) > len(BOM) + (1 << 15):
        raise DataError(f"{source.name} has no line end in its first {len(source.head):,} bytes; give a table.")
    try:
        first = line.decode().rstrip("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"{source.name} line 1 is not UTF-8 text; save the file as UTF-8.") from error
    if not first.strip():
        raise DataError(f"{source.name} line 1 is blank; the first line names the columns.")
    if "\r" in first:
        raise DataError(
            f"{source.name} has lines that end in a carriage return alone; save it with ordinary line ends."
        )
    return first


def _separator(line: str, source: Source) -> str:
    usual = USUAL_SEPARATORS.get(source.ending, ",")
    return next((each for each in (usual, *SEPARATORS) if each in line), usual)


def _columns(first: list[str], header: Sequence[str] | None, source: Source) -> Sequence[str]:
    """Return the names of the columns, those that are empty by their position."""
    if header is not None:
        if len(header) != len(first):
            raise DataError(
                f"{source.name} line 1 has {len(first)} fields where header names {len(header)}: "
                f"{', '.join(map(repr, header))}; name each column, or another separator."
            )
        return header
    twice = next((name for index, name in enumerate(first) if name and name in first[:index]), None)
    if twice is not None:
        raise DataError(f"{source.name} has two columns {twice!r} in its header (line 1); rename one.")
    return [name or f"(column {index})" for index, name in enumerate(first, start=1)]


def _pieces(source: Source, dialect: Dialect, wanted: list[int]) -> Iterator[Piece]:
    """Yield the rows of ``source`` with the columns at the indices ``wanted``."""
    held: Chunk | None = None  # the beginning of a quoted field that goes on in the next chunk
    for chunk in _without_header(chunks(source), dialect):
        if chunk.too_long:
            if held is not None:
                yield _quoted(held, dialect, wanted, final=True)[0]
                held = None
            yield _Records(dialect, wanted).refuse(chunk.first_line, "the line is too long", chunk.content).piece()
            continue
        if held is not None:
            chunk = Chunk(held.content + chunk.content, held.first_line)  # noqa: PLW2901 - it is the chunk to read
        if dialect.quoted and b'"' in chunk.content:
            piece, held = _quoted(chunk, dialect, wanted, final=False)
            yield piece
            if held is not None and len(held.content) > LONGEST_LINE:
                yield _quoted(held, dialect, wanted, final=True)[0]
                held = None
        else:
            held = None
            yield _plain(chunk, dialect, wanted)
    if held is not None:
        yield _quoted(held, dialect, wanted, final=True)[0]


def _without_header(all_chunks: Iterator[Chunk], dialect: Dialect) -> Iterator[Chunk]:
    for chunk in all_chunks:
        if dialect.has_header and chunk.first_line == 1:
            _, _, content = chunk.content.partition(b"\n")
            if content:
                yield Chunk(content, 2)
        else:
            yield chunk


def _plain(chunk: Chunk, dialect: Dialect, wanted: list[int]) -> Piece:
    """Read a chunk without quotes."""
    content, separator = chunk.content, dialect.separator.encode()
    if len(separator) > 1:
        mark = next((bytes([byte]) for byte in range(1, 9) if byte not in content), None)
        if mark is None:
            return _line_by_line(chunk, dialect, wanted)
        content, separator = content.replace(separator, mark), mark
    if _is_uniform(content, separator, len(dialect.columns)) and _is_utf8(content):
        table = _parse(content, separator, dialect, wanted)
        numbers = np.arange(chunk.first_line, chunk.first_line + table.height)
        hollow = table.select(pl.all_horizontal(pl.all().is_null() | (pl.all() == ""))).to_series()
        if not hollow.any():
            lines = chunk.content
            return Piece(table, numbers, texts=lambda rows: _lines_at(lines, rows))
    return _line_by_line(chunk, dialect, wanted)


def _is_uniform(content: bytes, separator: bytes, num_fields: int) -> bool:
    """Return whether every line has ``num_fields`` fields, and ends in ``\\n`` or ``\\r\\n`` alone."""
    if content.count(b"\r") != content.count(b"\r\n"):
        return False
    characters = np.frombuffer(content, dtype=np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    found = np.flatnonzero(characters == separator[0])
    if len(found) != len(ends) * (num_fields - 1):
        return False
    of_line = found.reshape(len(ends), num_fields - 1)
    inside = of_line[:, -1] < ends if num_fields > 1 else np.array([True])
    return bool(inside.all() and (num_fields == 1 or (of_line[1:, 0] > ends[:-1]).all()))


def _is_utf8(content: bytes) -> bool:
    try:
        return content.isascii() or bool(content.decode())
    except UnicodeDecodeError:
        return False


def _parse(content: bytes, separator: bytes, dialect: Dialect, wanted: list[int]) -> pl.DataFrame:
    """Read lines that are known to be whole."""
    if len(dialect.columns) == 1:
        texts = content.decode().replace("\r\n", "\n").split("\n")[:-1]
        return pl.DataFrame({dialect.columns[0]: texts}, schema={dialect.columns[0]: pl.String})
    table = pl.read_csv(
        content,
        has_header=False,
        separator=separator.decode(),
        quote_char=None,
        infer_schema=False,
        columns=sorted(set(wanted)),
    )
    table.columns = [dialect.columns[index] for index in sorted(set(wanted))]
    return table.select([dialect.columns[index] for index in wanted])


def _lines_at(content: bytes, rows: Sequence[int]) -> list[str]:
    lines = content.split(b"\n")
    return [shown(lines[row]) for row in rows]


def _line_by_line(chunk: Chunk, dialect: Dialect, wanted: list[int]) -> Piece:
    """Read a chunk without quotes that has lines to be left out."""
    separator = dialect.separator.encode()
    records = _Records(dialect, wanted)
    for number, whole in enumerate(chunk.content.split(b"\n")[:-1], start=chunk.first_line):
        line = whole.rstrip(b"\r")
        if not line.replace(separator, b"").strip():
            continue
        if b"\r" in line:
            records.refuse(number, "a carriage return stands inside the line", line)
        elif not _is_utf8(line):
            records.refuse(number, "the line is not UTF-8 text", line)
        else:
            records.add(number, line.decode().split(dialect.separator), line)
    return records.piece()


def _quoted(chunk: Chunk, dialect: Dialect, wanted: list[int], *, final: bool) -> tuple[Piece, Chunk | None]:
    """Read a chunk with quotes; if it is not ``final`` and its last quote is open, return what is left from there."""
    lines = [line + b"\n" for line in chunk.content.split(b"\n")[:-1]]
    utf8 = _is_utf8(chunk.content)
    records = _Records(dialect, wanted)
    feed = _Feed(lines)
    start = 0
    with _fields_of_any_length():
        while start < len(lines):
            feed.at = start
            try:
                for fields in csv.reader(feed, delimiter=dialect.separator, strict=True):
                    number, whole = chunk.first_line + start, b"".join(lines[start : feed.at])
                    start = feed.at
                    if not any(field.strip(" \t\r\n") for field in fields):
                        continue
                    if utf8 or _is_utf8(whole):
                        records.add(number, fields, whole)
                    else:
                        records.refuse(number, "the line is not UTF-8 text", whole)
            except csv.Error:
                if feed.at == len(lines) and not final:
                    return records.piece(), Chunk(b"".join(lines[start:]), chunk.first_line + start)
                records.refuse(
                    chunk.first_line + start, "a quote is not closed, or not where a field ends", lines[start]
                )
                start += 1
    return records.piece(), None


@dataclass
class _Feed:
    """Gives lines to ``csv``, and knows how many it has taken."""

    lines: list[bytes]
    at: int = 0

    def __iter__(self) -> Iterator[str]:
        while self.at < len(self.lines):
            self.at += 1
            yield self.lines[self.at - 1].decode(errors="surrogateescape")


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Let ``csv`` read fields of any length; its own limit is for the whole process, so it is put back."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


@dataclass
class _Records:
    """Rows that were read one by one."""

    dialect: Dialect
    wanted: list[int]
    numbers: list[int] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)

    def add(self, number: int, fields: list[str], line: bytes) -> None:
        """Take a row, if it has as many fields as there are columns."""
        expected = len(self.dialect.columns)
        if len(fields) == expected:
            self.numbers.append(number)
            self.rows.append([fields[index] for index in self.wanted])
            self.lines.append(line)
        else:
            has = f"{len(fields)} field{'' if len(fields) == 1 else 's'}"
            self.refuse(number, f"the line has {has} where {expected} are named", line)

    def refuse(self, number: int, what: str, line: bytes) -> _Records:
        """Take note of a line that is no row."""
        self.malformed.append(Malformed(number, what, shown(line)))
        return self

    def piece(self) -> Piece:
        """Return the rows."""
        names = [self.dialect.columns[index] for index in self.wanted]
        table = pl.DataFrame(self.rows, schema=dict.fromkeys(names, pl.String), orient="row")
        numbers = np.array(self.numbers, dtype=np.int64)
        return Piece(table, numbers, self.malformed, texts=lambda rows: [shown(self.lines[row]) for row in rows])
