"""What diffusion contributes: each part by itself, against what is done by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adrec import ADRec
from adrec.config.adrec import preset
from adrec.data.batch import history_batch
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.diagnose.contribution import Contribution, Gain, SampleMean, _in_turn, contribution
from adrec.diagnose.table import contribution_notes
from adrec.evaluate.metrics import Estimate
from adrec.evaluate.protocol import evaluate
from adrec.evaluate.significance import Difference
from adrec.models.adrec import ADRecModel
from adrec.nn.ablation.network import blinded
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.noise import HistoryNoise
from adrec.runs.fit import fit
from command import adrec, refused
from conftest import TINY

SMALL: Mapping[str, Any] = {
    **TINY,
    "num_train_timesteps": 4,
    "noise_weight": 0.5,
    "pretrain.epochs": 2,
    "align.epochs": 1,
    "finetune.epochs": 2,
}


@pytest.fixture(scope="module")
def trained(module_dataset: Dataset) -> ADRecModel:
    model = ADRecModel(preset("paper", SMALL))
    fit(model, module_dataset, leave_one_out(module_dataset), seed=3)
    return model


@pytest.fixture(scope="module")
def module_dataset() -> Dataset:
    from adrec.data.prepare import prepare
    from conftest import cyclic_table

    return prepare(cyclic_table())


def network_of(model: ADRecModel) -> ADRecNetwork:
    assert isinstance(model.network, ADRecNetwork)
    return model.network


def test_steps_are_those_of_the_evaluation(trained: ADRecModel, module_dataset: Dataset) -> None:
    split = leave_one_out(module_dataset)
    found = contribution(network_of(trained), module_dataset, split, samples=3, seed=trained.seed)
    gains = {gain.part: gain for gain in found.gains}
    expected = {}
    for steps in (1, 4):
        again = ADRecModel(trained.config)
        again.restore(trained.state(), trained.num_items, seed=trained.seed)
        again.with_inference(steps, None)
        expected[steps] = evaluate(again, module_dataset, split, "validation", seen="keep").metrics["ndcg@20"].mean
    gain = gains["4 steps over one"]
    assert (gain.with_it, gain.without) == pytest.approx((expected[4], expected[1]))
    assert gain.difference.estimate.mean == pytest.approx(expected[4] - expected[1])
    assert set(gains) == {"4 steps over one", "seeing x_t and t", "mean of 3 samples over one"}


def test_a_blind_model_is_one_that_is_given_nothing(trained: ADRecModel, module_dataset: Dataset) -> None:
    """Its last token's input is the condition alone, whatever the noise; the history is as it was."""
    network = network_of(trained)
    ends = np.array(module_dataset.offsets[1:4]) - 1
    batch = history_batch(module_dataset.items, np.array(module_dataset.offsets[:3]), ends, network.config.max_length)
    noises = [HistoryNoise(batch, network.config.hidden_size, seed, torch.device("cpu")) for seed in (1, 2)]
    seeing = [network.predict(batch, noise, 1) for noise in noises]
    with blinded(network):
        blind = [network.predict(batch, noise, 1) for noise in noises]
    assert torch.equal(network.predict(batch, noises[0], 1), seeing[0])
    assert not torch.equal(*seeing) and torch.equal(*blind)
    zero = network.predict(batch, lambda step: -network.time_embedding()[-1].expand(3, -1), 1)
    torch.testing.assert_close(blind[0], zero, msg="x_t that cancels the timestep is as good as none")


def test_without_noise_in_training_and_inference_nothing_is_gained(module_dataset: Dataset) -> None:
    model = ADRecModel(preset("paper", {**SMALL, "noise_weight": 0.0}))
    split = leave_one_out(module_dataset)
    fit(model, module_dataset, split, seed=3)
    found = contribution(network_of(model), module_dataset, split, samples=2)
    assert all(gain.difference.estimate.mean == 0 for gain in found.gains)
    assert found.spread == 0 and found.spread_and_rank is None and found.same_items == 1
    assert found.coverage_of_one == found.coverage_of_all and found.hits_of_all.p == 1


