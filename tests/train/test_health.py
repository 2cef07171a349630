"""The signs that training watches, and the warning where a space collapses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrec.config.adrec import Config
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.diagnose.measures import measure
from adrec.train.callbacks import Callback
from adrec.train.health import collapse, embedding_health
from adrec.train.loop import Trainer
from command import adrec
from conftest import TINY, adrec_trainer, cyclic_table
from embeddings import clusters, gaussian


class Listener(Callback):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_message(self, sentence: str, *, warning: bool = False) -> None:
        if warning:
            self.warnings.append(sentence)


@pytest.mark.parametrize("embedding", [clusters(500, 16), gaussian(500, 16), clusters(500, 16) + 30])
def test_the_signs_are_the_measures(embedding: np.ndarray) -> None:
    signs, whole = embedding_health(embedding), measure(embedding)
    for name in ("effective_rank", "variance", "mean_cosine", "norm"):
        assert signs[name] == pytest.approx(whole[name], rel=1e-6, abs=1e-9)
    share = whole["noise_share"]
    assert share is not None
    # A dimension beyond the largest eigenvalue of noise counts from 1, not from its own place in the noise's spectrum.
    assert share - 0.15 <= signs["noise_share"] <= share + 0.01


def test_collapses_by_name() -> None:
    assert collapse(embedding_health(clusters(500, 16)), 16, 500) is None
    assert "random noise" in str(collapse(embedding_health(gaussian(500, 16)), 16, 500))
    assert "same way" in str(collapse(embedding_health(clusters(500, 16) + 40), 16, 500))
    flat = (gaussian(500, 1) @ gaussian(1, 40, 3)).astype(np.float32)
    assert "of 40 dimensions" in str(collapse(embedding_health(flat), 40, 500))
    assert "random noise" in str(collapse(embedding_health(gaussian(12, 128)), 128, 12)), "twelve items have no more"
    assert collapse(embedding_health(np.zeros((5, 3), dtype=np.float32)), 3, 5) == "every item's embedding is 0"


def test_noise_with_rows_of_many_lengths_is_noise_and_axes_do_not_matter() -> None:
    tailed = gaussian(1500, 32) * np.random.default_rng(3).lognormal(sigma=1.0, size=(1500, 1))
    assert embedding_health(tailed.astype(np.float32))["noise_share"] > 0.97
    rotation, _ = np.linalg.qr(gaussian(32, 32, 5))
    before, after = (
        embedding_health(each)["noise_share"] for each in (clusters(500, 32), clusters(500, 32) @ rotation)
    )
    assert before == pytest.approx(after, abs=1e-4) and before < 0.5


def trained(dataset: Dataset, config: Config) -> tuple[list[dict[str, Any]], list[str], Trainer]:
    rows: list[dict[str, Any]] = []
    listener = Listener()
    trainer = adrec_trainer(
        config,
        dataset,
        leave_one_out(dataset),
        seed=1,
        callbacks=[listener],
        on_epoch=lambda row: rows.append(dict(row)),
    )
    trainer.run()
    return rows, listener.warnings, trainer


def test_every_validation_has_them_and_a_stage_that_ends_collapsed_is_told(
    dataset: Dataset, tiny: Callable[..., Config]
) -> None:
    rows, warnings, _ = trained(dataset, tiny((0, 0, 3), finetune__loss="mse"))
    validated = [row for row in rows if "validation" in row]
    assert validated and all("effective_rank" in row["embedding"] for row in validated)
    assert all("embedding" not in row for row in rows if "validation" not in row)
    assert list(rows[0]["loss"]) == ["mse"]
    assert warnings
    assert warnings[-1].startswith("after finetune the embedding space looks collapsed, or hardly trained yet: ")


def test_the_turn_is_told_once(dataset: Dataset, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    measured = embedding_health
    seen = iter([clusters(60, 8), gaussian(60, 8), gaussian(60, 8), clusters(60, 8)] + [clusters(60, 8)] * 99)
    monkeypatch.setattr("adrec.train.health.embedding_health", lambda rows: measured(next(seen)))
    changes = {"first_evaluation": 1, "evaluate_every": 1, "patience": 0}
    config = tiny((4, 0, 0), **{f"pretrain__{key}": value for key, value in changes.items()})
    _, warnings, _ = trained(dataset, config)
    assert [text.split(":")[0] for text in warnings] == ["The embedding space is collapsing"]


def test_measuring_changes_no_weight(
    dataset: Dataset, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny((2, 1, 1))
    with_signs = trained(dataset, config)[2].weights.selected
    monkeypatch.setattr("adrec.train.health.embedding_health", lambda rows: {})
    without = trained(dataset, config)[2].weights.selected
    assert all(bool((with_signs[name] == value).all()) for name, value in without.items())


@pytest.mark.slow
def test_as_a_command(tmp_path: Path) -> None:
    cyclic_table(num_users=80, num_items=40).write_csv(tmp_path / "t.csv")
    assert adrec("prepare", "t.csv", "--out", "data", cwd=tmp_path).returncode == 0
    small = [text for key, value in TINY.items() for text in ("--set", f"{key}={json.dumps(value)}")]
    done = adrec("train", "data", "--out", "run", "--preset", "paper", *small, "--max-epochs", "3", cwd=tmp_path)
    assert done.returncode == 0 and " noise " in done.stderr, done.stderr
    np.save(tmp_path / "noise.npy", gaussian(400, 16))
    told = adrec(
        *("diagnose", "run", "--against", "noise.npy", "--out", "report", "--pictures", "png,svg"),
        *("--json", "d.json", "--attributes", "t.csv", "--attribute", "item_id"),
        cwd=tmp_path,
    )
    assert told.returncode == 2 and "is among those of noise.npy" in told.stderr
    told = adrec(
        *("diagnose", "run", "--against", "noise.npy", "--out", "report", "--pictures", "png,svg", "--json", "d.json"),
        cwd=tmp_path,
    )
    assert told.returncode == 0, told.stderr
    assert "noise.npy: Collapsed, or hardly trained yet: the spectrum is" in told.stdout
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["noise.npy"]["verdict"]["state"] == "collapsed" and "stage 1" in found["run"]["references"]
    made = {each.name for each in (tmp_path / "report").iterdir()}
    assert made >= {"report.html", "diagnosis.json", "maps.png", "maps.svg", "spectrum.png"}
    failed = adrec("diagnose", "noise.npy", "--fail-on", "collapsed", "--quiet", cwd=tmp_path)
    assert failed.returncode == 1 and "Collapsed" in failed.stdout and not failed.stderr
    coloured = adrec("diagnose", "run", "--attributes", "t.csv", cwd=tmp_path)
    assert coloured.returncode == 2 and "goes together with" in coloured.stderr
