"""Parsing of delimited lines to columns: in bulk for a regular chunk, record by record for the others."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from adrec.data.convert import NUMBER
from adrec.data.lines import Chunk, lines_at, shown
from adrec.data.rows import Malformed, Piece

QUOTE, LINE_END, RETURN = ord('"'), ord("\n"), ord("\r")
BLANKS = " \t"  # removed around a field
NOT_UTF8 = "the line is not UTF-8 text (--encoding names another, such as latin-1)"
ASTRAY = "a quote is not closed, or not where a field ends (--no-quoted reads quotes as they are)"
SWALLOWS = (
    "a quote opens here and closes after whole rows (--no-quoted reads quotes as they are, --quoted over line ends)"
)
LOST = "\ufffd"  # stands for bytes that are not UTF-8


@dataclass(frozen=True)
class Dialect:
    """How the fields of a file are written.

    Attributes:
        separator: what stands between the fields.
        quoted: whether fields may be in double quotes.
        columns: names of the columns.
        has_header: whether the first line has these names.
        wary: refuse a quoted field that extends over lines which look like rows.
    """

    separator: str
    quoted: bool
    columns: Sequence[str]
    has_header: bool
    wary: bool = True


def read_chunk(chunk: Chunk, dialect: Dialect, wanted: list[int]) -> tuple[Piece, Chunk | None]:
    """Return the rows of a chunk, with the columns at ``wanted``, and its rest from an open quote on."""
    quoted = dialect.quoted and b'"' in chunk.content
    content = _unquoted(chunk.content, dialect.separator.encode()) if quoted else chunk.content
    piece = None if content is None else _regular(chunk, content, dialect, wanted)
    if piece is not None:
        return piece, None
    return read_quoted(chunk, dialect, wanted, final=False) if quoted else (_line_by_line(chunk, dialect, wanted), None)


def csv_records(lines: Iterable[str], separator: str, *, strict: bool = False) -> Iterator[list[str]]:
    """Yield the fields of each record of ``lines``; spaces before a quote are no part of its field."""
    return csv.reader(lines, delimiter=separator, strict=strict, skipinitialspace=separator != " ")


def refused(chunk: Chunk, dialect: Dialect, wanted: list[int], what: str) -> Piece:
    """Return a chunk as one malformed row."""
    return _Records(dialect, wanted).refuse(chunk.first_line, what, chunk.content).piece()


def _unquoted(content: bytes, separator: bytes) -> bytes | None:
    """Return a chunk without its quotes; None if a quoted field contains a separator, a line end or a quote."""
    if len(separator) > 1 or content.count(b"\r") != content.count(b"\r\n"):
        return None
    characters = np.frombuffer(content, dtype=np.uint8)
    quotes = np.flatnonzero(characters == QUOTE)
    if len(quotes) % 2:
        return None
    ends_field = (characters == separator[0]) | (characters == LINE_END)
    opening, closing = quotes[::2], quotes[1::2]
    begins = (opening == 0) | ends_field[opening - 1]
    ends = ends_field[closing + 1] | (characters[closing + 1] == RETURN)
    inside = np.searchsorted(quotes, np.flatnonzero(ends_field)) % 2
    if inside.any() or not (begins.all() and ends.all()):
        return None
    return bytes(characters[characters != QUOTE])


def _regular(chunk: Chunk, content: bytes, dialect: Dialect, wanted: list[int]) -> Piece | None:
    """Read ``content``, the chunk without quotes; None if a line has another form than the rest."""
    separator = dialect.separator.encode()
    if len(separator) > 1:
        mark = next((bytes([byte]) for byte in range(1, 9) if byte not in content), None)
        if mark is None:
            return None
        content, separator = content.replace(separator, mark), mark
    if _is_uniform(content, separator, len(dialect.columns)):
        table = _parse(content, separator, dialect, wanted)
        if table is None:
            return None
        numbers = np.arange(chunk.first_line, chunk.first_line + table.height)
        hollow = table.select(pl.all_horizontal(pl.all().is_null() | (pl.all() == ""))).to_series()
        if not hollow.any():
            lines = chunk.content
            return Piece(table, numbers, texts=lambda rows: lines_at(lines, rows))
    return None


def _is_uniform(content: bytes, separator: bytes, num_fields: int) -> bool:
    """Return whether every line has ``num_fields`` fields and ends in ``\\n`` or ``\\r\\n``."""
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


def _parse(content: bytes, separator: bytes, dialect: Dialect, wanted: list[int]) -> pl.DataFrame | None:
    """Parse lines that are known to be regular; None if a wanted field may not be UTF-8."""
    utf8 = _is_utf8(content)
    if len(dialect.columns) == 1:
        if not utf8:
            return None
        texts = [line.strip(BLANKS) for line in content.decode().replace("\r\n", "\n").split("\n")[:-1]]
        return pl.DataFrame({dialect.columns[0]: texts}, schema={dialect.columns[0]: pl.String})
    table = pl.read_csv(
        content,
        has_header=False,
        separator=separator.decode(),
        quote_char=None,
        infer_schema=False,
        columns=sorted(set(wanted)),
        encoding="utf8" if utf8 else "utf8-lossy",
    )
    if not utf8 and table.select(pl.any_horizontal(pl.all().str.contains(LOST, literal=True)).any()).item():
        return None
    table.columns = [dialect.columns[index] for index in sorted(set(wanted))]
    return table.select(pl.col(dialect.columns[index]).str.strip_chars(BLANKS) for index in wanted)


def _line_by_line(chunk: Chunk, dialect: Dialect, wanted: list[int]) -> Piece:
    """Read a chunk without quotes, in which some lines are malformed or blank."""
    separator = dialect.separator.encode()
    records = _Records(dialect, wanted)
    for number, whole in enumerate(chunk.content.split(b"\n")[:-1], start=chunk.first_line):
        line = whole.rstrip(b"\r")
        if not line.replace(separator, b"").strip():
            continue
        if b"\r" in line:
            records.refuse(number, "a carriage return stands inside the line", line)
        else:
            records.add(number, line.decode(errors="surrogateescape").split(dialect.separator), line)
    return records.piece()


def read_quoted(chunk: Chunk, dialect: Dialect, wanted: list[int], *, final: bool) -> tuple[Piece, Chunk | None]:
    """Read a chunk with quotes. If its last quote is open and it is not ``final``, return the rest from there."""
    lines = [line + b"\n" for line in chunk.content.split(b"\n")[:-1]]
    records = _Records(dialect, wanted)
    feed = _Feed(lines)
    start = hopeless = 0  # a quote that is open where a line before ``hopeless`` begins is known not to close well
    with _fields_of_any_length():
        while start < len(lines):
            feed.at, feed.end = start, start + 1 if start + 1 < hopeless else len(lines)
            try:
                for fields in csv_records(feed, dialect.separator, strict=True):
                    number, whole = chunk.first_line + start, lines[start : feed.at]
                    if dialect.wary and any(records.is_row_beside(fields, line) for line in whole[1:]):
                        records.refuse(number, SWALLOWS, whole[0])
                        start += 1
                        break
                    start = feed.at
                    if any(field.strip(" \t\r\n") for field in fields):
                        records.add(number, fields, b"".join(whole))
            except csv.Error:
                if feed.at == len(lines) and not final:
                    return records.piece(), Chunk(b"".join(lines[start:]), chunk.first_line + start)
                records.refuse(chunk.first_line + start, ASTRAY, lines[start])
                start, hopeless = start + 1, max(hopeless, feed.at)
    return records.piece(), None


@dataclass
class _Feed:
    """Iterator over the lines from ``at`` to ``end`` that counts how many ``csv`` consumed."""

    lines: list[bytes]
    at: int = 0
    end: int = 0

    def __iter__(self) -> Iterator[str]:
        while self.at < self.end:
            self.at += 1
            yield self.lines[self.at - 1].decode(errors="surrogateescape")


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Lift the field length limit of ``csv``. The limit is global to the process, so it is restored."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _alike(field: str, other: str) -> bool:
    """Return whether ``other`` is filled, and a number or a text with digits where ``field`` is."""
    field, other = field.strip(), other.strip()
    if re.fullmatch(NUMBER, field):
        return re.fullmatch(NUMBER, other) is not None
    return other != "" and (not re.search(r"\d", field) or re.search(r"\d", other) is not None)


def _is_text(field: str) -> bool:
    """Return whether all bytes of a field were UTF-8."""
    return field.isascii() or not any("\udc80" <= character <= "\udcff" for character in field)


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
        """Add a row, if its number of fields matches the columns."""
        expected = len(self.dialect.columns)
        if len(fields) != expected:
            has = f"{len(fields)} field{'' if len(fields) == 1 else 's'}"
            self.refuse(number, f"the line has {has} where {expected} are named", line)
            return
        row = [fields[index].strip(BLANKS) for index in self.wanted]
        if not all(map(_is_text, row)):
            self.refuse(number, NOT_UTF8, line)
            return
        self.numbers.append(number)
        self.rows.append(row)
        self.lines.append(line)

    def is_row_beside(self, fields: list[str], line: bytes) -> bool:
        """Return whether a line of a record with these ``fields`` looks like a row itself.

        It does if it has as many fields as there are columns, and the wanted ones are filled and have numbers or digits
        where the record has them.
        """
        own = line.decode(errors="surrogateescape").rstrip("\r\n").split(self.dialect.separator)
        expected = len(self.dialect.columns)
        if len(own) != expected:
            return False
        return len(fields) != expected or all(_alike(fields[index], own[index]) for index in self.wanted)

    def refuse(self, number: int, what: str, line: bytes) -> _Records:
        """Record a malformed line."""
        self.malformed.append(Malformed(number, what, shown(line)))
        return self

    def piece(self) -> Piece:
        """Return the rows."""
        names = [self.dialect.columns[index] for index in self.wanted]
        table = pl.DataFrame(self.rows, schema=dict.fromkeys(names, pl.String), orient="row")
        numbers = np.array(self.numbers, dtype=np.int64)
        return Piece(table, numbers, self.malformed, texts=lambda rows: [shown(self.lines[row]) for row in rows])
