"""Reader of JSON lines, and of lines of Python literals (some old collections): one object per line, in chunks.

Values become texts, as in a CSV file: integers without a decimal point, other values in JSON notation. Objects and
lists are no values (:mod:`adrec.data.containers`). The first of duplicate keys counts. Polars reads a chunk. If a line
is malformed, the lines are checked one by one, and Polars reads the valid ones.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from adrec.data.containers import Pairs, held, may_hold_containers, unwrap, unwrapped
from adrec.data.lines import BOM, Chunk, chunks, head_chunk, lines_at, shown
from adrec.data.rows import HEAD_ROWS, Malformed, Opened, Piece
from adrec.data.source import Source
from adrec.utils.errors import DataError

Read = Callable[[str], Any]
FIRST_LINES = 100  # the keys of these lines are the columns


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _json(line: str) -> Any:
    """Parse a line; the first of duplicate keys counts, as in Polars."""
    value = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=Pairs)
    return dict(reversed(value)) if isinstance(value, Pairs) else value


KINDS: Mapping[str, Read] = {"jsonl": _json, "python-lines": ast.literal_eval}


def open_jsonlines(source: Source, kind: str) -> Opened:
    """Open lines of objects, ``jsonl`` or ``python-lines``. Raises :class:`DataError` for other content."""
    start = source.head.removeprefix(BOM).lstrip()
    if kind == "jsonl" and start.startswith(b"["):
        raise DataError(f"{source.name} is one JSON list; write one object a line (jq -c '.[]' does it).")
    lines = start.split(b"\n")[:FIRST_LINES]
    objects = [read for line in lines if isinstance(read := _read(line, KINDS[kind]), dict)]
    columns = list(dict.fromkeys(str(key) for each in objects for key in each))
    if not columns:
        literals = kind == "jsonl" and any(isinstance(_read(line, ast.literal_eval), dict) for line in lines)
        advice = "they are Python dictionaries: pass --format python-lines, or --recipe steam" if literals else ""
        raise DataError(f"{source.name} has no {_what(kind)} in its first lines; {advice or 'give one a line'}.")
    if {"session", "events"} <= set(columns) and isinstance(objects[0].get("events"), list):
        raise DataError(f"{source.name} has one session a line, with a list of events; read it with --recipe otto.")
    return Opened(
        name=source.name,
        columns=columns,
        pieces=lambda wanted: (_piece(chunk, kind, wanted) for chunk in chunks(source)),
        head=lambda wanted: _head(source, kind, wanted),
        kind="path",
        unit="line",
        texts=True,
        digest=lambda: source.sha256,
    )


def _head(source: Source, kind: str, wanted: Sequence[str]) -> pl.DataFrame:
    """Return the given columns of the first lines."""
    return _piece(head_chunk(source), kind, wanted).columns.head(HEAD_ROWS)


def _what(kind: str) -> str:
    return "JSON object" if kind == "jsonl" else "Python dictionary"


def _read(line: bytes, read: Read) -> Any:
    """Return the value of a line; None if it is malformed."""
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


def _parsed(content: bytes, wanted: Sequence[str]) -> pl.DataFrame | None:
    """Return the values of lines of JSON as texts, None where Polars cannot read one."""
    try:
        return unwrapped(pl.read_ndjson(content, schema=dict.fromkeys(wanted, pl.String)))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None


def _whole(chunk: Chunk, wanted: Sequence[str]) -> pl.DataFrame | None:
    """Return the table of a chunk, or None if its lines must be checked one by one."""
    if b"\\ud" in chunk.content or b"\\uD" in chunk.content:
        return None  # a lone surrogate is not valid text, and Polars does not report it
    table = _parsed(chunk.content, wanted)
    if table is None or table.height != chunk.content.count(b"\n"):
        return None
    hollow = table.select(pl.all_horizontal(pl.all().is_null())).to_series()
    return None if hollow.any() or may_hold_containers(table) else table


def _line_by_line(chunk: Chunk, kind: str, wanted: Sequence[str]) -> Piece:
    lines = chunk.content.split(b"\n")[:-1]
    filled = [at for at, line in enumerate(lines) if line.strip()]
    good, wrong = {}, {}
    for at in filled:
        values = _values(lines[at], kind, wanted)
        container = next(filter(None, (held(name, value) for name, value in (values or {}).items())), None)
        if values is None or container is not None:
            wrong[at] = container
        else:
            good[at] = values
    if kind == "jsonl":  # a line's result must not depend on its neighbours, so Polars parses these values too
        table, kept = _table(lines, list(good), wanted)
        table = table.with_columns(_unwrapped(table[name], [good[at][name] for at in kept]) for name in wanted)
    else:
        kept = list(good)
        table = _frame({name: [_text(unwrap(values[name])) for values in good.values()] for name in wanted})
    said = f"the line is no {_what(kind)}"
    unread = sorted(set(filled) - set(kept))
    return Piece(
        table,
        np.array(kept, dtype=np.int64) + chunk.first_line,
        [Malformed(chunk.first_line + at, wrong.get(at) or said, shown(lines[at])) for at in unread],
        texts=lambda rows: [shown(lines[kept[row]]) for row in rows],
    )


def _values(line: bytes, kind: str, wanted: Sequence[str]) -> dict[str, Any] | None:
    """Return the wanted values of the object in a line; None if there is no object or a value is not valid text."""
    read = _read(line, KINDS[kind])
    values = {name: read.get(name) for name in wanted} if isinstance(read, dict) else None
    return values if values is not None and all(_is_text(value) for value in values.values()) else None


def _table(lines: Sequence[bytes], at: list[int], wanted: Sequence[str]) -> tuple[pl.DataFrame, list[int]]:
    """Return the table of the lines of JSON at the indices ``at``, and which of them it has: those Polars can read."""
    table = _parsed(b"".join(lines[each] + b"\n" for each in at), wanted) if at else None
    if table is not None and table.height == len(at):
        return table, at
    if len(at) <= 1:
        return _frame({name: [] for name in wanted}), []
    (first, in_first), (last, in_last) = (
        _table(lines, half, wanted) for half in (at[: len(at) // 2], at[len(at) // 2 :])
    )
    return pl.concat([first, last]), [*in_first, *in_last]


def _unwrapped(column: pl.Series, values: Sequence[Any]) -> pl.Series:
    """Return a column with each wrapped value replaced by what it wraps; ``values`` are the parsed ones."""
    if not any(isinstance(value, Pairs) for value in values):
        return column
    inner = (
        _text(unwrap(value)) if isinstance(value, Pairs) else text for value, text in zip(values, column, strict=True)
    )
    return pl.Series(column.name, list(inner), dtype=pl.String)


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


def _is_text(value: Any) -> bool:
    """Return whether a value can be encoded in UTF-8 (it has no lone surrogates)."""
    try:
        json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeEncodeError:
        return False
    return True
