"""Extension of a prepared data set by newer interactions, and what is taken over from an earlier preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from adrec.data.dataset import Dataset, DatasetInfo
from adrec.data.moments import PER_SECOND
from adrec.data.preparation import Preparation
from adrec.data.read import ROW_ORDER, Interactions
from adrec.utils.errors import DataError
from adrec.utils.text import counted

# Options of one preparation, or taken over in another way.
OWN = ("format", "seen", "split", "since", "until", "query", "strict", "max_rejected")
ROLES = ("user", "item")
BEFORE = 1 << 40  # the rows of older interactions are below 0


def named(base: Dataset) -> str:
    """Return the place of a data set, or its name if it has none."""
    return str(base.path or base.info.name)


def taken_over(info: DatasetInfo) -> dict[str, Any]:
    """Return the options of an earlier preparation that a later one takes over: how rows are read and filtered."""
    default = Preparation().to_dict()
    options = {name: value for name, value in info.preparation.items() if name not in OWN and value != default[name]}
    for role in ("user", "item", "time", "rating", "event"):
        if options.get(role) != ROW_ORDER:
            options.pop(role, None)  # columns are taken over where a table has them
    timed = info.split.partition(":")[0] in ("time", "temporal-leave-one-out")
    split = info.split if timed else info.preparation.get("split", default["split"])
    return options | ({} if split == default["split"] else {"split": split})


def as_read(info: DatasetInfo) -> Preparation:
    """Return how the table of a data set was read: separator, encoding, header and times, but no filter."""
    how = ("separator", "quoted", "encoding", "header", "time_unit", "time_format")
    return Preparation().changed({name: value for name, value in taken_over(info).items() if name in how})


def told(info: DatasetInfo, options: Mapping[str, Any]) -> str:
    """Return what is taken over, in one sentence."""
    return f"as {info.name} was prepared: {', '.join(f'{name}={value}' for name, value in options.items())}"


def older_rows(base: Dataset, erased: Sequence[str] = ()) -> tuple[pl.DataFrame, list[str]]:
    """Return the interactions of ``base``, and those that filters left out: ``user``, ``item``, ``time`` and ``row``.

    With event weights, ``weight`` too. Those of ``erased`` users, whose ids are texts, are left out, with a note.

    Rows before 0 are older than any row that is read. They have the order within a user that they had in the tables.
    """
    owners = np.repeat(np.arange(base.num_users), np.diff(base.offsets))
    table = pl.DataFrame(
        {
            "user": base.users.decode(owners),
            "item": base.catalogue.decode(np.asarray(base.items).astype(np.int64) - 1),
            "time": np.asarray(base.times),
            "row": 2 * (np.arange(base.num_interactions) - np.asarray(base.offsets[:-1])[owners]) + 1,
        }
    )
    if base.weights is not None:
        table = table.with_columns(weight=pl.Series(np.asarray(base.weights)))
    waiting = base.waiting()
    if waiting is not None:
        rows = waiting.with_columns(row=2 * pl.col("after").cast(pl.Int64)).select(table.columns)
        table = pl.concat([table, rows], how="vertical_relaxed")
    gone = table["user"].cast(pl.String).is_in(list(erased))
    notes = [f"erased users: {counted(int(gone.sum()), 'older interaction')} left out"] if gone.any() else []
    return table.filter(~gone).with_columns(row=pl.col("row") - BEFORE), notes


def waiting_rows(kept: pl.DataFrame, rare: pl.DataFrame) -> pl.DataFrame:
    """Return rows that wait for an extension: ``user``, ``item``, ``time``, ``after`` and, if given, ``weight``.

    ``after`` is how many interactions of the user that are kept come before the row.

    Args:
        kept: ``user``, ``time`` and ``row`` of the interactions that are kept.
        rare: the same and ``item`` of the rows that filters left out.
    """
    keys = ("user", "time", "row")
    both = pl.concat(
        [
            kept.select(*keys, place=pl.lit(-1, dtype=pl.Int64)),
            rare.select(*keys, place=pl.int_range(pl.len(), dtype=pl.Int64)),
        ],
        how="vertical_relaxed",
    ).sort("time", "row", maintain_order=True)
    both = both.with_columns(after=(pl.col("place") < 0).cast(pl.Int64).cum_sum().over("user"))
    after = both.filter(pl.col("place") >= 0).sort("place")["after"]
    return rare.drop("row").with_columns(after)


def nothing_new() -> Interactions:
    """Return no interactions: for erasures alone."""
    schema = {"user": pl.Int64, "item": pl.Int64, "time": pl.Int64, "row": pl.Int64}
    return Interactions(pl.DataFrame(schema=schema), (), (), {}, (), "polars", "none", (), ())


def together(base: Dataset, older: pl.DataFrame, interactions: Interactions) -> pl.DataFrame:
    """Return older and new rows as one table, sorted by time.

    Raises :class:`DataError` if the times or the ids are of another kind, or a file is in ``base`` already.
    """
    for digest, source in zip(interactions.digests, interactions.sources, strict=True):
        if digest is not None and digest in base.info.sha256:
            raise DataError(f"{source} is in {named(base)} already, and would count twice; leave it out.")
    new = interactions.table
    if new.height == 0:
        raise DataError(f"no row is left to add to {named(base)}; look at the conditions and moments.")
    for role, vocabulary in zip(ROLES, (base.users, base.catalogue), strict=True):
        vocabulary.grown(new[role], role)  # refuses texts where there were integers
        new = new.with_columns(new[role].cast(pl.String).cast(vocabulary.ids.dtype))
    if ("weight" in new.columns) != (base.weights is not None):
        which = "without" if base.weights is None else "with"
        raise DataError(f"{named(base)} was prepared {which} event weights; prepare all tables together.")
    times = in_unit(new["time"], interactions.time_unit, base.info.time_unit)
    if "time" not in interactions.columns:  # the order of the rows: after all earlier ones
        times = times + int(older["time"].to_numpy().max())
    new = new.with_columns(times)
    return pl.concat([older, new.select(older.columns)], how="vertical_relaxed").sort("time", "row")


def border(base: Dataset, older: pl.DataFrame, table: pl.DataFrame) -> list[str]:
    """Return notes on the extension: how many rows are new, and how many of these are in ``base`` too."""
    new = table.filter(pl.col("row") >= 0)
    twice = new.join(older, on=["user", "item", "time"], how="semi").height
    notes = [f"extends {named(base)} by {counted(new.height, 'row')}"]
    late = new.filter(pl.col("time") < older["time"].max()).height
    if late:
        notes.append(f"{counted(late, 'new row is', 'new rows are')} older than the latest of {named(base)}")
    if twice:
        notes.append(
            f"{counted(twice, 'new row is', 'new rows are')} in {named(base)} already (user, item and time): "
            "--duplicates exact keeps one of each"
        )
    return notes


def in_unit(times: pl.Series, unit: str, wanted: str) -> pl.Series:
    """Return times in another unit. Raises :class:`DataError` if one of the two only gives an order."""
    if unit == wanted:
        return times
    if unit not in PER_SECOND or wanted not in PER_SECOND:
        odd = "only give an order" if unit == "none" else f"are in {unit}"
        raise DataError(
            f"the new times {odd}, and those of the older data set "
            + ("only give an order" if wanted == "none" else f"are in {wanted}")
            + "; say which unit they are in (--time-unit)."
        )
    if PER_SECOND[wanted] >= PER_SECOND[unit]:
        return times * (PER_SECOND[wanted] // PER_SECOND[unit])
    return times // (PER_SECOND[unit] // PER_SECOND[wanted])
