"""The accuracy of each way of training against a large catalogue: `python -m benchmarks.ladder DATA --json FILE`.

The ways, from the whole softmax to buckets, are changes to the preset `fast`. Each is trained with some seeds and
tested on the data set's own split. Finished trainings are kept in FILE: run it again to go on.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from adrec.data.dataset import Dataset, open_dataset
from adrec.data.split import make_split
from adrec.evaluate.protocol import evaluate
from adrec.models.adrec import ADRecModel
from adrec.runs.fit import fit
from adrec.utils.files import write_json
from benchmarks.common import run

ROWS = {"finetune.rows": True}
ONE_PASS = {"finetune.future_items": 1, "finetune.consistency": 0.0}
GBCE = {**ROWS, "finetune.rows.draw": "uniform", "finetune.rows.sampled_loss": "gbce", **ONE_PASS}
WAYS: dict[str, dict[str, Any]] = {
    "whole softmax": {"finetune.negatives": 0},
    "1,000 uniform, every row": {},
    "rows, 1,000 uniform": {**ROWS, "finetune.rows.draw": "uniform"},
    "rows, 1,000 by popularity": {**ROWS, "finetune.rows.draw": "popularity"},
    "rows, 1,000 mixed": {**ROWS, "finetune.rows.draw": "mixed"},
    "rows, 1,000 mixed, bfloat16 moments": {**ROWS, "finetune.rows.moments": "bfloat16"},
    "rows of the batch": {**ROWS, "finetune.rows.draw": "batch"},
    "rows, 1,000 uniform, gBCE": GBCE,
    "rows, 1,000 uniform, gBCE, patience 12": {**GBCE, "finetune.patience": 12},
    "buckets (SCE) of 256 items": {"finetune.buckets": True, "finetune.buckets.items": 256, **ONE_PASS},
    "buckets (SCE) of 1,024 items": {"finetune.buckets": True, **ONE_PASS},
    "whole softmax, no consistency, next item": {"finetune.negatives": 0, **ONE_PASS},
}


def trained(dataset: Dataset, changes: dict[str, Any], seed: int) -> dict[str, float]:
    """Return the test metrics and the seconds of one training."""
    model, split = ADRecModel(ADRecModel.Config.make("fast", changes)), make_split(dataset, None)
    began, core = time.perf_counter(), time.process_time()
    stages = fit(model, dataset, split, seed=seed)
    took = {"seconds": time.perf_counter() - began, "core_seconds": time.process_time() - core}
    metrics = evaluate(model, dataset, split).metrics
    found = {name: metrics[name].mean for name in ("hr@20", "ndcg@20")}
    return {**found, **took, "epochs": stages[-1]["epochs"]}


def main(
    data: Annotated[Path, typer.Argument(help="A prepared folder.")],
    json_file: Annotated[Path, typer.Option("--json", help="Finished trainings are kept here.")],
    seeds: Annotated[int, typer.Option(help="Trainings of each way.")] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Train each way with each seed, and print the means with their standard deviations."""
    torch.set_num_threads(threads)
    dataset = open_dataset(data)
    done: dict[str, dict[str, Any]] = json.loads(json_file.read_text()) if json_file.exists() else {}
    for seed in range(1, seeds + 1):
        for way, changes in WAYS.items():
            if str(seed) not in done.setdefault(way, {}):
                done[way][str(seed)] = trained(dataset, changes, seed)
                write_json(json_file, done)
    table = Table("way", "NDCG@20 x 100", "of the whole softmax", "core s", "epochs")
    first = statistics.mean(each["ndcg@20"] for each in done["whole softmax"].values())
    for way, runs in done.items():
        scores = [each["ndcg@20"] for each in runs.values()]
        spread = f" ± {100 * statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        rest = [f"{statistics.mean(each[key] for each in runs.values()):.0f}" for key in ("core_seconds", "epochs")]
        mean = statistics.mean(scores)
        table.add_row(way, f"{100 * mean:.2f}{spread}", f"{mean / first:.1%}", *rest)
    Console().print(table)


if __name__ == "__main__":
    run(main)
