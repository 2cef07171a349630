"""Items without interactions, ranked by their features: `python -m benchmarks.cold DATA VECTORS --json FILE`.

A tenth of the items of a prepared data set lose all their interactions. A model is trained on the rest, and gives them
vectors by their features. Each user's last interaction with such an item, after three others at least, is ranked:
among the new items, and among all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import torch
import typer
from rich.console import Console
from rich.table import Table

from adrec.data.batch import history_batch
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.prepare import prepare
from adrec.data.split import make_split
from adrec.data.vectors import read_item_vectors
from adrec.models.adrec import ADRecModel
from adrec.runs.fit import fit
from adrec.train.newcomers import place_new_items, target_counts
from adrec.train.sequences import training_histories
from adrec.utils.files import write_json
from benchmarks.common import JsonFile, Threads, run

SHARE, FEWEST, RECENT = 0.1, 3, 10
Array = Any


def reduced(dataset: Dataset, seed: int) -> tuple[Dataset, Array]:
    """Return the data set without the interactions of some items, which stay in the catalogue; and their numbers."""
    cold = np.random.default_rng(seed).choice(dataset.num_items, int(SHARE * dataset.num_items), replace=False) + 1
    users = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    table = pl.DataFrame(
        {
            "user_id": dataset.users.decode(users),
            "item_id": dataset.catalogue.decode(dataset.items - 1),
            "timestamp": pl.Series(np.array(dataset.times)),
        }
    ).filter(~np.isin(dataset.items, cold))
    warm = prepare(table, items=dataset.catalogue.ids, time_unit=dataset.info.time_unit, seen=dataset.info.seen)
    return warm, np.sort(warm.catalogue.encode(dataset.catalogue.decode(cold - 1)) + 1)


def cases(dataset: Dataset, warm: Dataset, cold: Array) -> tuple[list[Array], Array]:
    """Return the warm history before each user's last cold item, and that item."""
    numbers = warm.catalogue.encode(dataset.catalogue.ids) + 1
    histories, targets = [], []
    for user in range(dataset.num_users):
        items = numbers[np.asarray(dataset.history(user)) - 1]
        is_cold = np.isin(items, cold)
        if is_cold.any():
            last = int(np.flatnonzero(is_cold)[-1])
            history = items[:last][~is_cold[:last]]
            if len(history) >= FEWEST:
                histories.append(history)
                targets.append(items[last])
    return histories, np.array(targets)


def ndcg(scores: Array, own: Array, k: int = 20) -> float:
    """Return the mean NDCG of the target in column ``own`` of each row of ``scores``; ties count against it."""
    ranks = (scores >= scores[np.arange(len(own)), own][:, None]).sum(1) - 1
    return float(np.where(ranks < k, 1 / np.log2(ranks + 2), 0).mean())


def main(
    data: Annotated[Path, typer.Argument(help="A prepared folder.")],
    vectors: Annotated[Path, typer.Argument(help="A vector of features of each item.")],
    json_file: JsonFile = None,
    seeds: Annotated[int, typer.Option(help="Trainings, each without other items.")] = 1,
    threads: Threads = 1,
) -> None:
    """Train, and compare the order of new items with that of content and of chance."""
    torch.set_num_threads(threads)
    dataset, found = open_dataset(data), dict[str, list[float]]()
    for seed in range(seeds):
        warm, cold = reduced(dataset, seed)
        features, split = read_item_vectors(vectors, warm), make_split(warm, None)
        model = ADRecModel(ADRecModel.Config.make("fast"))
        fit(model, warm, split, seed=seed)
        network = model.network
        assert network is not None
        weight = network.item_embedding.weight.data
        untouched = weight.clone()
        trained = training_histories(warm, split, network.config.max_length)
        placed = place_new_items(weight, features, target_counts(trained, warm.num_items))
        histories, targets = cases(dataset, warm, cold)
        ends = np.cumsum([len(each) for each in histories])
        starts = ends - [len(each) for each in histories]
        batch = history_batch(np.concatenate(histories), starts, ends, network.config.max_length)
        query = network.predict(batch).numpy()
        known = np.nan_to_num(features) / np.maximum(np.linalg.norm(np.nan_to_num(features), axis=1), 1e-9)[:, None]
        profile = np.stack([known[each[-RECENT:]].mean(0) for each in histories])
        own, rng = np.searchsorted(cold, targets), np.random.default_rng(seed)
        ways = {
            "predicted vectors": query @ weight[cold].numpy().T,
            "nearest by content": profile @ known[cold].T,
            "trained as items without interactions": query @ untouched[cold].numpy().T,
            "popularity (none has any), that is chance": rng.random((len(own), len(cold))),
        }
        for way, scores in ways.items():
            found.setdefault(way, []).append(ndcg(scores, own))
        found.setdefault("predicted, among all items", []).append(ndcg(query @ weight.numpy().T, targets))
        found.setdefault("explained", []).append(placed.explained)
        found.setdefault("cases", []).append(len(targets))
        found.setdefault("new items", []).append(len(cold))
    table = Table("way", "NDCG@20 x 100 among new items")
    for way, values in found.items():
        table.add_row(way, f"{(100 if way not in ('cases', 'new items') else 1) * np.mean(values):.2f}")
    Console().print(table)
    if json_file is not None:
        write_json(json_file, found)


if __name__ == "__main__":
    run(main)
