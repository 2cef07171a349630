"""Prediction of few histories at a time: the numbers of the packed batch, whatever the settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adrec.config.adrec import ModelConfig
from adrec.config.diffusion import DiffusionConfig
from adrec.data.batch import history_batch
from adrec.models.dense import DenseScorer, groups
from adrec.models.network import NetworkScorer
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import make_network
from adrec.nn.dense import Dense
from adrec.nn.noise import history_keys, keys_of

V, L = 40, 12
SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_heads": 2, "max_length": L,
    "diffusion": {"num_train_timesteps": 8, "num_inference_steps": 3, "adm_blocks": 2},
}  # fmt: skip


def network(**changes: Any) -> ADRecNetwork:
    keys = {**SMALL, **changes}
    diffusion = None if keys["diffusion"] is None else DiffusionConfig(**keys["diffusion"])
    made = make_network(ADRecNetwork, ModelConfig(**{**keys, "diffusion": diffusion}), V)
    rng = torch.Generator().manual_seed(1)
    made.initialize(rng)
    with torch.no_grad():  # so that nothing is zero or one
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))
    return made


def histories(number: int = 30) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.integers(1, V + 1, rng.integers(1, 2 * L)) for _ in range(number)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"positions": "none"},
        {"positions": "learned"},
        {"attend_padding": False},
        {"repeat_bias": False},
        {"repeat_projection": True},
        {"diffusion": None},
        {"diffusion": None, "positions": "learned", "num_blocks": 1},
        {"diffusion": {"num_train_timesteps": 8, "sampler": "ddim", "num_inference_steps": 8, "noise_weight": 0.5}},
    ],
)
def test_it_is_the_packed_prediction(changes: dict[str, Any]) -> None:
    made, some = network(**changes), histories()
    ends = np.cumsum([len(each) for each in some])
    batch = history_batch(np.concatenate(some), ends - [len(each) for each in some], ends, L)
    expected = NetworkScorer(made, seed=5)(batch).block(slice(0, V + 1))
    dense = DenseScorer(made, 5)
    scale = expected.abs().max()
    torch.testing.assert_close(dense(some) / scale, expected / scale, rtol=0, atol=5e-6)
    alone = torch.cat([dense([each]) for each in some])
    torch.testing.assert_close(alone / scale, expected / scale, rtol=0, atol=5e-6)


def test_only_adrec_without_ablations_is_supported() -> None:
    assert Dense.supports(network()) and not Dense.supports(torch.nn.Linear(2, 2))


def test_keys_are_those_of_packed_histories() -> None:
    some = [each[-L:] for each in histories()]
    lengths = np.array([len(each) for each in some])
    padded = np.zeros((len(some), L), dtype=np.int64)
    for row, each in zip(padded, some, strict=True):
        row[: len(each)] = each
    ends = np.cumsum(lengths)
    batch = history_batch(np.concatenate(some), ends - lengths, ends, L)
    for seed in (0, 7, 1 << 40):
        assert keys_of(padded, lengths, seed).tolist() == history_keys(batch, seed).tolist()


def testgroups_hold_every_history_once() -> None:
    lengths = [5, 200, 1, 6, 150, 5, 199, 2]
    found = list(groups(lengths))
    assert sorted(at for group in found for at in group) == list(range(len(lengths)))
    assert len(found) > 1 and all(sorted(group, key=lengths.__getitem__) == group for group in found)
