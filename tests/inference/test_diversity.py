"""Diverse lists: maximal marginal relevance against a slow oracle, and through Python and the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrec import ADRec
from adrec.inference.diversity import FEWEST, TIMES, Diverse, check_diversity
from adrec.inference.scorer import Top
from adrec.utils.errors import ConfigError
from command import adrec
from conftest import SMALL, cyclic_table


def top_of(scores: np.ndarray, filled: int) -> Top:
    """Return the best ``filled`` items of each row of scores [m, V], in slots for all of them."""
    order = np.argsort(-scores, axis=1)
    items, best = order + 1, np.take_along_axis(scores, order, 1).astype(np.float32)
    items[:, filled:], best[:, filled:] = 0, -np.inf
    return Top(items, best, (best / 100).astype(np.float32))


def one_by_one(top: Top, row: int, k: int, vectors: np.ndarray, d: float, temperature: float) -> list[int]:
    left = [(int(item), float(score)) for item, score in zip(top.items[row], top.scores[row], strict=True) if item]
    highest, chosen = left[0][1], list[int]()
    while left and len(chosen) < k:

        def gain(candidate: tuple[int, float]) -> float:
            item, score = candidate
            cosines = [
                vectors[item] @ vectors[each] / np.linalg.norm(vectors[item]) / np.linalg.norm(vectors[each])
                for each in chosen
            ]
            return (1 - d) * np.exp((score - highest) / temperature) - d * max(cosines, default=0.0)

        best = max(left, key=gain)
        left.remove(best)
        chosen.append(best[0])
    return chosen + [0] * (k - len(chosen))


@given(
    seed=st.integers(0, 1000),
    diversity=st.sampled_from([0.01, 0.2, 0.5, 0.9, 1.0]),
    filled=st.integers(1, 12),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_each_list_is_chosen_as_one_by_one(seed: int, diversity: float, filled: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    vectors, top = rng.normal(size=(13, 4)).astype(np.float32), top_of(rng.normal(size=(3, 12)), filled)
    found = Diverse(vectors, diversity, temperature)(top, 5)
    for row in range(3):
        assert found.items[row].tolist() == one_by_one(top, row, 5, vectors, diversity, temperature)
    given_scores = {int(item): score for item, score in zip(top.items[0], top.scores[0], strict=True)}
    assert found.scores[0].tolist() == [given_scores[item] for item in found.items[0].tolist()]
    assert np.allclose(found.confidence, found.scores / 100, equal_nan=True)


def test_no_diversity_is_the_given_order_and_nothing_stays_nothing() -> None:
    rng = np.random.default_rng(0)
    vectors, top = rng.normal(size=(13, 4)).astype(np.float32), top_of(rng.normal(size=(3, 12)), 12)
    assert (Diverse(vectors, 0.0)(top, 5).items == top.items[:, :5]).all()
    assert not Diverse(vectors, 0.5)(top_of(rng.normal(size=(2, 12)), 0), 5).items.any()
    assert Diverse(vectors, 0.5)(top_of(np.empty((0, 12)), 12), 5).items.shape == (0, 5)


def test_what_is_refused() -> None:
    vectors = np.ones((3, 2), dtype=np.float32)
    check_diversity(0.0, None)
    check_diversity(1.0, vectors)
    for wrong in (-0.1, 1.1, float("nan"), None, "0.2", True):
        with pytest.raises(ConfigError, match="from 0"):
            check_diversity(wrong, vectors)
    with pytest.raises(ConfigError, match="no item vectors"):
        check_diversity(0.1, None)
    with pytest.raises(ConfigError, match="no item vectors"):
        ADRec(model="popular").fit(cyclic_table(20, 8)).recommend(k=2, diversity=0.5)
    candidates = Diverse(vectors, 0.5).candidates
    assert (candidates(3), candidates(50)) == (FEWEST, 50 * TIMES)


def test_python_and_the_command_line_give_the_same_diverse_lists(tmp_path: Path) -> None:
    cyclic_table(30, 8).write_csv(tmp_path / "t.csv")
    model = ADRec(changes=SMALL, max_epochs=2).fit(tmp_path / "t.csv")
    model.save(tmp_path / "run")
    plain, diverse = model.recommend(k=3), model.recommend(k=3, diversity=0.6)
    assert not plain.equals(diverse)
    firsts = pl.col("rank") == 1
    assert plain.filter(firsts)["item_id"].to_list() == diverse.filter(firsts)["item_id"].to_list()
    adrec("recommend", "run", "--k", "3", "--diversity", "0.6", "--out", "r.parquet", cwd=tmp_path)
    written = pl.read_parquet(tmp_path / "r.parquet")
    assert written.select("user_id", "item_id", "rank").equals(diverse.select("user_id", "item_id", "rank"))


def test_diverse_lists_know_limits_and_popular_items() -> None:
    table = cyclic_table(30, 8)
    model = ADRec(changes=SMALL, max_epochs=1).fit(table)
    with pytest.warns(UserWarning, match="nothing else may be recommended"):
        found = model.recommend(users=["user 1"], k=4, items=["item 1", "item 2"], diversity=0.5, seen="keep")
    assert sorted(found["item_id"]) == ["item 1", "item 2"] and found["rank"].to_list() == [1, 2]
    with pytest.warns(UserWarning, match="popular"):
        found = model.recommend(histories=[["nothing known"]], k=3, diversity=0.5)
    assert found["source"].unique().to_list() == ["popular"]
