"""``adrec recommend --engine spark|ray``: recommendations for all users of a data set, computed by another engine."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import polars as pl
from rich.console import Console

from adrec.bulk.batches import write_histories
from adrec.bulk.worker import open_recommender
from adrec.cli.recommending import Audience, Items, Wishes
from adrec.utils.errors import ConfigError
from adrec.utils.folders import check_folder

TAKEN = ("k", "seen", "diversity")  # what an engine's workers are told


def recommend(
    run: Path,
    audience: Audience,
    items: Items,
    wishes: Wishes,
    engine: Literal["spark", "ray"],
    out: Path,
    *,
    data: Path | None,
    console: Console,
    model: str | None = None,
) -> None:
    """Write the recommendations for all users of the run's data set as Parquet files into the folder ``out``."""
    usual = asdict(Wishes())
    asked = [key for key, value in asdict(wishes).items() if key not in TAKEN and value != usual[key]]
    if audience != Audience() or items != Items():
        asked.append("users" if audience != Audience() else "attributes")
    if asked:
        option = asked[0].replace("_", "-")
        raise ConfigError(
            f"--engine {engine} recommends to all users by the run's own rules, without --{option}; leave it out, or "
            f"call adrec.bulk.{engine}.recommend with a table of histories."
        )
    if engine == "spark":
        from adrec.bulk.spark import need_spark as need
        from adrec.bulk.spark import write_all
    else:
        from adrec.bulk.ray import need_ray as need
        from adrec.bulk.ray import write_all
    need()
    check_folder(out)
    rules: dict[str, Any] = {"seen": wishes.seen, "diversity": wishes.diversity}
    place = None if data is None else str(data.resolve())
    dataset = open_recommender(str(run.resolve()), place, model).dataset
    waiting = out.absolute().with_name(f"{out.name}.histories")  # on a disk that all workers read
    try:
        write_histories(dataset, waiting)
        write_all(waiting, run.resolve(), out.absolute(), wishes.k, data=place, model=model, **rules)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
    rows = pl.scan_parquet(sorted(out.glob("*.parquet"))).select(pl.len()).collect().item()
    console.print(f"{rows:,} rows written to {out}")
