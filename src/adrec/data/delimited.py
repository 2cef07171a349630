"""Reader of delimited text (CSV and similar formats), in chunks.

The grammar is that of RFC 4180. A quoted field extends to the next double quote that is not doubled, over separators
and line ends. If a quote is never closed, is closed in the middle of a field, or (unless ``quoted`` is asked for) after
lines that look like rows, its line is malformed, and reading resumes at the next line. A line of only separators and
blanks is not a row. Blanks around a field are removed.

Polars reads the regular chunks, which are most, after the fields of each line are counted (:mod:`adrec.data.fields`).
Python's ``csv`` reads the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import polars as pl

from adrec.data.fields import Dialect, csv_records, read_chunk, read_quoted, refused
from adrec.data.lines import BOM, LONGEST_LINE, Chunk, chunks, head_chunk
from adrec.data.preparation import Preparation
from adrec.data.rows import HEAD_ROWS, Opened, Piece
from adrec.data.source import Source
from adrec.utils.errors import DataError

USUAL_SEPARATORS = {".tsv": "\t", ".txt": "\t", ".inter": "\t", ".data": "\t", ".dat": "::"}
SEPARATORS = ("::", ",", ";", "\t", "|")
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks
NAMES = {"\t": "tabs", " ": "spaces"}


def open_delimited(source: Source, options: Preparation) -> Opened:
    """Open a delimited file. Raises :class:`DataError` if its first line cannot be read."""
    line = _first_line(source)
    separator, guesses = options.separator, []
    if separator is None:
        separator = _separator(line, source)
        guesses.append(f"{source.name}: fields separated by {NAMES.get(separator, repr(separator))}")
    if options.header is None:
        _refuse_known(line, source)
    quoted = options.quoted
    if quoted is None:
        quoted = len(separator) == 1 and source.ending != ".inter"
    if quoted and line.count('"') % 2:
        raise DataError(f"{source.name} line 1 has a quote that is not closed on it; name the columns on one line.")
    first = next(csv_records([line], separator)) if quoted else line.split(separator)
    columns = _columns([name.strip() for name in first], options.header, source)
    dialect = Dialect(separator, quoted, columns, has_header=options.header is None, wary=options.quoted is None)
    return Opened(
        name=source.name,
        columns=columns,
        pieces=lambda wanted: _pieces(source, dialect, [list(columns).index(name) for name in wanted]),
        head=lambda wanted: _head(source, dialect, [list(columns).index(name) for name in wanted]),
        kind="path",
        unit="line",
        texts=True,
        guesses=guesses,
        digest=lambda: source.sha256,
    )


def _first_line(source: Source) -> str:
    if source.head.startswith(UTF16):
        raise DataError(f"{source.name} is UTF-16 text; pass --encoding utf-16.")
    line, end, _ = source.head.removeprefix(BOM).partition(b"\n")
    if b"\0" in line:
        raise DataError(f"{source.name} is not text but binary; give CSV, TSV, JSON lines or Parquet.")
    if not end and len(source.head) > len(BOM) + (1 << 15):
        raise DataError(f"{source.name} has no line end in its first {len(source.head):,} bytes; give a table.")
    try:
        first = line.decode().rstrip("\r")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source.name} line 1 is not UTF-8 text; name its encoding (--encoding, such as latin-1)."
        ) from error
    if not first.strip():
        raise DataError(f"{source.name} line 1 is blank; the first line names the columns.")
    if "\r" in first:
        raise DataError(
            f"{source.name} has lines that end in a carriage return alone; save it with ordinary line ends."
        )
    return first


def _refuse_known(line: str, source: Source) -> None:
    """Raise :class:`DataError` with the recipe of a known data set with several interactions in a line."""
    if re.fullmatch(r"\d+:", line):
        raise DataError(
            f"{source.name} has ratings in blocks below a line such as {line}; read it with --recipe netflix."
        )
    if re.search(r"\tN\d+-[01]( |$)", line):
        raise DataError(f"{source.name} has impressions such as N37-1; read it with --recipe mind.")


def _separator(line: str, source: Source) -> str:
    usual = USUAL_SEPARATORS.get(source.ending, ",")
    return next((each for each in (usual, *SEPARATORS) if each in line), usual)


def _columns(first: list[str], header: Sequence[str] | None, source: Source) -> Sequence[str]:
    """Return the names of the columns; empty names are replaced by the position."""
    if header is not None:
        if len(header) != len(first):
            raise DataError(
                f"{source.name} line 1 has {len(first)} fields where header names {len(header)}: "
                f"{', '.join(map(repr, header))}; name each column, or another separator."
            )
        return header
    twice = next((name for index, name in enumerate(first) if name and name in first[:index]), None)
    if twice is not None:
        raise DataError(
            f"{source.name} has two columns {twice!r} in its header (line 1); rename one, or "
            "name the columns with --columns where that line is no header."
        )
    return [name or f"(column {index})" for index, name in enumerate(first, start=1)]


def _pieces(source: Source, dialect: Dialect, wanted: list[int]) -> Iterator[Piece]:
    """Yield the rows of ``source`` with the columns at the indices ``wanted``."""
    held: Chunk | None = None  # the start of a quoted field that continues in the next chunk
    for chunk in _without_header(chunks(source), dialect):
        if chunk.too_long:
            if held is not None:
                yield read_quoted(held, dialect, wanted, final=True)[0]
                held = None
            yield refused(chunk, dialect, wanted, "the line is too long")
            continue
        if held is not None:
            chunk = Chunk(held.content + chunk.content, held.first_line)  # noqa: PLW2901 - it is the chunk to read
        piece, held = read_chunk(chunk, dialect, wanted)
        yield piece
        if held is not None and len(held.content) > LONGEST_LINE:
            yield read_quoted(held, dialect, wanted, final=True)[0]
            held = None
    if held is not None:
        yield read_quoted(held, dialect, wanted, final=True)[0]


def _head(source: Source, dialect: Dialect, wanted: list[int]) -> pl.DataFrame:
    """Return the rows at the start of ``source`` with the columns at the indices ``wanted``."""
    first = next(_without_header(iter([head_chunk(source)]), dialect), None)
    names = [dialect.columns[index] for index in wanted]
    if first is None:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    return read_chunk(first, dialect, wanted)[0].columns.head(HEAD_ROWS)


def _without_header(all_chunks: Iterator[Chunk], dialect: Dialect) -> Iterator[Chunk]:
    for chunk in all_chunks:
        if dialect.has_header and chunk.first_line == 1:
            _, _, content = chunk.content.partition(b"\n")
            if content:
                yield Chunk(content, 2)
        else:
            yield chunk
