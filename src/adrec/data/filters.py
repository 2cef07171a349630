"""Filters of interactions: by rating, by duplicates and by k-core. Each filter reports the rows it removes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import polars as pl

from adrec.data.moments import PER_SECOND, seconds_of, ticks
from adrec.data.preparation import Duplicates, Preparation
from adrec.data.report import DUPLICATE, NUM_EXAMPLES, OUTSIDE, RARE_ITEM, RATED_BELOW, TOO_SHORT, RowAccount
from adrec.data.times import SMALLEST_TOLD
from adrec.utils.errors import ConfigError

LeaveOut = Callable[[str, pl.DataFrame], None]


def chosen(
    table: pl.DataFrame, options: Preparation, ledger: RowAccount, at: Callable[[int], str], unit: str
) -> pl.DataFrame:
    """Return the rows that pass the filters of single rows; the others are recorded in the ledger.

    Args:
        table: ``user``, ``item``, ``time``, ``row``, and ``rating`` if ratings are filtered.
        options: the preparation options, which define the filters.
        ledger: records the removed rows.
        at: returns the location of a row in its source.
        unit: unit of the times.

    Raises :class:`ConfigError` for a moment that cannot be read.
    """
    if options.min_rating is not None:
        good = pl.col("rating") >= options.min_rating
        removed = table.filter(~good)
        ledger.leave_out(RATED_BELOW, removed.height, _examples(removed, at))
        table = table.filter(good)
    if options.since is not None or options.until is not None:
        since, until = (_bound(name, getattr(options, name), unit) for name in ("since", "until"))
        inside = pl.lit(True)
        if since is not None:
            inside &= pl.col("time") >= since
        if until is not None:
            inside &= pl.col("time") < until
        removed = table.filter(~inside)
        ledger.leave_out(OUTSIDE, removed.height, _examples(removed, at))
        table = table.filter(inside)
    return table


def _bound(name: str, text: str | None, unit: str) -> float | None:
    """Return a moment. Raises :class:`ConfigError` for a number that is none in a known unit, such as a year."""
    if text is None:
        return None
    moment = ticks(text, unit)
    if unit in PER_SECOND and re.fullmatch(r"[0-9]+", text) and abs(moment) < SMALLEST_TOLD:
        raise ConfigError(f"{name} {text} would be a number of {unit} since 1970; write a date, such as 2024-01-01.")
    return moment


def sessions(table: pl.DataFrame, gap: str, unit: str) -> pl.DataFrame:
    """Return the interactions with each session of a user as a user: ``ann``, ``ann/2``, ``ann/3``.

    Args:
        table: ``user`` and ``time``, sorted by time.
        gap: the longest pause within a session, such as ``30m``.
        unit: unit of the times.

    Raises :class:`ConfigError` for another span, or times without a unit.
    """
    if unit not in PER_SECOND:
        raise ConfigError("session_gap needs times with a unit, and these only give an order; leave it out.")
    pause = seconds_of(gap) * PER_SECOND[unit]
    begins = (pl.col("time").diff().over("user") > pause).fill_null(False)
    table = table.with_columns(session=begins.cast(pl.UInt32).cum_sum().over("user") + 1)
    name = pl.col("user").cast(pl.String)
    later = pl.concat_str([name, pl.lit("/"), pl.col("session").cast(pl.String)])
    taken = table.filter(pl.col("session") > 1).select(later.alias("later"))["later"].unique()
    same = taken.filter(taken.is_in(table["user"].cast(pl.String).unique().implode()))
    if len(same):
        raise ConfigError(f"a session would be called {same[0]!r}, as another user is; rename that user.")
    return table.with_columns(user=pl.when(pl.col("session") == 1).then(name).otherwise(later)).drop("session")


def kept(
    table: pl.DataFrame, options: Preparation, ledger: RowAccount, at: Callable[[int], str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the interactions that pass the filters of duplicates and of rare ids, and those that are too rare.

    Args:
        table: ``user``, ``item``, ``time`` and ``row``, sorted by time, then by row.
        options: the preparation options, which define the filters.
        ledger: records the removed rows.
        at: returns the location of a row in its source.
    """
    rare: list[pl.DataFrame] = []

    def leave_out(reason: str, rows: pl.DataFrame) -> None:
        ledger.leave_out(reason, rows.height, _examples(rows, at))
        if reason != DUPLICATE:
            rare.append(rows)

    if options.duplicates != "all":
        table = without_duplicates(table, options.duplicates, leave_out)
    table = k_core(table, options.min_user, options.min_item, leave_out)
    return table, pl.concat([table.clear(), *rare]).select(interaction_columns(table))


def interaction_columns(table: pl.DataFrame) -> list[str]:
    """Return the columns that make an interaction: ``user``, ``item``, ``time``, ``row`` and, if given, ``weight``."""
    return ["user", "item", "time", "row", *(["weight"] if "weight" in table.columns else [])]


def _examples(rows: pl.DataFrame, at: Callable[[int], str]) -> Iterator[str]:
    for row in rows.bottom_k(NUM_EXAMPLES, by="row").sort("row").iter_rows(named=True):
        rating = f", rating {row['rating']:g}" if "rating" in row else ""
        yield f"{at(row['row'])}: user {row['user']!r}, item {row['item']!r}{rating}"


def without_duplicates(table: pl.DataFrame, keep: Duplicates, leave_out: LeaveOut) -> pl.DataFrame:
    """Keep the first or the last interaction of each user with each item.

    ``exact``: of each at one time; ``consecutive``: of each run of a user's interactions with one item, the first. The
    one that is kept has the largest weight of those that it stands for.
    """
    if keep == "consecutive":
        starts = pl.col("item").ne_missing(pl.col("item").shift().over("user"))
        chosen = table.select(starts).to_series()
        same: list[pl.Expr | str] = ["user", starts.cast(pl.UInt32).cum_sum().over("user")]
    else:
        same = ["user", "item", "time"] if keep == "exact" else ["user", "item"]
        distinct = pl.struct(same).is_last_distinct() if keep == "last" else pl.struct(same).is_first_distinct()
        chosen = table.select(distinct).to_series()
    if "weight" in table.columns:
        table = table.with_columns(pl.col("weight").max().over(same))
    leave_out(DUPLICATE, table.filter(~chosen))
    return table.filter(chosen)


def k_core(table: pl.DataFrame, min_user: int, min_item: int, leave_out: LeaveOut) -> pl.DataFrame:
    """Keep users with ``min_user`` interactions or more and items with ``min_item`` or more.

    Removing rows lowers other counts, so the filter repeats until nothing changes. A removed row is attributed to its
    rare item, or else to its user. The order of rows is kept.
    """
    while True:
        before = table.height
        for role, least, reason in (("item", min_item, RARE_ITEM), ("user", min_user, TOO_SHORT)):
            if least > 1:
                enough = table.select(pl.len().over(role) >= least).to_series()
                if not enough.all():
                    leave_out(reason, table.filter(~enough))
                    table = table.filter(enough)
        if table.height == before:
            return table
