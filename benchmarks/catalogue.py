"""The time of one answer with a large catalogue: every item ranked, or an index of nearest items.

    python -m benchmarks.catalogue RUN --items 1000000

Training a million items is not what is measured here. The network is RUN's, with the vectors of its own items drawn
with replacement and moved by noise of half their spread: so vectors and queries have the spread, the lengths and the
neighbourhoods of trained ones.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from adrec import ADRec
from adrec.data.prepare import prepare
from adrec.inference.engine import Engine, Query
from adrec.inference.index import indexed
from adrec.inference.recommender import Recommender
from adrec.models.adrec import ADRecModel
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import make_network


def engine(run: Path, items: int) -> Engine:
    """Return an engine of the run's network with so many items."""
    rng, trained = np.random.default_rng(0), ADRec.load(run, device="cpu")
    rows = np.concatenate([np.arange(items), rng.integers(0, items, items)])
    table = pl.DataFrame({"user_id": np.arange(len(rows)) // 20, "item_id": rows, "timestamp": np.arange(len(rows))})
    dataset = prepare(table, time_unit="s")
    model = ADRecModel(trained.model.config)
    network = make_network(ADRecNetwork, model.training.network, items)  # type: ignore[arg-type]
    old = trained.recommender().engine.dense
    assert old is not None
    weights = {name: each for name, each in old.network.state_dict().items() if name != "item_embedding.weight"}
    network.load_state_dict(weights, strict=False)
    own = old.items.numpy()
    moved = own[rng.integers(1, len(own), items)] + 0.5 * own[1:].std(0) * rng.standard_normal((items, own.shape[1]))
    with torch.no_grad():
        network.item_embedding.weight[1:] = torch.from_numpy(moved.astype(np.float32))
        network.item_embedding.weight[0] = old.items[0]
    model.adopt(network, 0)
    return Recommender(model, dataset, temperature=1.0).engine


def measured(made: Engine, number: int) -> dict[str, float]:
    """Return percentiles of the milliseconds of one answer, one at a time."""
    histories = [made.dataset.history(user).astype(np.int64) for user in range(number)]
    gc.collect()
    gc.freeze()  # as the service does
    for history in histories[:5]:
        made.answer([Query(history, 10, True, history[:0])])
    seconds = []
    for history in histories:
        began = time.perf_counter()
        made.answer([Query(history, 10, True, history[:0])])
        seconds.append(time.perf_counter() - began)
    found = 1000 * np.percentile(seconds, [50, 90, 99])
    return {name: round(float(each), 2) for name, each in zip(("p50", "p90", "p99"), found, strict=True)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="file that keeps the index")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    made = engine(given.run, given.items)
    print(json.dumps({"items": given.items, "exact": measured(made, given.answers)}), flush=True)
    began = time.perf_counter()
    made.index = indexed(made, "usearch", cache=given.keep)
    built = time.perf_counter() - began
    row = {"index": measured(made, given.answers), "recall": round(made.index.recall, 4)}
    row |= {"searched": made.index.searched, "built_seconds": round(built, 1)}
    row |= {"peak_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)}
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
