"""The embedding of diffusion timesteps."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import silu

from adrec.nn.initialize import initialize_linear


class TimeEmbedding(nn.Module):
    """``temb``: an MLP on sinusoids of 1000 t / T, computed once for all T timesteps."""

    sinusoids: Tensor

    def __init__(self, num_timesteps: int, hidden_size: int, max_period: float = 10_000.0) -> None:
        super().__init__()
        half = hidden_size // 2
        frequencies = torch.exp(-math.log(max_period) * torch.arange(half) / half)  # [D / 2]
        angles = torch.arange(num_timesteps)[:, None] * (1000.0 / num_timesteps) * frequencies  # [T, D / 2]
        self.register_buffer("sinusoids", torch.cat([angles.cos(), angles.sin()], dim=-1), persistent=False)
        self.expand = nn.Linear(hidden_size, 4 * hidden_size)
        self.contract = nn.Linear(4 * hidden_size, hidden_size)

    def initialize(self, rng: Generator) -> None:
        """Draw PyTorch's default weights."""
        initialize_linear(self.expand, rng)
        initialize_linear(self.contract, rng)

    def forward(self) -> Tensor:
        """Return the embedding of every timestep, [T, D]."""
        return self.contract(silu(self.expand(self.sinusoids)))
