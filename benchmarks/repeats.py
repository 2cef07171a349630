"""Repeat logits on generated groceries whose repeats are known: ``python -m benchmarks.repeats``.

Each user returns to four staples of their own, and buys everything else once, in an order. ADRec's default is trained
with one learned number for the items of the history, and with a second projection of the query for them.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import polars as pl
import torch
import typer

from adrec.config.adrec import preset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.evaluate.metrics import user_values
from adrec.evaluate.protocol import evaluate
from adrec.evaluate.significance import paired_difference
from adrec.models.adrec import ADRecModel
from adrec.runs.fit import fit
from benchmarks.common import JsonFile, Threads, report, run

METRIC = "ndcg@20"
USERS, STAPLES, OTHERS, RETURNS = 1_500, 60, 600, 0.45
SMALL: dict[str, Any] = {"batch_size": 32, "hidden_size": 64, "max_length": 50}


def groceries(seed: int = 0) -> pl.DataFrame:
    """Return the table: ``user``, ``item``, ``time``; an item's name tells whether it is a staple."""
    rng, rows = np.random.default_rng(seed), []
    for user in range(USERS):
        staples, last, bought = rng.choice(STAPLES, 4, replace=False), int(rng.integers(OTHERS)), set()
        for _ in range(rng.integers(12, 30)):
            if rng.random() < RETURNS:
                rows.append((user, f"staple {rng.choice(staples)}", len(rows)))
                continue
            while last in bought:
                last = (last + int(rng.choice([1, 2, 3, 7, 11]))) % OTHERS
            bought.add(last)
            rows.append((user, f"other {last}", len(rows)))
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


def main(
    seed: Annotated[int, typer.Option(help="Random seed.")] = 1, threads: Threads = 1, json_file: JsonFile = None
) -> None:
    """Compare both kinds of repeat logits on data in which people return to items."""
    torch.set_num_threads(threads)
    dataset = prepare(groceries())
    split, values, rows = leave_one_out(dataset), {}, []
    for projects in (False, True):
        model = ADRecModel(preset("default", {**SMALL, "model.repeat_projection": projects}))
        fit(model, dataset, split, seed=seed)
        found = evaluate(model, dataset, split)
        ranks = found.ranks["rank"].to_numpy().astype(np.int64) - 1
        values[projects] = user_values([METRIC], ranks, split.test.users)[:, 0]
        name = "second projection" if projects else "one number"
        rows.append({"repeat logits": name, **{key: round(each.mean, 4) for key, each in found.metrics.items()}})
    difference = paired_difference(values[True], values[False]).estimate
    interval = f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    report("generated groceries, test part, seen items ranked", rows, {f"difference in {METRIC}": interval}, json_file)


if __name__ == "__main__":
    run(main)
