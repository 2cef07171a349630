"""Weight initialisation with an explicit generator."""

from __future__ import annotations

import math

import torch
from torch import Generator, nn


def initialize_linear(linear: nn.Linear, rng: Generator) -> None:
    """Draw a linear layer as PyTorch does: uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(linear.in_features)
    nn.init.uniform_(linear.weight, -bound, bound, generator=rng)
    initialize_bias(linear, rng)


def initialize_bias(linear: nn.Linear, rng: Generator) -> None:
    """Draw a bias as PyTorch does: uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(linear.in_features)
    nn.init.uniform_(linear.bias, -bound, bound, generator=rng)


@torch.no_grad()
def normal_linear_layers(network: nn.Module, std: float, rng: Generator) -> None:
    """Draw every linear layer and embedding from N(0, ``std``), biases 0; layer norms start as the identity."""
    for part in network.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std, generator=rng)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            part.reset_parameters()
