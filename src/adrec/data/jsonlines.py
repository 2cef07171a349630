"""JSON lines in (and lines of Python literals, which some old collections are): an object a line, read in chunks.

Values become texts, as in a CSV file: whole numbers without a point, others as JSON writes them. Polars reads a
chunk; where it has a line that is none, the lines are read one by one.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from adrec.data.lines import BOM, Chunk, chunks, lines_at, shown
from adrec.data.rows import Malformed, Opened, Piece
from adrec.data.source import Source
from adrec.errors import DataError

Read = Callable[[str], Any]
FIRST_LINES = 100  # whose keys are the columns


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _json(line: str) -> Any:
    return json.loads(line, parse_constant=_refuse_constant)


KINDS: Mapping[str, Read] = {"jsonl": _json, "python-lines": ast.literal_eval}


def open_jsonlines(source: Source, kind: str) -> Opened:
    """Open lines of objects, ``jsonl`` or ``python-lines``. Raises :class:`DataError` where the first ones are none."""
    start = source.head.removeprefix(BOM).lstrip()
    if kind == "jsonl" and start.startswith(b"["):
        raise DataError(f"{source.name} is one JSON list; write one object a line (jq -c '.[]' does it).")
    objects = [read for line in start.split(b"\n")[:FIRST_LINES] if isinstance(read := _read(line, KINDS[kind]), dict)]
    columns = list(dict.fromkeys(str(key) for each in objects for key in each))
    if not columns:
        raise DataError(f"{source.name} has no {_what(kind)} in its first lines; give one a line.")
    return Opened(
        name=source.name,
        columns=columns,
        pieces=lambda wanted: (_piece(chunk, kind, wanted) for chunk in chunks(source)),
        kind="path",
        unit="line",
        texts=True,
        digest=lambda: source.sha256,
    )


def _what(kind: str) -> str:
    return "JSON object" if kind == "jsonl" else "Python dictionary"


def _read(line: bytes, read: Read) -> Any:
    """Return the value that a line holds; None where it holds none."""
    try:
        return read(line.decode())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _piece(chunk: Chunk, kind: str, wanted: Sequence[str]) -> Piece:
    if chunk.too_long:
        long = Malformed(chunk.first_line, "the line is too long", shown(chunk.content))
        return Piece(_frame({name: [] for name in wanted}), np.empty(0, dtype=np.int64), [long])
    if kind == "jsonl" and (table := _whole(chunk, wanted)) is not None:
        numbers = np.arange(chunk.first_line, chunk.first_line + table.height)
        return Piece(table, numbers, texts=lambda rows: lines_at(chunk.content, rows))
    return _line_by_line(chunk, kind, wanted)


def _frame(columns: Mapping[str, list[str | None]]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def _whole(chunk: Chunk, wanted: Sequence[str]) -> pl.DataFrame | None:
    """Return the table of a chunk, or None where some line needs to be looked at."""
    if b"\\ud" in chunk.content or b"\\uD" in chunk.content:
        return None  # half a character is no text, and Polars does not say so
    try:
        table = pl.read_ndjson(chunk.content, schema=dict.fromkeys(wanted, pl.String))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    hollow = table.select(pl.all_horizontal(pl.all().is_null())).to_series()
    blank = table.height != chunk.content.count(b"\n")
    return None if blank or hollow.any() else table


def _line_by_line(chunk: Chunk, kind: str, wanted: Sequence[str]) -> Piece:
    columns: dict[str, list[str | None]] = {name: [] for name in wanted}
    numbers: list[int] = []
    malformed: list[Malformed] = []
    lines = chunk.content.split(b"\n")[:-1]
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        value = _read(line, KINDS[kind])
        texts = [_text(value.get(name)) for name in wanted] if isinstance(value, dict) else None
        if texts is None or not all(text is None or _is_text(text) for text in texts):
            malformed.append(Malformed(chunk.first_line + at, f"the line is no {_what(kind)}", shown(line)))
            continue
        numbers.append(chunk.first_line + at)
        for name, text in zip(wanted, texts, strict=True):
            columns[name].append(text)
    kept = [number - chunk.first_line for number in numbers]
    return Piece(
        _frame(columns),
        np.array(numbers, dtype=np.int64),
        malformed,
        texts=lambda rows: [shown(lines[kept[row]]) for row in rows],
    )


def _text(value: Any) -> str | None:
    """Return a value as the text that a CSV file would have for it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return str(value)


def _is_text(text: str) -> bool:
    """Return whether a text has whole characters alone, as UTF-8 needs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
