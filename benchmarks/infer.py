"""Inference: users a second, ours against the published way, which decodes the padded sequence at every step.

    python -m benchmarks.infer [DATA] [--json FILE]

Both rank the test item of the same users among the whole catalogue, with the same weights, one after the other in each
round. ``speedup_all_steps`` compares T steps of both; ``speedup_one_step`` compares one step of ours with T of theirs.
"""

from __future__ import annotations

import statistics
from typing import Annotated

import numpy as np
import torch
import typer

from adrec.data.batch import history_batch
from adrec.data.spans import Int64s
from adrec.evaluate.ranking import held_out, ranking
from adrec.inference.scorer import BATCH_SIZE, Histories
from adrec.models.network import NetworkScorer
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import make_network
from adrec.nn.noise import HistoryNoise
from benchmarks.common import (
    Data,
    JsonFile,
    Rounds,
    Threads,
    alternating,
    median_ratio,
    open_data,
    report,
    run,
    trainer,
)
from benchmarks.padded import PaddedADRec, PaddedBatch


def published_ranks(network: ADRecNetwork, histories: Histories, items: Int64s, steps: int) -> Int64s:
    """Return the ranks of ``items``, every step decoding the whole padded sequences."""
    length, ranks = network.config.max_length, []
    for first in range(0, len(items), BATCH_SIZE):
        some = slice(first, first + BATCH_SIZE)
        batch = history_batch(histories.items, histories.starts[some], histories.ends[some], length)
        noise = HistoryNoise(batch, network.config.hidden_size, 0, torch.device("cpu"))
        x = PaddedADRec(network, dropout=False).predict(PaddedBatch.of(batch, length), noise, steps)
        with torch.no_grad():
            scores = network.scores(x)  # [B, V + 1]
        own = scores.gather(1, torch.from_numpy(items[some])[:, None])
        ranks.append(((scores >= own).sum(1) - 1).numpy())
    return np.concatenate(ranks)


def main(
    data: Data = None,
    json_file: JsonFile = None,
    threads: Threads = 2,
    rounds: Rounds = 3,
    users: Annotated[int, typer.Option(help="How many users are ranked, drawn at random.")] = 1024,
) -> None:
    """Print users/s of both ways at T steps and at one."""
    torch.set_num_threads(threads)
    dataset = open_data(data)
    parent = trainer(dataset)
    network = make_network(ADRecNetwork, parent.config.model, dataset.num_items)
    assert isinstance(network, ADRecNetwork)
    network.initialize(torch.Generator().manual_seed(1))
    all_histories, all_items = held_out(dataset, parent.split.test)
    chosen = np.random.default_rng(0).permutation(len(all_items))[:users]
    histories = Histories(all_histories.items, all_histories.starts[chosen], all_histories.ends[chosen])
    items, longest = all_items[chosen], parent.config.model.num_train_timesteps
    # Random weights leave few items with near scores; equal ranks show that both ways compute the same.
    same = (
        published_ranks(network, histories, items, longest) == ranking(NetworkScorer(network), histories, items).ranks
    )
    works = {
        f"published, {longest} steps": lambda: published_ranks(network, histories, items, longest),
        "published, 1 step": lambda: published_ranks(network, histories, items, 1),
        f"ours, {longest} steps": lambda: ranking(NetworkScorer(network, num_steps=longest), histories, items),
        "ours, 1 step": lambda: ranking(NetworkScorer(network, num_steps=1), histories, items),
    }
    times = alternating(rounds, **works)
    slowest = times[f"published, {longest} steps"]
    rows = [
        {
            "inference": name,
            "seconds": statistics.median(times[name]),
            "users/s": len(items) / statistics.median(times[name]),
            "times as fast": median_ratio(slowest, times[name]),
        }
        for name in works
    ]
    headlines = {
        "speedup_all_steps": rows[2]["times as fast"],
        "speedup_one_step": rows[3]["times as fast"],
        "same_ranks": float(np.mean(same)),
    }
    report(f"{dataset.info.name}: {len(items)} users, {threads} threads", rows, headlines, json_file, times=times)


if __name__ == "__main__":
    run(main)
