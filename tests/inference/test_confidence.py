"""Confidence: probabilities that hold what they say, on data whose probabilities are known."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adrec import ADRec
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.evaluate.ranking import held_out
from adrec.inference import confidence
from adrec.inference.confidence import fitted_temperature
from adrec.inference.rules import Limits
from adrec.inference.scorer import Histories, top_k
from adrec.models.network import NetworkModel
from adrec.nn.scores import Table
from command import adrec
from conftest import SMALL, cyclic_table

NUM_ITEMS, USERS = 30, 4000


class KnownScorer:
    """Scores history (i) by row i of a table: the model's beliefs are known."""

    num_items, max_length, ranks_padding = NUM_ITEMS, 1, False

    def __init__(self, table: np.ndarray) -> None:
        self.table = torch.from_numpy(table.astype(np.float32))

    def __call__(self, batch: PackedBatch) -> Table:
        return Table(self.table[batch.items[batch.cu_seqlens[1:] - 1]])


def beliefs(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=2.0, size=(NUM_ITEMS + 1, NUM_ITEMS + 1))


def drawn(truth: np.ndarray, seed: int, repeats: float = 0.0) -> tuple[Histories, np.ndarray]:
    """Return histories of one item, and for each a next item drawn from the softmax of ``truth`` without itself.

    A share of ``repeats`` has the item of the history as the next one.
    """
    rng = np.random.default_rng(seed)
    last = rng.integers(1, NUM_ITEMS + 1, size=USERS)
    logits = truth[last].copy()
    logits[:, 0] = logits[np.arange(USERS), last] = -np.inf
    following = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    following = np.where(rng.random(USERS) < repeats, last, following)
    return Histories(last.astype(np.int32), np.arange(USERS), np.arange(USERS) + 1), following


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_it_is_the_softmax_among_what_may_be_recommended(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adrec.inference.scores.FEWEST_ITEMS", 4)
    monkeypatch.setattr("adrec.inference.scores.BLOCK", 1)
    table, histories = beliefs(), Histories(np.array([3, 9]), np.array([0, 1]), np.array([1, 2]))
    allowed = np.ones(NUM_ITEMS + 1, dtype=bool)
    allowed[[0, 5, 6]] = False
    for filter_seen in (True, False):
        best = top_k(
            KnownScorer(table),
            histories,
            NUM_ITEMS,
            limits=Limits(allowed),
            filter_seen=filter_seen,
            temperature=temperature,
        )
        for row, last in enumerate((3, 9)):
            possible = [
                item for item in range(1, NUM_ITEMS + 1) if allowed[item] and not (filter_seen and item == last)
            ]
            p = np.exp(table[last, possible] / temperature)
            shown = best.items[row] > 0
            found = dict(zip(best.items[row][shown], best.confidence[row][shown], strict=True))
            assert found == pytest.approx(dict(zip(possible, p / p.sum(), strict=True)), rel=1e-4)
            assert (best.confidence[row][~shown] == 0).all()


@pytest.mark.parametrize("repeats", [0.0, 0.6])
@pytest.mark.parametrize("sharpness", [0.05, 0.5, 1.0, 2.0, 20.0])
def test_of_items_said_to_be_hit_with_some_probability_as_many_are(sharpness: float, repeats: float) -> None:
    """A model that is too sure, right, or not sure enough says what is so, if the next item may be recommended."""
    truth = beliefs()
    model = KnownScorer(truth * sharpness)
    temperature = fitted_temperature(model, *drawn(truth, 1, repeats))
    assert temperature == pytest.approx(sharpness, rel=0.08)
    histories, following = drawn(truth, 2)  # others than those of the fit
    best = top_k(model, histories, NUM_ITEMS, temperature=temperature)
    said, hit = best.confidence.ravel(), (best.items == following[:, None]).ravel()
    for low, high in ((0.005, 0.02), (0.02, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        inside = (said >= low) & (said < high)
        p = said[inside].mean()
        assert hit[inside].mean() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / inside.sum()) + 0.02 * p)


def test_the_temperature_makes_what_followed_most_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a plain search over temperatures; blocks and batches make no difference."""
    truth = beliefs()
    histories, following = drawn(truth, 1)
    logits = truth[histories.items].copy() * 1.7
    logits[:, 0] = logits[np.arange(USERS), histories.items] = -np.inf

    def loss(temperature: float) -> float:
        log_p = torch.log_softmax(torch.from_numpy(logits / temperature), 1).numpy()
        return float(-log_p[np.arange(USERS), following].mean())

    grid = np.geomspace(0.5, 5, 200)
    best = grid[np.argmin([loss(each) for each in grid])]
    found = fitted_temperature(KnownScorer(truth * 1.7), histories, following)
    assert found == pytest.approx(best, rel=0.02)
    monkeypatch.setattr("adrec.inference.scores.FEWEST_ITEMS", 4)
    monkeypatch.setattr("adrec.inference.scores.BLOCK", 1)
    assert fitted_temperature(KnownScorer(truth * 1.7), histories, following) == pytest.approx(found, rel=1e-5)


def test_of_many_scores_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, sizes = beliefs(), []
    fit: Callable[..., confidence.Fit] = confidence._fit

    def watched(scorer: KnownScorer, histories: Histories, *rest: Any) -> confidence.Fit:
        sizes.append(len(histories))
        return fit(scorer, histories, *rest)

    monkeypatch.setattr(confidence, "MOST_SCORES", 2000 * NUM_ITEMS)
    monkeypatch.setattr(confidence, "_fit", watched)
    assert fitted_temperature(KnownScorer(truth), *drawn(truth, 1)) == pytest.approx(1.0, rel=0.1)
    assert set(sizes) == {2000}


def test_what_held_out_items_do_not_determine_is_no_temperature() -> None:
    truth = beliefs()
    histories, following = drawn(truth, 1)
    assert fitted_temperature(KnownScorer(truth * 0), histories, following) is None, "all items are alike"
    nobody = Histories(histories.items, histories.starts[:0], histories.ends[:0])
    assert fitted_temperature(KnownScorer(truth), nobody, following[:0]) is None
    assert fitted_temperature(KnownScorer(truth), histories, histories.items.astype(np.int64)) is None, "all repeat"
    assert fitted_temperature(KnownScorer(truth), histories, following + NUM_ITEMS) is None, "all unknown"


def test_where_seen_items_are_kept_they_count() -> None:
    truth = beliefs()
    rng = np.random.default_rng(3)
    last = rng.integers(1, NUM_ITEMS + 1, size=USERS)
    logits = truth[last].copy()
    logits[:, 0] = -np.inf
    following = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # the item of the history as often as it says
    histories = Histories(last.astype(np.int32), np.arange(USERS), np.arange(USERS) + 1)
    found = fitted_temperature(KnownScorer(truth * 2), histories, following, filter_seen=False)
    assert found == pytest.approx(2.0, rel=0.05)


def test_it_is_recommended_saved_and_taken_over_by_a_refit(tmp_path: Path) -> None:
    model = ADRec(changes={**SMALL, "finetune.epochs": 3, "align.epochs": 1}, seed=1).fit(cyclic_table())
    table = model.recommend(k=30)
    assert table.columns == ["user_id", "item_id", "score", "rank", "source", "confidence"]
    rises = pl.col("confidence").diff().max().alias("rise")
    by_user = table.group_by("user_id", maintain_order=True).agg(pl.col("confidence").sum(), rises)
    assert by_user["confidence"].to_numpy() == pytest.approx(1.0, abs=1e-4), "of all that may be recommended"
    assert (by_user["rise"] <= 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unknown = model.recommend(histories=[["no such item"]], k=2)
    assert unknown["source"].to_list() == ["popular"] * 2 and unknown["confidence"].null_count() == 2
    model.save(tmp_path / "saved")
    assert ADRec.load(tmp_path / "saved").recommend(k=30).equals(table)
    before = json.loads((tmp_path / "saved" / "run.json").read_text())["temperature"]
    assert before > 0
    model.refit().save(tmp_path / "final")
    assert json.loads((tmp_path / "final" / "run.json").read_text())["temperature"] == before
    assert ADRec.load(tmp_path / "final").recommend(k=3)["confidence"].null_count() == 0


def test_a_run_has_that_of_its_validation_part_and_its_refit_the_same(tmp_path: Path) -> None:
    cyclic_table().write_csv(tmp_path / "mine.csv")
    assert adrec("prepare", "mine.csv", "--out", "data", cwd=tmp_path).returncode == 0
    sets = [f"--set={key}={value}" for key, value in {**SMALL, "finetune.epochs": 3}.items()]
    assert adrec("train", "data", "--out", "run", *sets, cwd=tmp_path).returncode == 0
    loaded = ADRec.load(tmp_path / "run")
    dataset, model = loaded.recommender().dataset, loaded.model
    assert isinstance(model, NetworkModel)
    found = fitted_temperature(model, *held_out(dataset, leave_one_out(dataset).validation))
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["temperature"] == pytest.approx(found, rel=1e-5)
    assert adrec("refit", "run", "--out", "final", cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "final" / "run.json").read_text())["temperature"] == info["temperature"]
    shown = adrec("recommend", "final", "--user", "user 3", "--format", "csv", cwd=tmp_path).stdout
    assert shown.splitlines()[0] == "user_id,item_id,score,rank,source,confidence"


def test_models_that_count_know_none(dataset: Dataset) -> None:
    table = ADRec(model="itemknn").fit(dataset).recommend(k=2)
    assert table["confidence"].null_count() == table.height > 0
