"""Synthetic interactions: as many as asked for, the same for a seed, and the best ranking is the best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from adrec.data import synth
from adrec.data.prepare import prepare
from adrec.data.synth import RECENT, SUCCESSORS, Process, best_ranks, synthesise
from adrec.utils.errors import ConfigError
from command import adrec, refused

SMALL = Process(users=3000, items=200, interactions=30_000, repeats=0.2, markov=0.5, drift=0.2, seed=3)


def read(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(sorted(folder.glob("part-*.parquet")))


def test_it_is_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "AT_ONCE", 700)
    done: list[int] = []
    found = synthesise(SMALL, tmp_path / "out", on_shard=done.append)
    table = read(tmp_path / "out")
    assert table.height == 30_000 and table["user_id"].n_unique() == 3000 and found.shards == len(done) == 5
    assert table["item_id"].max() < 200 and table.group_by("user_id").len()["len"].min() == 3
    assert json.loads((tmp_path / "out" / "_synth.json").read_text())["best"] == found.best
    assert all(each["timestamp"].is_sorted() for each in table.partition_by("user_id"))
    again = synthesise(SMALL, tmp_path / "again")
    assert again.process == found.process
    dataset = prepare(tmp_path / "out")
    assert (dataset.num_users, dataset.num_interactions, dataset.num_items) == (3000, 30_000, found.items_met)


def test_the_same_seed_is_the_same_table(tmp_path: Path) -> None:
    synthesise(SMALL, tmp_path / "a")
    synthesise(SMALL, tmp_path / "b")
    assert read(tmp_path / "a").equals(read(tmp_path / "b"))
    synthesise(Process(3000, 200, 30_000, 0.2, 0.5, drift=0.2, seed=4), tmp_path / "c")
    assert not read(tmp_path / "a").equals(read(tmp_path / "c"))


def probabilities(process: Process, items: list[int], begins: bool, period: int) -> np.ndarray:
    """Return the probability of each next item, slowly."""
    repeats = process.repeats if items else 0.0
    markov = 0.0 if begins else process.markov
    p = (1 - repeats - markov) * process.zipf[process.places[period]]
    recent = items[-RECENT:]
    for item in recent:
        p[item] += repeats / len(recent)
    if not begins:
        for item, weight in zip(process.successors[items[-1]], SUCCESSORS, strict=True):
            p[item] += markov * weight
    return p


@pytest.mark.parametrize(("repeats", "markov"), [(0.2, 0.5), (0.0, 0.0), (0.5, 0.5), (0.3, 0.0)])
def test_ranks_are_those_of_the_true_probabilities(repeats: float, markov: float) -> None:
    process = Process(300, 60, 3000, repeats, markov, drift=0.3, seed=1)
    rng = np.random.default_rng(0)
    items = rng.integers(0, 60, (300, 9))
    last, begins, periods = rng.integers(1, 9, 300), rng.random(300) < 0.3, rng.integers(0, 10, 300)
    found = best_ranks(process, items, last, begins, periods)
    for user in range(300):
        p = probabilities(process, items[user, : last[user]].tolist(), bool(begins[user]), int(periods[user]))
        assert p.sum() == pytest.approx(1)
        own = items[user, last[user]]
        assert found[user] == (p >= p[own] * (1 - 1e-12)).sum() - 1


def test_the_draws_follow_the_probabilities(tmp_path: Path) -> None:
    """The best NDCG is what the best ranking reaches on the draws; a worse process model reaches less."""
    process = Process(20_000, 50, 80_000, 0.3, 0.4, drift=0.0, seed=5)
    best = synthesise(process, tmp_path / "out").best
    table = read(tmp_path / "out")
    counts = table["item_id"].value_counts().sort("count", descending=True)["item_id"].to_list()
    last = table.group_by("user_id", maintain_order=True).last()["item_id"].to_numpy()
    ranks = np.array([counts.index(item) for item in last.tolist()])
    popular = float(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean())
    assert 0 < popular < best["ndcg@10"] < 1
    again = table.with_columns(before=pl.col("item_id").shift(1).over("user_id")).drop_nulls()
    share = (again["item_id"] == again["before"]).mean()
    assert share is not None and 0.3 / RECENT < float(share) < 0.3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interactions": 5}, "three for each user"),
        ({"repeats": 1.5}, "a share"),
        ({"repeats": 0.6, "markov": 0.6}, "above 1"),
        ({"items": 1}, "at least 10"),
    ],
)
def test_what_makes_no_sense(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Process(**{"users": 10, "items": 100, "interactions": 100, **changes})  # type: ignore[arg-type]


def test_the_command(tmp_path: Path) -> None:
    done = adrec("synth", "--users", "50", "--items", "20", "--interactions", "400", "--out", "made", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Best attainable" in done.stderr and read(tmp_path / "made").height == 400
    assert "three for each user" in refused("synth", "--interactions", "5", "--out", "other", cwd=tmp_path)
    assert refused("synth", "--out", "made", cwd=tmp_path)
