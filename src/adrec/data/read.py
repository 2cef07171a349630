"""Tables in: files and frames become three columns, ``user``, ``item`` and ``time``, or one clear sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from adrec.data import convert
from adrec.data.convert import NUMBER
from adrec.data.files import read_file
from adrec.data.frames import FrameKind, Opened, open_frame
from adrec.errors import DataError, did_you_mean
from adrec.files import sha256

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": (
        *("user_id", "user", "userid", "uid", "user_id:token", "reviewerid", "reviewer_id", "customer_id"),
        *("customerid", "visitorid", "visitor_id", "member_id", "session_id", "sessionid"),
    ),
    "item": (
        *("item_id", "item", "itemid", "iid", "item_id:token", "movie_id", "movieid", "asin", "parent_asin"),
        *("product_id", "productid", "book_id", "bookid", "track_id", "article_id", "business_id", "sku"),
    ),
    "time": (
        *("timestamp", "time", "ts", "timestamp:float", "datetime", "date", "unixreviewtime", "event_time"),
        *("created_at", "time_stamp", "unix_timestamp"),
    ),
    "rating": ("rating", "ratings", "rating:float", "score", "stars", "overall"),
}


@dataclass(frozen=True)
class Interactions:
    """A table of interactions as it was read.

    Attributes:
        table: ``user``, ``item``, ``time`` and, where it is needed, ``rating``; rows in the order of the source.
        source: the path, or the kind of frame.
        columns: the source's column for each role.
        guessed: the roles whose column was found by its usual names.
        kind: of the source.
        time_kind: ``integer``, ``float``, or ``microseconds`` where the source has dates.
        sha256: of the file.
    """

    table: pl.DataFrame
    source: str
    columns: Mapping[str, str]
    guessed: tuple[str, ...]
    kind: FrameKind
    time_kind: str
    sha256: str | None = None


def read_interactions(
    source: Any,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    need_rating: bool = False,
) -> Interactions:
    """Read a CSV, TSV or Parquet file, or a pandas, polars or pyarrow table.

    Args:
        source: the path or the table.
        user: the column of user ids; by default the first of :data:`USUAL_NAMES` that is there, as for the others.
        item: the column of item ids.
        time: the column of times: integers, numbers, dates or ISO texts.
        rating: the column of ratings; read where it is named or needed.
        need_rating: fail where there is no column of ratings.

    Raises:
        DataError: for a source that cannot be read, a column that is missing, and for the first null id or
            unreadable value, with its row.
    """
    opened = _open(source)
    place = opened.place
    named = {"user": user, "item": item, "time": time, "rating": rating}
    if rating is None and not need_rating:
        del named["rating"]
    columns = {role: find_column(opened.columns, role, name, place.name) for role, name in named.items()}
    _refuse_shared(columns, place.name)
    raw = opened.take(list(columns.values()))
    if raw.height == 0:
        raise DataError(f"{place.name} has a header but no rows; give a table with interactions.")
    table = {role: convert.ids(raw[columns[role]], place) for role in ("user", "item")}
    table["time"], time_kind = convert.times(raw[columns["time"]], place)
    if "rating" in columns:
        table["rating"] = convert.numbers(raw[columns["rating"]], place)
    guessed = tuple(role for role, name in named.items() if name is None)
    digest = sha256(Path(source)) if opened.kind == "path" else None
    return Interactions(pl.DataFrame(table), place.name, columns, guessed, opened.kind, time_kind, digest)


def find_column(columns: Sequence[str], role: str, name: str | None, source: str) -> str:
    """Return the column for ``role``: the one that is named, or the first by its usual names.

    Raises :class:`DataError` that lists the columns and the likely one.
    """
    listed = ", ".join(repr(column) for column in columns)
    if name is not None:
        if name not in columns:
            raise DataError(f"{source} has no column {name!r}{did_you_mean(name, columns)}; it has {listed}.")
        return name
    found = usual_column(columns, role)
    if found is not None:
        return found
    if any(re.fullmatch(NUMBER, column) for column in columns):
        raise DataError(
            f"{source} seems to have no header: its first line is {listed}; put the names of the columns there, "
            "such as user_id, item_id, timestamp."
        )
    near = next((hint for usual in USUAL_NAMES[role] if (hint := did_you_mean(usual, columns))), "")
    raise DataError(
        f"{source} has no {role} column that is known by name{near}; it has {listed}: rename one to "
        f"{USUAL_NAMES[role][0]}, or say which it is ({role}=, or --{role} of adrec prepare)."
    )


def usual_column(columns: Sequence[str], role: str) -> str | None:
    """Return the first column that has one of the usual names for ``role``, or None.

    Capitals do not matter, nor whether words are joined by spaces, hyphens or underscores.
    """
    plain = {re.sub(r"[\s-]+", "_", column.strip().lower()): column for column in reversed(columns)}
    return next((plain[usual] for usual in USUAL_NAMES[role] if usual in plain), None)


def _refuse_shared(columns: Mapping[str, str], source: str) -> None:
    for role, column in columns.items():
        twin = next((other for other in columns if other != role and columns[other] == column), None)
        if twin is not None:
            raise DataError(f"{source}: column {column!r} cannot be both the {role} and the {twin}; name one of them.")


def _open(source: Any) -> Opened:
    if isinstance(source, str | Path):
        table, place = read_file(Path(source))
        return Opened(table.columns, table.select, place, "path")
    return open_frame(source)
