"""A shop's loop over weeks: extend the data, train from last week's run or anew, and evaluate the next week.

``python -m benchmarks.daily orders.parquet --out /tmp/daily --weeks 8 --users 250 --preset fast`` runs the ``adrec``
commands of a shop, one after another, on the first so many users of a table with dates. Weeks that are done are not
repeated. The table has, for each week, NDCG@20 x 100 of what comes after the data of the runs (seen items left out or
not, as the data set says), and the core seconds of training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from adrec.data.columns import usual_column
from adrec.data.dataset import open_dataset
from adrec.evaluate.backtest import later
from adrec.evaluate.protocol import evaluate
from adrec.runs.folder import Run
from adrec.utils.files import write_json

ADREC = (sys.executable, "-m", "adrec")


def adrec(*arguments: str | Path) -> None:
    """Run a command."""
    subprocess.run([*ADREC, *map(str, arguments), "--quiet"], check=True, stdout=subprocess.DEVNULL)


def core_seconds(run: Path) -> float:
    """Return the core seconds that a run was trained for."""
    return sum(row["core_seconds"] for row in Run.open(run).rows())


def metric(path: Path, data: Path, before: Path, out: Path) -> float:
    """Return NDCG@20 of what is in ``data`` and later than all of ``before``."""
    if not out.exists():
        run, dataset = Run.open(path), open_dataset(data)
        split = later(dataset, np.asarray(open_dataset(before).times).max().item(), run.info.num_items)
        found = evaluate(run.model(), dataset, split, cutoffs=(20,), seen=run.info.seen)
        write_json(out, found.to_dict())
    value: float = json.loads(out.read_text())["metrics"]["ndcg@20"]["mean"]
    return value


def main() -> None:
    """Run the loop, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--users", type=int, default=10**9)
    parser.add_argument("--min-item", default="5")
    parser.add_argument("--preset", default="default")
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    table = pl.read_parquet(options.table)
    user, time = usual_column(table.columns, "user"), usual_column(table.columns, "time")
    assert user is not None and time is not None
    table = table.filter(pl.col(user).is_in(table[user].unique().sort().head(options.users).implode()))
    end = table[time].max()
    ends = [end - (options.weeks - week) * timedelta(days=7) for week in range(options.weeks + 1)]  # type: ignore[operator]
    print("| week | rows | run of the first week | from last week's, core s | anew, core s |")
    print("|---:|---:|---:|---:|---:|")
    for week, until in enumerate(ends):
        data, before = out / f"data{week}", out / f"data{week - 1}"
        part = table.filter(pl.col(time) <= until)
        if week:
            part = part.filter(pl.col(time) > ends[week - 1])
        if not data.exists():
            part.write_parquet(out / f"rows{week}.parquet")
            older = ("--extend", before) if week else ("--min-item", options.min_item)
            adrec("prepare", out / f"rows{week}.parquet", "--out", data, *older)
        if week:
            figures = [
                f"{100 * metric(run, data, before, out / f'{run.name}.on{week}.json'):.2f}, {core_seconds(run):.0f}"
                for run in (out / "anew0", out / f"warm{week - 1}", out / f"anew{week - 1}")
            ]
            print(f"| {week} | {part.height:,} | {' | '.join(figures)} |", flush=True)
        if week == options.weeks:
            return
        anew, warm = out / f"anew{week}", out / f"warm{week}"
        common = ("--threads", "1")
        if not anew.exists():
            adrec("train", data, "--out", anew, "--preset", options.preset, *common)
        if not warm.exists() and week:
            adrec("train", data, "--out", warm, "--from", out / f"warm{week - 1}", *common)
        elif not warm.exists():
            warm.symlink_to(anew.resolve())


if __name__ == "__main__":
    main()
