"""Which interactions are kept: by rating, and by k-core."""

from __future__ import annotations

import polars as pl

from adrec.errors import DataError


def min_rating(table: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Keep the interactions rated at least ``threshold``. Raises :class:`DataError` where there are no ratings."""
    if "rating" not in table.columns:
        raise DataError("--min-rating needs a rating column and none was found; name it with --rating.")
    return table.filter(pl.col("rating") >= threshold)


def k_core(table: pl.DataFrame, min_user: int, min_item: int) -> pl.DataFrame:
    """Keep users with ``min_user`` interactions or more and items with ``min_item`` or more.

    Leaving some out leaves others with fewer, so this is repeated until nothing changes. The order of rows is kept.
    """
    while True:
        enough = (pl.len().over("user") >= min_user) & (pl.len().over("item") >= min_item)
        kept = table.filter(enough)
        if kept.height == table.height:
            return kept
        table = kept
