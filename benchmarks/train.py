"""Training: ours against the padded two-pass restatement, in one process, one step of each in turn.

    python -m benchmarks.train [DATA] [--json FILE]

Both train the published network (stage 3: cross-entropy and squared error, dropout, Adam) on the same batches of 512
users.
"""

from __future__ import annotations

import itertools
import statistics

import torch

from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import make_network
from adrec.train.step import Step, new_optimizer
from benchmarks.common import (
    Data,
    JsonFile,
    Rounds,
    Threads,
    alternating,
    batches,
    in_own_process,
    median_ratio,
    open_data,
    report,
    run,
    trainer,
)
from benchmarks.padded import PaddedADRec, PaddedBatch

WAYS = ("padded", "ours", "bfloat16")


class Steps:
    """Training steps of one way, on a network of its own."""

    def __init__(self, way: str, dataset: Dataset, made: list[PackedBatch], device: str = "cpu") -> None:
        parent = trainer(dataset)
        self.way, self.config, stage = way, parent.config, parent.config.finetune
        network = make_network(ADRecNetwork, self.config.model, dataset.num_items)
        assert isinstance(network, ADRecNetwork)
        network.initialize(torch.Generator().manual_seed(1))
        self.network, self.rng = network.to(device), torch.Generator(device).manual_seed(1)
        self.batches = itertools.cycle([batch.to(torch.device(device)) for batch in made])
        if way == "padded":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
                network.parameters(), lr=stage.learning_rate, weight_decay=stage.weight_decay
            )
        else:
            self.step = Step.of(stage, "bfloat16" if way == "bfloat16" else "float32")
            self.optimizer = new_optimizer(network, stage)

    def __call__(self) -> None:
        """Take the next step."""
        batch = next(self.batches)
        draws = self.network.draw(batch, self.rng)
        if self.way == "padded":
            PaddedADRec(self.network).gradients(PaddedBatch.of(batch, self.config.model.max_length), draws)
        else:
            self.step.gradients(self.network, batch, draws, self.rng, self.config.max_tokens)
        self.optimizer.step()


def a_few_steps(way: str, dataset: Dataset, made: list[PackedBatch]) -> None:
    """Take as many steps as there are batches: for the memory they need."""
    steps = Steps(way, dataset, made)
    for _ in made:
        steps()


def nothing(way: str, dataset: Dataset, made: list[PackedBatch]) -> None:
    """Make all that a step needs, but take none: what the process weighs before it."""
    Steps(way, dataset, made)


def main(data: Data = None, json_file: JsonFile = None, threads: Threads = 2, rounds: Rounds = 5) -> None:
    """Print tokens/s, seconds of an epoch and peak memory of each way."""
    torch.set_num_threads(threads)
    dataset = open_data(data)
    parent = trainer(dataset)
    made = batches(parent, rounds + 1)
    times = alternating(rounds, **{way: Steps(way, dataset, made) for way in WAYS})
    tokens_per_step = parent.num_tokens / parent.steps_per_epoch
    _, empty = in_own_process(nothing, "ours", dataset, made)
    rows = []
    for way in WAYS:
        step = statistics.median(times[way])
        _, peak = in_own_process(a_few_steps, way, dataset, made[:3])
        rows.append(
            {
                "training": way,
                "s/step": step,
                "tokens/s": tokens_per_step / step,
                "s/epoch": step * parent.steps_per_epoch,
                "peak GiB": peak / 2**30,
                "of it for steps": (peak - empty) / 2**30,
                "times as fast": median_ratio(times["padded"], times[way]),
            }
        )
    headlines = {"speedup_epoch": rows[1]["times as fast"], "speedup_epoch_bfloat16": rows[2]["times as fast"]}
    title = f"{dataset.info.name}: {parent.num_tokens:,} tokens an epoch, {parent.steps_per_epoch} steps of 512 users"
    report(f"{title}, {threads} threads", rows, headlines, json_file, times=times)


if __name__ == "__main__":
    run(main)
