"""What denoising steps are worth: test metrics and users a second against the number of steps, for trained runs.

python benchmarks/steps.py RUN [RUN ...] [--threads 2]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from adrec.evaluate.protocol import evaluate
from adrec.nn.networks import ADRecNetwork
from adrec.recommend import NetworkScorer
from adrec.train.run import Run

METRICS = ("hr@10", "ndcg@10", "hr@20", "ndcg@20")


def main(runs: list[Path], threads: Annotated[int, typer.Option(help="CPU threads.")] = 2) -> None:
    """Print a table for each run: 1, 2, 4 .. T steps."""
    torch.set_num_threads(threads)
    for path in runs:
        run = Run.open(path)
        network, dataset = run.network(), run.dataset()
        if not isinstance(network, ADRecNetwork):
            raise typer.BadParameter(f"{path} has no diffusion to take steps of")
        longest = run.config.model.num_train_timesteps
        table = Table(title=f"{dataset.info.name}, test, {threads} threads")
        for column in ("steps", *METRICS, "users/s"):
            table.add_column(column, justify="right")
        for steps in sorted({*(1 << i for i in range(longest.bit_length()) if 1 << i < longest), longest}):
            began = time.perf_counter()
            result = evaluate(NetworkScorer(network, run.info.seed, steps), dataset, run.split(dataset))
            speed = result.ranks.height / (time.perf_counter() - began)
            table.add_row(str(steps), *(f"{result.metrics[name].mean:.5f}" for name in METRICS), f"{speed:,.0f}")
        Console().print(table)


if __name__ == "__main__":
    typer.run(main)