def test_the_mean_and_the_spread_of_samples(trained: ADRecModel, module_dataset: Dataset) -> None:
    network = network_of(trained)
    ends = np.array(module_dataset.offsets[1:4]) - 1
    batch = history_batch(module_dataset.items, np.array(module_dataset.offsets[:3]), ends, network.config.max_length)
    scorer = SampleMean(network, range(5, 8), 4)
    scores = scorer(batch)
    samples = [
        network.predict(batch, HistoryNoise(batch, network.config.hidden_size, seed, torch.device("cpu")), 4)
        for seed in (5, 6, 7)
    ]
    mean = sum(samples) / 3
    torch.testing.assert_close(scores.query, mean)
    for user in range(3):
        away = [float((each[user] - mean[user]).square().sum()) for each in samples]
        assert scorer.spread[user] == pytest.approx(np.sqrt(np.mean(away)) / float(mean[user].norm()), rel=1e-4)


def test_the_notes_begin_with_what_helps() -> None:
    def noted(*gains: tuple[str, float, float]) -> str:
        pairs = [Gain(part, 0.2, 0.1, Difference(Estimate(mean, -1, 1), p, 500)) for part, mean, p in gains]
        none = Difference(Estimate(0.0, -0.1, 0.1), 1.0, 500)
        return contribution_notes(Contribution("ndcg@20", 2, tuple(pairs), 0.1, None, 0.5, 0.5, 0.5, none))[0]

    assert noted(("32 steps over one", 0.001, 0.9), ("seeing x_t and t", 0.0, 1.0)) == (
        "None of these changes the ranking of these 500 users, beyond chance."
    )
    both = [("32 steps over one", -0.01, 0.01), ("seeing x_t and t", 0.01, 0.001), ("over none", 0.5, 0.06)]
    assert noted(both[1], both[2]) == "Helps the ranking: seeing x_t and t."
    assert noted(both[0]) == "Hurts the ranking: 32 steps over one."


def test_lists_take_from_samples_in_turn() -> None:
    tops = np.array([[[1, 2, 3]], [[1, 4, 5]], [[6, 1, 2]]])
    assert _in_turn(tops).tolist() == [[1, 6, 2]]


@pytest.mark.slow
def test_as_a_command(trained: ADRecModel, module_dataset: Dataset, tmp_path: Path) -> None:
    denoising = {**SMALL, "model.ablation": True, "model.ablation.decoder": "adaptive", "align": False}
    denoising = {key: value for key, value in denoising.items() if not key.startswith("align.")}
    denoising["finetune.start"] = "embedding"
    ADRec("paper", denoising, seed=3).fit(module_dataset).save(tmp_path / "run")
    ADRec("paper", {**denoising, "noise_weight": 0.0}, seed=3).fit(module_dataset).save(tmp_path / "none")
    done = adrec(
        *("diagnose", "run", "--diffusion", "--against", "none", "--samples", "2", "--json", "c.json"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "seeing x_t and t" in done.stdout and "Spread of 2 samples" in done.stdout
    gains = json.loads((tmp_path / "c.json").read_text())["gains"]
    assert [gain["part"] for gain in gains][-1] == "over none"
    ADRec(model="popular").fit(module_dataset).save(tmp_path / "popular")
    assert "popular is of popular" in refused("diagnose", "popular", "--diffusion", cwd=tmp_path)
    small = {"hidden_size": 16, "num_heads": 2, "max_length": 8, "finetune.epochs": 1}
    ADRec("default", small, seed=3).fit(module_dataset).save(tmp_path / "default")
    assert adrec("diagnose", "default", "--diffusion", "--samples", "2", cwd=tmp_path).returncode == 0
    ADRec("cam", small, seed=3).fit(module_dataset).save(tmp_path / "without")
    assert "without has no denoiser" in refused("diagnose", "without", "--diffusion", cwd=tmp_path)
    assert "goes with --against" in refused("diagnose", "run", "--diffusion", "--out", "x", cwd=tmp_path)
