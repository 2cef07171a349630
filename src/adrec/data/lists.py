"""Lists given on the command line: ids, one a row, and the histories of people never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import polars as pl

from adrec.data import convert
from adrec.data.files import read_file
from adrec.data.read import find_column, usual_column
from adrec.errors import DataError


def read_ids(path: Path, role: Literal["user", "item"]) -> pl.Series:
    """Read ids from a table: the column for ``role`` by its usual names, repeats left out.

    Raises :class:`DataError` where there is no such column or no row.
    """
    raw, place = read_file(path)
    column = find_column(raw.columns, role, None, place.name)
    if raw.height == 0:
        raise DataError(f"{path} has a header but no rows; give one {role} id a row.")
    return convert.ids(raw[column], place).unique(maintain_order=True)


def read_histories(path: Path) -> tuple[pl.Series, list[list[Any]]]:
    """Read interactions of people: return their ids, in order of appearance, and each one's items, oldest first.

    The table has a user and an item column; where it has a time column too, rows are sorted by it (ties keep their
    order), else they count as oldest first. A row without an item makes a person known who has no history.
    """
    raw, place = read_file(path)
    user = convert.ids(raw[find_column(raw.columns, "user", None, place.name)], place).alias("user")
    item = raw[find_column(raw.columns, "item", None, place.name)].alias("item")
    table = pl.DataFrame([user, item])
    if raw.height == 0:
        raise DataError(f"{path} has a header but no rows; give one interaction a row.")
    people = user.unique(maintain_order=True)
    time = usual_column(raw.columns, "time")
    if time is not None:
        times, _ = convert.times(raw[time], place)
        table = table.with_columns(time=times).sort("time", maintain_order=True)
    lists = table.group_by("user").agg(pl.col("item").drop_nulls())
    ordered = people.to_frame().join(lists, on="user", how="left", maintain_order="left")
    return people, ordered["item"].to_list()
