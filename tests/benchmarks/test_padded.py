"""The reference of the benchmarks computes what our network computes: the ratios compare like with like."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adrec.data.batch import history_batch, training_batch
from adrec.nn.adrec import ADRecNetwork, TokenNoise
from adrec.train.step import Step
from benchmarks.padded import PaddedADRec, PaddedBatch
from conftest import paper_model, paper_network

NUM_ITEMS, MAX_LENGTH = 30, 9


@pytest.fixture(params=["attention", "mlp"])
def network(request: pytest.FixtureRequest) -> ADRecNetwork:
    sizes = {"hidden_size": 16, "max_length": MAX_LENGTH, "num_train_timesteps": 4, "noise_weight": 0.5}
    made = paper_network(paper_model(**sizes, padding_class=True, decoder=request.param), NUM_ITEMS)
    made.initialize(torch.Generator().manual_seed(1))
    return made


def sequences() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    ends = np.cumsum(rng.integers(2, MAX_LENGTH + 4, size=20))
    return rng.integers(1, NUM_ITEMS + 1, size=ends[-1]).astype(np.int32), np.concatenate([[0], ends[:-1]]), ends


def test_training(network: ADRecNetwork) -> None:
    batch = training_batch(*sequences(), MAX_LENGTH)
    draws: TokenNoise = network.draw(batch, torch.Generator().manual_seed(3))
    padded, reference = PaddedBatch.of(batch, MAX_LENGTH), PaddedADRec(network, dropout=False)
    step = Step({"ce": 1.0, "mse": 1.0}, pcgrad=False, embedding="train")
    losses = step.gradients(network, batch, draws)
    ours = {name: parameter.grad for name, parameter in network.named_parameters()}
    for mine, theirs in zip(losses.values(), reference.losses(padded, draws), strict=True):
        torch.testing.assert_close(mine, theirs.detach(), atol=1e-5, rtol=1e-5)
    reference.gradients(padded, draws)
    for name, parameter in network.named_parameters():
        gradient = ours[name]
        assert gradient is not None and parameter.grad is not None, name
        torch.testing.assert_close(gradient, parameter.grad, atol=2e-6, rtol=1e-4)


def test_inference(network: ADRecNetwork) -> None:
    batch = history_batch(*sequences(), MAX_LENGTH)
    rng = torch.Generator().manual_seed(4)
    noise = [torch.randn(batch.num_users, 16, generator=rng) for _ in range(5)]
    reference, padded = PaddedADRec(network, dropout=False), PaddedBatch.of(batch, MAX_LENGTH)
    for steps in (4, 2, 1):
        with torch.no_grad():
            ours = network.predict(batch, noise.__getitem__, steps)
        torch.testing.assert_close(ours, reference.predict(padded, noise.__getitem__, steps), atol=1e-5, rtol=1e-5)
