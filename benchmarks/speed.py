"""How fast training and inference are: seconds of an epoch, and users a second against denoising steps.

    python benchmarks/speed.py DATA [--threads 2] [--set hidden_size=64]

Times are the best of three on a machine that does nothing else; take ratios from one run only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from adrec.config import parse_changes, preset
from adrec.data.dataset import open_dataset
from adrec.data.split import leave_one_out
from adrec.evaluate.ranking import held_out, ranking
from adrec.nn.networks import make_network
from adrec.recommend import NetworkScorer
from adrec.train.loop import Trainer


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """Return the least seconds that ``work`` took."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def epoch_seconds(trainer: Trainer, stage_name: str) -> float:
    """Return the seconds of one epoch of a stage, from fresh weights."""
    stage = trainer.config.stages[stage_name]
    trainer.network = None
    trainer._begin(stage)
    return best_of(3, lambda: trainer._epoch(stage))


def main(
    data: Path,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="A configuration key.")] = None,
) -> None:
    """Print the table for one prepared data set."""
    torch.set_num_threads(threads)
    dataset = open_dataset(data)
    split = leave_one_out(dataset)
    config = preset("published", parse_changes(assignments or []))
    trainer = Trainer(config, dataset, split, seed=1)
    table = Table(title=f"{dataset.info.name}, {threads} threads, {trainer.num_tokens:,} tokens an epoch")
    table.add_column("what")
    table.add_column("measured", justify="right")
    for stage in ("pretrain", "align", "finetune"):
        table.add_row(f"epoch of {stage}", f"{epoch_seconds(trainer, stage):.2f} s")

    network = make_network("adrec", config.model, dataset.num_items)
    network.initialize(torch.Generator().manual_seed(1))
    histories, items = held_out(dataset, split.test)
    for steps in (1, 4, config.model.num_train_timesteps):
        scorer = NetworkScorer(network, num_steps=steps)
        seconds = best_of(3, lambda scorer=scorer: ranking(scorer, histories, items))  # type: ignore[misc]
        table.add_row(f"evaluation, {steps} steps", f"{len(items) / seconds:,.0f} users/s")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
