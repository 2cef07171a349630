"""The generalised binary cross-entropy against a slow oracle, token by token."""

from __future__ import annotations

import math

import pytest
import torch

from adrec.nn.kernels import gbce
from adrec.nn.kernels.gbce import calibration, generalised_bce


def oracle(
    x: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor, times: torch.Tensor, beta: float
) -> torch.Tensor:
    total = x.new_zeros(())
    for n in range(len(x)):
        total = total - beta * torch.log(torch.sigmoid(x[n] @ rows[targets[n]]))
        for row in range(len(rows)):
            if row != targets[n]:
                total = total - times[row] * torch.log(1 - torch.sigmoid(x[n] @ rows[row]))
    return total


@pytest.mark.parametrize("tokens", [1, 7])
def test_loss_and_gradients(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gbce, "TOKENS", 3)
    rng = torch.Generator().manual_seed(0)
    x, rows = torch.randn(tokens, 4, generator=rng), torch.randn(6, 4, generator=rng)
    targets, times = torch.randint(6, (tokens,), generator=rng), torch.tensor([0.0, 1, 0, 2, 1, 3])
    found, gradients = [], []
    for function in (generalised_bce, oracle):
        own = [each.clone().requires_grad_() for each in (x, rows)]
        loss = function(own[0], own[1], targets, times, 0.3)
        loss.backward()
        found.append(loss.detach())
        gradients.append([each.grad for each in own])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_calibration() -> None:
    assert calibration(9, 11, 0.0) == 1.0  # a binary cross-entropy
    assert math.isclose(calibration(10, 101, 1.0), 0.1)  # alpha: calibrated as the full softmax
    assert calibration(500, 101, 0.5) == 1.0
