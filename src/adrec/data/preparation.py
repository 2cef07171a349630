"""The options of ``prepare``: how a table is read and filtered, with their defaults."""

from __future__ import annotations

import codecs
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal, TypedDict

from adrec.config.parsing import read_dataclass, require
from adrec.data.seen import Seen
from adrec.data.weights import parse_weights

FormatName = Literal["delimited", "parquet", "jsonl", "python-lines", "otto", "mind", "netflix"]
TimeUnit = Literal["s", "ms", "us", "ns", "none"]
Duplicates = Literal["all", "exact", "consecutive", "first", "last"]


@dataclass(frozen=True)
class Preparation:
    """The options of :func:`adrec.data.prepare.prepare`; None means a guess from the data, which is reported.

    Attributes:
        format: ``delimited`` (CSV and its kin), ``parquet``, ``jsonl`` (a JSON object a line), ``python-lines`` (a
            Python literal a line, as some old collections have), or that of one data set with several interactions in
            a line, ``otto``, ``mind`` or ``netflix`` (:mod:`adrec.data.nested`).
        separator: field separator, such as ``,`` or ``::``.
        quoted: whether fields may be in double quotes, also over line ends; by default yes, except for RecBole's
            ``.inter`` files and separators of several characters, but not over lines that look like rows.
        encoding: encoding of a text file, as Python names it, such as ``latin-1``; UTF-8 by default.
        header: the names of the columns, for a file without a header line.
        user: the column of user ids; by its usual names by default, as the others.
        item: the column of item ids.
        time: the column of times; ``none`` if the order of the rows is their order in time.
        rating: the column of ratings.
        event: the column of event types, for ``event_weights``.
        event_weights: the weight of each type of event as a target of training, ``purchase=1,cart=0.5,view=0``; with
            weight 0 it is only history, and never a target.
        time_unit: unit of numeric times; ``none`` if they are only an order.
        time_format: format of written times, such as ``%d.%m.%Y %H:%M``, as in Python's ``strptime``.
        where: a condition in SQL on the columns of the table; other rows are left out.
        since: a moment, from which on rows are kept.
        until: a moment, before which rows are kept.
        query: a query in SQL, if the source is the URL of a database.
        keep_null_ids: whether marks of missing values (``NA``, ``NULL``, ``None`` and the like) are ids of users and
            items; by default such rows are unusable.
        min_rating: the lowest rating to keep.
        duplicates: of interactions of one user with one item, keep ``all``, the ``first`` or the ``last``; ``exact``
            removes only those with the same time, ``consecutive`` those that follow one another.
        session_gap: a span such as ``30m``: a user's interactions after a longer pause are those of another user, named
            ``user/2``, ``user/3`` and so on.
        min_user: the fewest interactions of a user (applied with ``min_item`` until nothing changes).
        min_item: the fewest interactions of an item.
        split: name of the split: see :mod:`adrec.data.split`.
        seen: whether the items of a history are recommended and ranked: ``keep`` or ``leave-out``; by default as people
            return to items or not (:mod:`adrec.data.seen`).
        max_rejected: the share of rows that may be unusable, in 0..1; above it, preparation fails.
        strict: fail at the first unusable row.
    """

    format: FormatName | None = None
    separator: str | None = None
    quoted: bool | None = None
    encoding: str | None = None
    header: tuple[str, ...] | None = None
    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    event: str | None = None
    event_weights: str | None = None
    time_unit: TimeUnit | None = None
    time_format: str | None = None
    where: str | None = None
    since: str | None = None
    until: str | None = None
    query: str | None = None
    keep_null_ids: bool = False
    min_rating: float | None = None
    duplicates: Duplicates = "all"
    session_gap: str | None = None
    min_user: int = 0
    min_item: int = 0
    split: str = "leave-one-out"
    seen: Seen | None = None
    max_rejected: float = 0.01
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("min_user", "min_item"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is a number of interactions, 0 or more; it is {value}.")
        require(
            self.min_rating is None or math.isfinite(self.min_rating),
            f"min_rating is a finite number; it is {self.min_rating}.",
        )
        require(
            0 <= self.max_rejected <= 1,
            f"max_rejected is a share of the rows, from 0 to 1; it is {self.max_rejected}.",
        )
        require(
            self.encoding is None or _is_encoding(self.encoding),
            f"encoding {self.encoding!r} is not known; give a name such as latin-1, cp1252 or utf-16.",
        )
        require(
            self.event is None or self.event_weights is not None,
            "event names a column of event types, which event_weights reads; give that too, or use where.",
        )
        if self.event_weights is not None:
            parse_weights(self.event_weights)
        require(self.separator != "", "separator must not be empty; leave it out to have it found.")
        require(self.header is None or len(set(self.header)) == len(self.header), "header names a column twice.")

    def of_delimited(self) -> tuple[str, ...]:
        """Return the given options that apply to delimited files only."""
        return tuple(name for name in ("separator", "quoted", "header") if getattr(self, name) is not None)

    def changed(self, changes: Mapping[str, Any]) -> Preparation:
        """Return these options with ``changes``; :class:`ConfigError` for one that is unknown or does not fit.

        Dates are written as texts.
        """
        plain = {name: value.isoformat() if isinstance(value, date) else value for name, value in changes.items()}
        changed = read_dataclass(Preparation, self, plain, noun="option of prepare")
        assert isinstance(changed, Preparation)
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = asdict(self)
        return values | {"header": list(self.header) if self.header is not None else None}


def _is_encoding(name: str) -> bool:
    try:
        codecs.getincrementaldecoder(name)
        return "a".encode(name) != b""
    except (LookupError, UnicodeError):  # unknown, or no encoding of texts
        return False


class PreparationOptions(TypedDict, total=False):
    """The fields of :class:`Preparation` as keywords."""

    format: FormatName | None
    separator: str | None
    quoted: bool | None
    encoding: str | None
    header: tuple[str, ...] | None
    user: str | None
    item: str | None
    time: str | None
    rating: str | None
    event: str | None
    event_weights: str | None
    time_unit: TimeUnit | None
    time_format: str | None
    where: str | None
    since: str | date | None
    until: str | date | None
    query: str | None
    keep_null_ids: bool
    min_rating: float | None
    duplicates: Duplicates
    session_gap: str | None
    min_user: int
    min_item: int
    split: str
    seen: Seen | None
    max_rejected: float
    strict: bool
