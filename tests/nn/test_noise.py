"""Noise at inference is normal, and belongs to a history: batches do not matter."""

from __future__ import annotations

import numpy as np
import torch

from adrec.data.batch import history_batch
from adrec.nn.noise import HistoryNoise, history_keys

ITEMS = np.arange(1, 61, dtype=np.int32)


def noise(device: torch.device, starts: list[int], ends: list[int], seed: int = 1, step: int = 3) -> torch.Tensor:
    batch = history_batch(ITEMS, np.array(starts), np.array(ends), 50)
    return HistoryNoise(batch, 7, seed, device)(step)


def test_a_history_has_its_noise_in_any_batch(device: torch.device) -> None:
    together = noise(device, [0, 5, 9], [5, 9, 30])
    torch.testing.assert_close(together[1:2], noise(device, [5], [9]), rtol=0, atol=0)
    torch.testing.assert_close(noise(device, [9, 0], [30, 5]), together[[2, 0]], rtol=0, atol=0)


def test_other_histories_seeds_and_steps_have_other_noise(device: torch.device) -> None:
    one = noise(device, [0], [5])
    for other in (
        noise(device, [1], [5]),
        noise(device, [0], [6]),
        noise(device, [0], [5], seed=2),
        noise(device, [0], [5], step=2),
    ):
        assert not torch.equal(one, other)


def test_devices_differ_by_rounding_alone(device: torch.device) -> None:
    here = noise(torch.device("cpu"), [0, 5, 9], [5, 9, 30])
    torch.testing.assert_close(noise(device, [0, 5, 9], [5, 9, 30]).cpu(), here, rtol=1e-5, atol=1e-6)


def test_order_matters_to_the_key() -> None:
    forward = history_batch(np.array([1, 2, 3]), np.array([0]), np.array([3]), 50)
    backward = history_batch(np.array([3, 2, 1]), np.array([0]), np.array([3]), 50)
    assert history_keys(forward, 0) != history_keys(backward, 0)


def test_noise_is_standard_normal(device: torch.device) -> None:
    starts = np.arange(0, 20_000)
    items = np.random.default_rng(0).integers(1, 10_000, size=20_010)
    batch = history_batch(items, starts, starts + 4, 50)
    sample = HistoryNoise(batch, 16, 5, device)(1).double()
    assert abs(sample.mean()) < 0.01
    assert abs(sample.std() - 1) < 0.01
    assert abs((sample**4).mean() - 3) < 0.1
    correlations = torch.corrcoef(sample.T) - torch.eye(16, device=device)
    assert correlations.abs().max() < 0.03
