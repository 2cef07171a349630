"""From a table of interactions to a prepared data set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from adrec.data.dataset import Dataset, DatasetInfo
from adrec.data.filters import k_core
from adrec.data.filters import min_rating as rated_at_least
from adrec.data.read import Interactions, read_interactions
from adrec.data.vocab import Vocabulary
from adrec.errors import DataError


def prepare(
    source: Any,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    min_rating: float | None = None,
    min_user: int = 0,
    min_item: int = 0,
    name: str | None = None,
) -> Dataset:
    """Read, filter, number and sort interactions; ties in time keep the order of the table.

    Args:
        source: a CSV, TSV or Parquet path, a pandas, polars or pyarrow table, or :class:`Interactions`.
        user: the column of user ids; found by its usual names by default, as are the others.
        item: the column of item ids.
        time: the column of times.
        rating: the column of ratings, which ``min_rating`` alone needs.
        min_rating: keep interactions rated at least so.
        min_user: keep users with at least so many interactions.
        min_item: keep items with at least so many interactions.
        name: of the data set; the file's by default.

    Raises:
        DataError: for a table that cannot be used, or where the filters leave nothing.
    """
    for option, value in (("min_user", min_user), ("min_item", min_item)):
        if not isinstance(value, int) or value < 0:
            raise DataError(f"{option} is a number of interactions, 0 or more; it is {value!r}.")
    if min_rating is not None and not (isinstance(min_rating, int | float) and math.isfinite(min_rating)):
        raise DataError(f"min_rating is a finite number; it is {min_rating!r}.")
    if isinstance(source, Interactions):
        interactions = source
    else:
        columns = {"user": user, "item": item, "time": time, "rating": rating}
        interactions = read_interactions(source, **columns, need_rating=min_rating is not None)
    table = interactions.table
    if min_rating is not None:
        table = _some(rated_at_least(table, min_rating), f"no interaction is rated {min_rating:g} or more")
    kept = k_core(table, min_user, min_item)
    table = _some(kept, f"min_user={min_user} and min_item={min_item} leave nobody and nothing")
    return _build(interactions, table, name, {"min_rating": min_rating, "min_user": min_user, "min_item": min_item})


def _some(table: pl.DataFrame, otherwise: str) -> pl.DataFrame:
    if table.height == 0:
        raise DataError(f"everything was filtered away: {otherwise}; weaken the filters.")
    return table


def _build(
    interactions: Interactions, table: pl.DataFrame, name: str | None, filters: dict[str, float | None]
) -> Dataset:
    users, catalogue = Vocabulary.from_column(table["user"]), Vocabulary.from_column(table["item"])
    if len(catalogue) < 2:
        raise DataError("the catalogue has one item only, which leaves nothing to recommend; give more interactions.")
    numbered = pl.DataFrame(
        {
            "user": users.encode(table["user"]),
            "item": (catalogue.encode(table["item"]) + 1).astype(np.int32),
            "time": table["time"],
        }
    ).sort("user", "time", maintain_order=True)
    lengths = np.bincount(numbered["user"].to_numpy(), minlength=len(users))
    default_name = Path(interactions.source).stem if interactions.kind == "path" else "interactions"
    info = DatasetInfo(
        name=name or default_name,
        num_users=len(users),
        num_items=len(catalogue),
        num_interactions=numbered.height,
        num_read=interactions.table.height,
        filters=filters,
        source=interactions.source,
        source_sha256=interactions.sha256,
        columns=interactions.columns,
        time_kind=interactions.time_kind,
    )
    return Dataset(
        items=numbered["item"].to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        times=numbered["time"].to_numpy(),
        users=users,
        catalogue=catalogue,
        info=info,
    ).with_fingerprint()
