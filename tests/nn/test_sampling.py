"""Samplers: the deterministic one follows its noise down; steps and sampler are settings of inference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from adrec.api.model import ADRec
from adrec.config.adrec import Config
from adrec.data.dataset import Dataset
from adrec.models.adrec import ADRecModel
from adrec.models.network import NetworkScorer
from adrec.nn.base import make_network
from adrec.nn.diffusion import Schedule, sample
from adrec.nn.pretraining import PretrainingNetwork
from adrec.utils.errors import ConfigError
from conftest import paper_network


@pytest.mark.parametrize("num_steps", [1, 2, 7, 32])
def test_ddim_follows_the_straight_way_from_its_noise_to_x0(num_steps: int, device: torch.device) -> None:
    """Where x0 is known, each x is ``sqrt(abar) x0 + sqrt(1 - abar) eps`` with one and the same eps."""
    schedule = Schedule.create("cosine", 32).respaced(num_steps)
    x0 = torch.randn(3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device)
    start = torch.randn(3, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(device)
    seen: list[torch.Tensor] = []

    def denoise(x: torch.Tensor, t: int) -> torch.Tensor:
        seen.append(x)
        return x0

    def noise(step: int) -> torch.Tensor:
        assert step == num_steps, "only the start is random"
        return start

    torch.testing.assert_close(sample(denoise, schedule, noise, sampler="ddim"), x0)
    last = schedule.alpha_bars[-1]
    eps = (start - np.sqrt(last) * x0) / np.sqrt(1 - last)
    for x, alpha_bar in zip(seen, schedule.alpha_bars[::-1], strict=True):
        torch.testing.assert_close(x, np.sqrt(alpha_bar) * x0 + np.sqrt(1 - alpha_bar) * eps)


def test_ancestral_steps_have_the_posterior_mean_and_the_forward_variance(device: torch.device) -> None:
    schedule = Schedule.create("cosine", 4)
    x0, seen = torch.tensor([[2.0]], dtype=torch.float64, device=device), []

    def denoise(x: torch.Tensor, t: int) -> torch.Tensor:
        seen.append((t, float(x)))
        return x0

    noise = {4: 0.3, 3: -1.0, 2: 0.5, 1: 2.0}
    result = sample(denoise, schedule, lambda i: torch.full_like(x0, noise[i]))
    assert [t for t, _ in seen] == [3, 2, 1, 0]
    alpha_bars = np.cumprod(1 - schedule.betas)
    x = noise[4]
    for i in (3, 2, 1):
        before, beta = alpha_bars[i - 1], schedule.betas[i]
        mean = (np.sqrt(before) * beta * 2.0 + np.sqrt(1 - beta) * (1 - before) * x) / (1 - alpha_bars[i])
        x = mean + np.sqrt(beta) * noise[i]
        assert seen[4 - i][1] == pytest.approx(x)
    assert float(result) == pytest.approx(2.0)


def test_one_step_is_the_first_prediction_of_either_sampler(
    tiny: Callable[..., Config], dataset: Dataset, tmp_path: Path, device: torch.device
) -> None:
    changes, where = tiny((1, 1, 1), noise_weight=1.0).to_dict()["model"], str(device)
    model = ADRec(changes=changes, max_epochs=1, device=where).fit(dataset)
    model.save(tmp_path / "model")
    histories = [["item 1", "item 2"], ["item 7"]]
    scores = {}
    for sampler in ("ancestral", "ddim"):
        for steps in (1, 3):
            loaded = ADRec.load(tmp_path / "model", num_inference_steps=steps, sampler=sampler, device=where)
            scores[sampler, steps] = loaded.recommend(histories=histories, k=5)["score"].to_list()
    assert scores["ancestral", 1] == scores["ddim", 1]
    assert len({tuple(each) for each in scores.values()}) == 3
    loaded.save(tmp_path / "again")
    assert ADRec.load(tmp_path / "again").config.model.num_inference_steps == 3
    with pytest.raises(ConfigError, match="between 1 and num_train_timesteps = 4; it is 9"):
        ADRec.load(tmp_path / "model", num_inference_steps=9)


def test_stage_1_alone_takes_no_steps(tiny: Callable[..., Config]) -> None:
    network = make_network(PretrainingNetwork, tiny().model, 5)
    model = ADRecModel(tiny())
    model.adopt(network, 1)
    model.with_inference(None, None)
    assert model.network is network
    with pytest.raises(ConfigError, match="no diffusion"):
        model.with_inference(2, None)


def test_bidirectional_attention_says_that_it_cannot_keep_its_history(tiny: Callable[..., Config]) -> None:
    network = paper_network(tiny(causal=False).model, 5)
    with pytest.warns(UserWarning, match="each of 4 denoising steps decodes whole histories"):
        NetworkScorer(network)
    for quiet in (
        paper_network(tiny(causal=False, num_inference_steps=1).model, 5),
        paper_network(tiny(causal=False, decoder="mlp").model, 5),
        paper_network(tiny().model, 5),
    ):
        NetworkScorer(quiet)
