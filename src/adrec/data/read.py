"""Reading of files and frames to the columns ``user``, ``item`` and ``time``, with an account of unusable rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from adrec.data import choice, convert
from adrec.data.columns import find_column, refuse_shared
from adrec.data.convert import Converted
from adrec.data.files import open_file
from adrec.data.frames import open_frame
from adrec.data.preparation import Preparation
from adrec.data.remote import is_url, open_url
from adrec.data.report import NOT_WHERE, Rejected, RowAccount
from adrec.data.rows import FrameKind, Opened, Piece, with_constants
from adrec.data.source import expand
from adrec.data.times import Times
from adrec.data.unusable import unusable
from adrec.data.weights import parse_weights, weigh
from adrec.data.where import Where
from adrec.utils.errors import ConfigError, DataError
from adrec.utils.folders import check_apart
from adrec.utils.text import listed

ROW_ORDER = "none"  # in place of a time column
NO_COLUMNS: Mapping[str, str] = MappingProxyType({})
POINTED = r"^-?[0-9]+\.0+$"


@dataclass(frozen=True)
class Interactions:
    """A table of interactions as it was read.

    Attributes:
        table: ``user`` and ``item`` (Int64, or Categorical texts), ``time``, ``row`` (see :meth:`at`) and, if needed,
            ``rating`` and ``weight``; rows in the order of the source.
        sources: the name of each file, or the kind of frame.
        digests: the SHA-256 of each file.
        columns: the source's column for each role.
        guesses: the guesses, one sentence each.
        kind: kind of the source.
        time_unit: unit of the times: ``s``, ``ms``, ``us`` (dates too), ``ns``, or ``none`` if they are only an order.
        units: for each source, the unit of its row numbers.
        bases: for each source, the offset added to its row numbers.
    """

    table: pl.DataFrame
    sources: tuple[str, ...]
    digests: tuple[str | None, ...]
    columns: Mapping[str, str]
    guesses: tuple[str, ...]
    kind: FrameKind
    time_unit: str
    units: tuple[str, ...]
    bases: tuple[int, ...]

    @property
    def source(self) -> str:
        """A short description of the source."""
        return self.sources[0] if len(self.sources) == 1 else f"{self.sources[0]} and {len(self.sources) - 1} more"

    def at(self, row: int) -> str:
        """Return the location of a row in its source: ``ratings.csv line 7``."""
        index = int(np.searchsorted(self.bases, row, side="left")) - 1
        return f"{self.sources[index]} {self.units[index]} {row - self.bases[index]}"


def read_interactions(
    source: Any,
    options: Preparation | None = None,
    ledger: RowAccount | None = None,
    columns: Mapping[str, str] = NO_COLUMNS,
) -> Interactions:
    """Read files, or a pandas, polars or pyarrow table.

    Args:
        source: a path, several, a folder of shards, ``-`` for standard input, or a table.
        options: preparation options; by default everything is guessed.
        ledger: counts the rows and the unusable ones; by default, the first unusable row is an error.
        columns: the column for each role in an earlier table, used where a source has it.

    Raises:
        DataError: for an unreadable source, a missing column, or more unusable rows than the ledger allows.
    """
    options = options or Preparation()
    ledger = ledger if ledger is not None else RowAccount(strict=True)
    reading = _Reading(options, ledger, columns)
    for opened in _open(source, options, ledger):
        reading.take(opened)
    ledger.check()
    return reading.interactions()


def _open(source: Any, options: Preparation, ledger: RowAccount) -> Iterator[Opened]:
    """Yield each file or URL that ``source`` names, or ``source`` itself if it is a table."""
    if isinstance(source, str | Path):
        source = [source]
    if not (isinstance(source, list | tuple) and all(isinstance(each, str | Path) for each in source)):
        yield open_frame(source)
        return
    urls = [each for each in source if is_url(each)]
    if options.query is not None and (len(urls) != 1 or len(source) > 1):
        raise ConfigError("--query needs one source, the URL of a database, such as postgresql://user@host/shop.")
    for url in urls:
        yield open_url(str(url), options.query)
    paths = [Path(each) for each in source if not is_url(each)]
    if paths or not urls:
        files, notes = expand(paths)
        check_apart(ledger.quarantine, [file.path for file in files], "quarantine file")
        for at, file in enumerate(files):
            yield with_constants(open_file(file.path, options, notes if at == 0 else ()), file.constants)


class _Reading:
    """Accumulator of the rows read so far."""

    def __init__(self, options: Preparation, ledger: RowAccount, earlier: Mapping[str, str]) -> None:
        self.options, self.ledger, self.earlier = options, ledger, earlier
        self.opened: list[Opened] = []
        self.tables: list[pl.DataFrame] = []
        self.bases: list[int] = []
        self.next_base = 0
        self.columns: dict[str, str] = {}
        self.why: dict[str, str] = {}  # for each role whose column was guessed, one sentence
        self.digests: dict[str, str] = {}  # the name of the file with each digest
        self.times: Times | None = None
        self.texts = {role: pl.Categories.random() for role in ("user", "item")}  # each text once, whatever the rows

    def take(self, opened: Opened) -> None:
        """Read a source to its end."""
        columns = self._columns(opened)
        if self.times is None:
            self.times = Times(columns.get("time", ""), self.options.time_unit, self.options.time_format)
        self.opened.append(opened)
        self.bases.append(self.next_base)
        self.columns = self.columns or columns
        before, last = self.ledger.num_read, 0
        where = None if self.options.where is None else Where.of(self.options.where, opened)
        wanted = dict.fromkeys([*columns.values(), *(where.columns if where else ())])
        if where and where.numbers:
            self.why[f"where {opened.name}"] = f"--where compares {listed(sorted(where.numbers))} as numbers"
        for whole in opened.pieces(list(wanted)):
            piece = whole
            if where is not None:
                piece, others, examples = where.split(whole, opened.name)
                self.ledger.leave_out(NOT_WHERE, others, map(opened.at, examples))
                self.ledger.read(others, [])
            table, rejected = self._converted(opened, piece, columns)
            self.ledger.read(piece.columns.height + len(piece.malformed), rejected)
            self.tables.append(table)
            numbers = [*whole.numbers[-1:].tolist(), *(row.number for row in piece.malformed)]
            last = max([last, *numbers])
        self.next_base += last
        self._refuse_twice(opened)
        if self.ledger.num_read == before:
            raise DataError(f"{opened.name} has a header but no rows; give a table with interactions.")

    def _refuse_twice(self, opened: Opened) -> None:
        """Raise :class:`DataError` if a file with the same content was read before."""
        digest = opened.digest()
        if digest is not None and digest in self.digests:
            raise DataError(
                f"{opened.name} has the same content as {self.digests[digest]}: its interactions would count twice; "
                "leave one out."
            )
        if digest is not None:
            self.digests[digest] = opened.name

    def _columns(self, opened: Opened) -> dict[str, str]:
        named = {"user": self.options.user, "item": self.options.item, "time": self.options.time}
        if self.options.time == ROW_ORDER:
            del named["time"]
        if self.options.rating is not None or self.options.min_rating is not None:
            named["rating"] = self.options.rating
        if self.options.event_weights is not None:
            named["event"] = self.options.event
        columns = {}
        for role, name in named.items():
            known = (self.columns or self.earlier).get(role)  # of the first of several files
            if name is not None or known in opened.columns:
                columns[role] = find_column(opened.columns, role, name or known, opened.name)
                if name is None and not self.columns:
                    self.why[role] = f"{role} = column {known!r}, as before"
            else:
                columns[role], why = choice.find(opened, role, f"name it with --{role} (in Python {role}=)")
                self.why.setdefault(role, f"{role} = column {columns[role]!r}, {why}")
        refuse_shared(columns, opened.name)
        return columns

    def _converted(self, opened: Opened, piece: Piece, names: Mapping[str, str]) -> tuple[pl.DataFrame, list[Rejected]]:
        """Return the usable and the unusable rows of a piece."""
        assert self.times is not None
        raw = {role: piece.columns[name] for role, name in names.items()}
        keep_marks = self.options.keep_null_ids
        converted = {role: convert.ids(raw[role], opened.name, keep_marks=keep_marks) for role in ("user", "item")}
        if "time" in raw:
            converted["time"] = self.times.read(
                raw["time"], opened.name, lambda row: opened.at(int(piece.numbers[row]))
            )
        else:
            converted["time"] = Converted(pl.Series("time", piece.numbers + self.bases[-1], dtype=pl.Int64), ())
        if "rating" in raw:
            converted["rating"] = convert.numbers(raw["rating"], opened.name)
        if self.options.event_weights is not None:
            converted["event"] = weigh(raw["event"], parse_weights(self.options.event_weights), opened.name)
        columns = {role: self._compact(role, each.values) for role, each in converted.items()}
        if "event" in columns:
            columns["weight"] = columns.pop("event")
        table = pl.DataFrame(columns).with_columns(row=pl.Series(piece.numbers + self.bases[-1], dtype=pl.Int64))
        rejected = unusable(opened, piece, raw, converted, named=self.options.header is not None)
        if rejected:
            table = table.drop_nulls()
        return table, sorted(rejected, key=lambda row: row.number)

    def _compact(self, role: str, values: pl.Series) -> pl.Series:
        return values.cast(pl.Categorical(self.texts[role])) if values.dtype == pl.String else values

    def interactions(self) -> Interactions:
        """Return all that was read."""
        assert self.times is not None
        guesses = [guess for opened in self.opened for guess in opened.guesses]
        guesses += self.why.values()
        table = _together(self.tables, self.texts)
        if all(opened.texts for opened in self.opened):
            guesses += [each for role in ("user", "item") for each in _forms(table[role], self.columns[role])]
            table = table.with_columns(_meant(table[role]) for role in ("user", "item"))
        unit = self.times.end(self.opened[0].name) if "time" in self.columns else "none"
        if "time" not in self.columns:
            guesses.append("time = the order of the rows, as asked for")
        return Interactions(
            table=table,
            sources=tuple(opened.name for opened in self.opened),
            digests=tuple(opened.digest() for opened in self.opened),
            columns=self.columns,
            guesses=(*dict.fromkeys([*guesses, *self.times.guesses()]),),
            kind=self.opened[0].kind,
            time_unit=unit,
            units=tuple(opened.unit for opened in self.opened),
            bases=tuple(self.bases),
        )


def _at(opened: Opened, piece: Piece, row: int) -> str:
    return opened.at(int(piece.numbers[row]))


def _forms(column: pl.Series, name: str) -> Iterator[str]:
    """Yield a sentence if some ids of a text file are written like ``12.0``: read as 12, or not the same as 12."""
    if column.dtype == pl.Int64:
        return
    texts = column.unique().cast(pl.String)
    pointed = texts.filter(texts.str.contains(POINTED))
    if not len(pointed):
        return
    whole = pointed[0].removesuffix(".0")
    if convert.meant(texts).dtype == pl.Int64:
        yield f"column {name!r}: ids such as {pointed[0]} are integers, {whole}"
    elif pointed.str.replace(convert.POINT_ZERO, "").is_in(texts.implode()).any():
        yield f"column {name!r}: {pointed[0]} and {whole} are different ids, as some of the others are no numbers"


def _meant(column: pl.Series) -> pl.Series:
    """Return ids of a text file as integers if all are in canonical form. Each distinct text is checked once."""
    if column.dtype == pl.Int64:
        return column
    distinct = column.unique()
    integers = convert.meant(distinct.cast(pl.String))
    if integers.dtype == pl.String:
        return column
    codes = distinct.to_physical().to_numpy()
    values = np.zeros(int(codes.max(initial=0)) + 1, dtype=np.int64)
    values[codes] = integers.to_numpy()
    return pl.Series(column.name, values[column.to_physical().to_numpy()])


def _together(tables: Sequence[pl.DataFrame], texts: Mapping[str, pl.Categories]) -> pl.DataFrame:
    """Return all pieces as one table; ids are texts where some of them are."""
    for role, categories in texts.items():
        if len({table.schema[role] for table in tables if table.height}) > 1:
            as_texts = pl.col(role).cast(pl.String).cast(pl.Categorical(categories))
            tables = [table.with_columns(as_texts) for table in tables]
    filled = [table for table in tables if table.height] or tables[:1]
    return pl.concat(filled, how="vertical_relaxed", rechunk=True)
