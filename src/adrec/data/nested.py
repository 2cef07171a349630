"""Known data sets with several interactions in one line: Otto's sessions, MIND's impressions, Netflix's blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from adrec.data.delimited import open_delimited
from adrec.data.lines import Chunk, chunks, head_chunk, shown
from adrec.data.preparation import Preparation
from adrec.data.rows import HEAD_ROWS, Malformed, Opened, Piece, whole_table
from adrec.data.source import Source

OTTO: Mapping[str, pl.DataType] = {
    "session": pl.Int64(),
    "events": pl.List(pl.Struct({"aid": pl.Int64(), "ts": pl.Int64(), "type": pl.String()})),
}
MIND = ("impression", "user_id", "time", "history", "impressions")
NETFLIX = ("item_id", "user_id", "rating", "date")


@dataclass(frozen=True)
class _Lines:
    """Rows of a chunk, each with the index of its line, and the indices of malformed lines."""

    table: pl.DataFrame
    lines: pl.Series
    malformed: Sequence[int] = ()


_Reader = Callable[[bytes], _Lines]


def open_otto(source: Source, options: Preparation) -> Opened:
    """Open lines of ``{"session": .., "events": [{"aid": .., "ts": .., "type": ..}, ..]}``: one row an event."""
    return _opened(source, ("session", "aid", "ts", "type"), lambda: _otto, "the line is no session with its events")


def open_netflix(source: Source, options: Preparation) -> Opened:
    """Open blocks of ``user,rating,date`` lines, each below a line with the film: ``1:``."""
    return _opened(source, NETFLIX, _Netflix, "the line is no film and no rating of one")


def open_mind(source: Source, options: Preparation) -> Opened:
    """Open MIND's ``behaviors.tsv``: one row for each news that is clicked, ``N37-1`` among the impressions."""
    opened = open_delimited(source, replace(options, separator="\t", quoted=False, header=MIND))

    def clicked(pieces: Iterator[Piece], wanted: Sequence[str]) -> Iterator[Piece]:
        for piece in pieces:
            table = piece.columns.with_row_index("at").with_columns(pl.col("impressions").str.split(" "))
            table = table.explode("impressions").filter(pl.col("impressions").str.ends_with("-1"))
            table = table.with_columns(item_id=pl.col("impressions").str.strip_suffix("-1"))
            at = table["at"].to_numpy()
            texts = _texts_of(piece, at)
            yield Piece(table.select(wanted), piece.numbers[at], piece.malformed, texts)

    def pieces(wanted: Sequence[str]) -> Iterator[Piece]:
        return clicked(opened.pieces([*dict.fromkeys([*(set(wanted) - {"item_id"}), "impressions"])]), wanted)

    def head(wanted: Sequence[str]) -> pl.DataFrame:
        whole = opened.head([*dict.fromkeys([*(set(wanted) - {"item_id"}), "impressions"])])
        return next(clicked(iter([whole_table(whole)]), wanted)).columns

    columns = ["user_id", "item_id", "time"]
    return replace(opened, columns=columns, pieces=pieces, head=head)


def _texts_of(piece: Piece, at: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> Callable[[Sequence[int]], list[str]]:
    return lambda rows: piece.text([int(at[row]) for row in rows])


FORMATS: Mapping[str, Callable[[Source, Preparation], Opened]] = {
    "otto": open_otto,
    "mind": open_mind,
    "netflix": open_netflix,
}


def _opened(source: Source, columns: Sequence[str], reader: Callable[[], _Reader], said: str) -> Opened:
    """Return a source whose lines a new ``reader`` reads, from the start to the end."""

    def pieces(wanted: Sequence[str]) -> Iterator[Piece]:
        read = reader()
        for chunk in chunks(source):
            yield _piece(chunk, read, said, wanted)

    def head(wanted: Sequence[str]) -> pl.DataFrame:
        return reader()(head_chunk(source).content).table.select(wanted).head(HEAD_ROWS)

    return Opened(source.name, columns, pieces, head, "path", "line", texts=True, digest=lambda: source.sha256)


def _piece(chunk: Chunk, read: _Reader, said: str, wanted: Sequence[str]) -> Piece:
    lines = chunk.content.split(b"\n")[:-1]
    if chunk.too_long:
        long = Malformed(chunk.first_line, "the line is too long", shown(chunk.content))
        return Piece(pl.DataFrame(schema=dict.fromkeys(wanted, pl.String)), np.empty(0, dtype=np.int64), [long])
    found = read(chunk.content)
    at = found.lines.to_numpy()
    return Piece(
        found.table.select(wanted),
        at + chunk.first_line,
        [Malformed(chunk.first_line + index, said, shown(lines[index])) for index in found.malformed],
        texts=lambda rows: [shown(lines[at[row]]) for row in rows],
    )


def _otto(content: bytes) -> _Lines:
    try:
        table = pl.read_ndjson(content, schema=OTTO).with_row_index("line")
        bad: list[int] = []
    except pl.exceptions.PolarsError:
        table, bad = _otto_by_line(content.split(b"\n")[:-1])
    none = table.filter(pl.col("session").is_null() | (pl.col("events").list.len().fill_null(0) == 0))
    table = table.join(none, on="line", how="anti").explode("events").unnest("events")
    return _Lines(table.drop("line"), table["line"].cast(pl.Int64), sorted({*bad, *none["line"].to_list()}))


def _otto_by_line(lines: Sequence[bytes]) -> tuple[pl.DataFrame, list[int]]:
    tables = [pl.DataFrame(schema={"line": pl.UInt32(), **OTTO})]
    bad: list[int] = []
    for at, line in enumerate(lines):
        try:
            table = pl.read_ndjson(line + b"\n", schema=OTTO)
        except pl.exceptions.PolarsError:
            bad += [at] if line.strip() else []
            continue
        tables.append(table.select(pl.lit(at, dtype=pl.UInt32).alias("line"), pl.all()))
    return pl.concat(tables), bad


class _Netflix:
    """Reads chunks of blocks; the film of the last line continues in the next chunk."""

    def __init__(self) -> None:
        self.film: str | None = None

    def __call__(self, content: bytes) -> _Lines:
        lines = pl.Series("text", content.decode(errors="replace").replace("\r", "").split("\n")[:-1])
        table = lines.to_frame().with_row_index("line").filter(pl.col("text") != "")
        fields = pl.col("text").str.split_exact(",", 2).struct.rename_fields(list(NETFLIX[1:]))
        film = pl.col("text").str.extract(r"^(\d+):$").forward_fill().fill_null(pl.lit(self.film, pl.String))
        table = table.with_columns(film.alias("item_id"), fields.alias("fields")).unnest("fields")
        self.film = table["item_id"][-1] if table.height else self.film
        table = table.filter(~pl.col("text").str.contains(r"^\d+:$"))
        usable = pl.col("text").str.contains(r"^\d+,\d+,[^,]+$") & pl.col("item_id").is_not_null()
        bad = table.filter(~usable)["line"].to_list()
        table = table.filter(usable)
        return _Lines(table.select(NETFLIX), table["line"].cast(pl.Int64), bad)
