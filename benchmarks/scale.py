"""A training step against the size of the catalogue, by each way of training: `python -m benchmarks.scale --json FILE`.

Sequences are drawn by Zipf's law, 10 interactions each, of as many users for every size. A way is left out where its
step at a tenth of the size took longer than `--most` seconds.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from adrec.config.adrec import Config, preset
from adrec.data.sequences import Sequences
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import make_network
from adrec.train.divergence import Watch
from adrec.train.ema import ema_share, update_ema
from adrec.train.epochs import take_step
from adrec.train.lazy import EMBEDDING, LazyRows, local_rows
from adrec.train.step import Step, new_optimizer
from adrec.utils.files import write_json
from benchmarks.common import JsonFile, Threads, run

WAYS: dict[str, dict[str, Any]] = {
    "whole softmax": {"finetune.rows": False, "finetune.negatives": 0},
    "drawn, every row": {"finetune.rows": False, "finetune.negatives": 2000},
    "drawn, their rows": {"finetune.rows": True, "finetune.rows.drawn": 2000},
    "buckets, one pass": {
        "finetune.rows": False,
        "finetune.buckets": True,
        "finetune.consistency": 0.0,
        "finetune.future_items": 1,
    },
}
USERS, LENGTH, BATCH = 50_000, 10, 450


def sequences(num_items: int) -> Sequences:
    """Return sequences of items that are as popular as Zipf's law says, in a random order of item numbers."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, num_items + 1)
    drawn = np.searchsorted(np.cumsum(shares) / shares.sum(), rng.random(USERS * LENGTH)).clip(max=num_items - 1)
    items = (rng.permutation(num_items) + 1).astype(np.int32)[drawn]
    ends = np.arange(1, USERS + 1) * LENGTH
    return Sequences(items, ends - LENGTH, ends, 50)


class Training:
    """A stage of training that makes one step after the other, with its moving average."""

    def __init__(self, config: Config, num_items: int) -> None:
        assert config.finetune is not None
        self.stage, self.sequences, self.rng = config.finetune, sequences(num_items), torch.Generator().manual_seed(1)
        self.network = make_network(ADRecNetwork, config.model, num_items)
        self.network.initialize(self.rng)
        self.optimizer = new_optimizer(self.network, self.stage)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.lazy = None
        if self.stage.rows is not None:
            self.lazy = LazyRows.of(self.network, self.stage, self.sequences)
            self.lazy.table.start_average(self.average[EMBEDDING])
        self.step, self.watch = Step.of(self.stage), Watch(num_items, torch.device("cpu"), None)
        self.order = np.random.default_rng(1)

    def seconds(self) -> float:
        """Make a step; return its seconds."""
        batch = self.sequences.batch(self.order.choice(USERS, BATCH, replace=False))
        began, share = time.perf_counter(), ema_share(self.stage.averaging, 1000)
        take_step(self.step, self.network, self.optimizer, batch, self.rng, 8192, self.watch, self.lazy, share)
        update_ema(self.average, self.network, share, () if self.lazy is None else {EMBEDDING})
        return time.perf_counter() - began

    def profile(self, rounds: int = 20) -> dict[str, float]:
        """Return the median milliseconds of each part of a step that trains rows."""
        assert self.lazy is not None
        table, times = self.lazy.table, dict[str, list[float]]()

        def lap(name: str, since: float) -> float:
            now = time.perf_counter()
            times.setdefault(name, []).append(now - since)
            return now

        for _ in range(rounds):
            users, at = self.order.choice(USERS, BATCH, replace=False), time.perf_counter()
            batch = self.sequences.batch(users)
            at = lap("batch", at)
            rows = self.lazy.sampler.rows(batch, self.rng)
            at = lap("drawing the rows", at)
            values = table.read(rows.items)
            at = lap("reading them", at)
            with local_rows(self.network, values) as own:
                losses = self.step.gradients(self.network, rows.local(batch), None, self.rng, 8192, rows)
                at = lap("forward and backward", at)
                self.watch.judge(losses, self.network.parameters())
            self.optimizer.step()
            at = lap("the network's optimizer", at)
            table.update(rows.items, own.grad, 1e-3, 0.01)
            lap("updating the rows and their average", at)
        return {name: 1000 * statistics.median(found) for name, found in times.items()}


def main(
    json_file: JsonFile = None,
    sizes: Annotated[list[int] | None, typer.Option("--items", help="Sizes of the catalogue; repeatable.")] = None,
    hidden: Annotated[int, typer.Option(help="The width D.")] = 64,
    most: Annotated[float, typer.Option(help="Seconds of a step, above which a way is not tried at more items.")] = 3.0,
    rounds: Annotated[int, typer.Option(help="Steps that are timed; the median counts.")] = 15,
    threads: Threads = 1,
) -> None:
    """Time a step by each way at each size, and say how it grows."""
    torch.set_num_threads(threads)
    wanted = sizes or [10_000, 100_000, 1_000_000]
    found: dict[str, dict[str, float]] = {}
    parts: dict[str, float] = {}
    for way, changes in WAYS.items():
        found[way] = {}
        for num_items in wanted:
            if any(seconds > most for seconds in found[way].values()):
                break
            training = Training(preset("large", {"model.hidden_size": hidden, **changes}), num_items)
            training.seconds()
            found[way][str(num_items)] = statistics.median(training.seconds() for _ in range(rounds))
            if training.lazy is not None and num_items == wanted[-1]:
                parts = training.profile()
            del training
    table = Table("a step, ms", *[f"{size:,} items" for size in wanted], "exponent")
    exponents = {}
    for way, times in found.items():
        ends = [(int(size), seconds) for size, seconds in times.items()]
        if len(ends) > 1:
            exponents[way] = math.log(ends[-1][1] / ends[0][1]) / math.log(ends[-1][0] / ends[0][0])
        cells = [f"{1000 * times[str(size)]:.1f}" if str(size) in times else "" for size in wanted]
        table.add_row(way, *cells, f"{exponents[way]:.2f}" if way in exponents else "")
    console = Console()
    console.print(table)
    for name, milliseconds in parts.items():
        console.print(f"{name}: {milliseconds:.1f} ms")
    if json_file is not None:
        write_json(
            json_file,
            {"seconds": found, "exponents": exponents, "profile_ms": parts, "hidden": hidden, "threads": threads},
        )


if __name__ == "__main__":
    run(main)
