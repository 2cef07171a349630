"""Filters of interactions: by rating, by duplicates and by k-core. Each filter reports the rows it removes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import polars as pl

from adrec.data.preparation import Duplicates, Preparation
from adrec.data.report import DUPLICATE, NUM_EXAMPLES, RARE_ITEM, RATED_BELOW, TOO_SHORT, RowAccount

LeaveOut = Callable[[str, pl.DataFrame], None]


def kept(table: pl.DataFrame, options: Preparation, ledger: RowAccount, at: Callable[[int], str]) -> pl.DataFrame:
    """Return the interactions that pass every filter; the others are recorded in the ledger.

    Args:
        table: ``user``, ``item``, ``time``, ``row``, and ``rating`` if ratings are filtered; sorted by time, then by
            row.
        options: the preparation options, which define the filters.
        ledger: records the removed rows.
        at: returns the location of a row in its source.
    """

    def leave_out(reason: str, rows: pl.DataFrame) -> None:
        ledger.leave_out(reason, rows.height, _examples(rows, at))

    if options.min_rating is not None:
        good = pl.col("rating") >= options.min_rating
        leave_out(RATED_BELOW, table.filter(~good))
        table = table.filter(good)
    if options.duplicates != "all":
        table = without_duplicates(table, options.duplicates, leave_out)
    return k_core(table, options.min_user, options.min_item, leave_out)


def _examples(rows: pl.DataFrame, at: Callable[[int], str]) -> Iterator[str]:
    for row in rows.bottom_k(NUM_EXAMPLES, by="row").sort("row").iter_rows(named=True):
        rating = f", rating {row['rating']:g}" if "rating" in row else ""
        yield f"{at(row['row'])}: user {row['user']!r}, item {row['item']!r}{rating}"


def without_duplicates(table: pl.DataFrame, keep: Duplicates, leave_out: LeaveOut) -> pl.DataFrame:
    """Keep the first or the last interaction of each user with each item.

    ``exact``: of each at one time; ``consecutive``: of each run of a user's interactions with one item, the first.
    """
    if keep == "consecutive":
        starts = pl.col("item").ne_missing(pl.col("item").shift().over("user"))
        chosen = table.select(starts).to_series()
        leave_out(DUPLICATE, table.filter(~chosen))
        return table.filter(chosen)
    same = ("user", "item", "time") if keep == "exact" else ("user", "item")
    distinct = pl.struct(same).is_last_distinct() if keep == "last" else pl.struct(same).is_first_distinct()
    chosen = table.select(distinct).to_series()
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
