"""Confidence: probabilities that hold what they say, on data whose probabilities are known."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from adrec import ADRec
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.evaluate.ranking import held_out
from adrec.inference.confidence import Calibration, calibrate, log_odds
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


def drawn(truth: np.ndarray, seed: int) -> tuple[Histories, np.ndarray]:
    """Return histories of one item, and for each a next item drawn from the softmax of ``truth`` without itself."""
    rng = np.random.default_rng(seed)
    last = rng.integers(1, NUM_ITEMS + 1, size=USERS)
    logits = truth[last].copy()
    logits[:, 0] = logits[np.arange(USERS), last] = -np.inf
    following = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    return Histories(last.astype(np.int32), np.arange(USERS), np.arange(USERS) + 1), following


def test_log_p_is_the_softmax_among_what_may_be_recommended() -> None:
    table, histories = beliefs(), Histories(np.array([3, 9]), np.array([0, 1]), np.array([1, 2]))
    allowed = np.ones(NUM_ITEMS + 1, dtype=bool)
    allowed[[0, 5, 6]] = False
    best = top_k(KnownScorer(table), histories, NUM_ITEMS, candidates=allowed)
    for row, last in enumerate((3, 9)):
        possible = [item for item in range(1, NUM_ITEMS + 1) if allowed[item] and item != last]
        p = np.exp(table[last, possible]) / np.exp(table[last, possible]).sum()
        shown = best.items[row] > 0
        found = dict(zip(best.items[row][shown], np.exp(best.log_p[row][shown]), strict=True))
        assert found == pytest.approx(dict(zip(possible, p, strict=True)), rel=1e-5)
        assert (best.log_p[row][~shown] == -np.inf).all()


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_of_items_said_to_be_hit_with_some_probability_as_many_are(sharpness: float) -> None:
    """A model that is too sure, right, or not sure enough says what is so after its calibration."""
    truth = beliefs()
    model = KnownScorer(truth * sharpness)
    calibration = calibrate(model, *drawn(truth, 1))
    assert calibration is not None
    if sharpness == 1.0:
        assert (calibration.slope, calibration.intercept) == pytest.approx((1.0, 0.0), abs=0.05)
    assert (calibration.slope < 0.9) == (sharpness > 1.0)
    histories, following = drawn(truth, 2)  # others than those of the calibration
    best = top_k(model, histories, 20)
    said, hit = calibration(best.log_p).ravel(), (best.items == following[:, None]).ravel()
    for low, high in ((0.02, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        inside = (said >= low) & (said < high)
        error = 4 * np.sqrt(0.25 / inside.sum())
        assert hit[inside].mean() == pytest.approx(said[inside].mean(), abs=error)


def test_log_odds() -> None:
    p = np.array([1e-6, 0.1, 0.5, 0.9])
    assert log_odds(np.log(p)) == pytest.approx(np.log(p / (1 - p)))
    assert np.isfinite(log_odds(np.zeros(1))).all(), "a probability of 1"
    assert Calibration(1.0, 0.0)(np.log(p)) == pytest.approx(p, rel=1e-5)


def test_what_hits_do_not_determine_is_no_calibration() -> None:
    truth = beliefs()
    histories, following = drawn(truth, 1)
    assert calibrate(KnownScorer(-truth), histories, following) is None, "hits are where the model expects none"
    assert calibrate(KnownScorer(truth * 0), histories, following) is None, "all items are alike"
    nobody = Histories(histories.items, histories.starts[:0], histories.ends[:0])
    assert calibrate(KnownScorer(truth), nobody, following[:0]) is None


def test_it_is_recommended_with_saved_and_taken_over_by_a_refit(tmp_path: Path) -> None:
    model = ADRec(changes={**SMALL, "finetune.epochs": 3, "align.epochs": 1}, seed=1).fit(cyclic_table())
    table = model.recommend(k=3)
    assert table.columns == ["user", "item", "score", "rank", "source", "confidence"]
    assert table["confidence"].is_between(0, 1).all()
    assert (table.group_by("user", maintain_order=True).agg(pl.col("confidence").diff().max())["confidence"] <= 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unknown = model.recommend(histories=[["no such item"]], k=2)
    assert unknown["source"].to_list() == ["popular"] * 2 and unknown["confidence"].null_count() == 2
    model.save(tmp_path / "saved")
    assert ADRec.load(tmp_path / "saved").recommend(k=3).equals(table)
    before = json.loads((tmp_path / "saved" / "run.json").read_text())["calibration"]
    model.refit().save(tmp_path / "final")
    assert json.loads((tmp_path / "final" / "run.json").read_text())["calibration"] == before
    assert "confidence" in ADRec.load(tmp_path / "final").recommend(k=3).columns


def test_a_run_has_that_of_its_validation_part_and_its_refit_the_same(tmp_path: Path) -> None:
    cyclic_table().write_csv(tmp_path / "mine.csv")
    assert adrec("prepare", "mine.csv", "--out", "data", cwd=tmp_path).returncode == 0
    sets = [f"--set={key}={value}" for key, value in {**SMALL, "finetune.epochs": 3}.items()]
    assert adrec("train", "data", "--out", "run", *sets, cwd=tmp_path).returncode == 0
    loaded = ADRec.load(tmp_path / "run")
    dataset, model = loaded.recommender().dataset, loaded.model
    assert isinstance(model, NetworkModel)
    found = calibrate(model, *held_out(dataset, leave_one_out(dataset).validation))
    assert found is not None
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["calibration"] == pytest.approx(asdict(found), rel=1e-6)
    assert adrec("refit", "run", "--out", "final", cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "final" / "run.json").read_text())["calibration"] == info["calibration"]
    shown = adrec("recommend", "final", "--user", "user 3", "--format", "csv", cwd=tmp_path).stdout
    assert "confidence" in shown.splitlines()[0]


def test_models_that_count_have_none(dataset: Dataset) -> None:
    model = ADRec(model="itemknn").fit(dataset)
    assert "confidence" not in model.recommend(k=2).columns
