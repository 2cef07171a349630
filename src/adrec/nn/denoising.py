"""Denoising the last token of each user and nothing else (paper, inference)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adrec.data.batch import PackedBatch

if TYPE_CHECKING:
    from adrec.nn.adrec import ADRecNetwork


class LastTokenDenoiser:
    """Predicts ``x0_hat`` of each user's last token; what depends on the history alone is computed once.

    Attention is causal, so the history's keys and values in ADM are the same at every step: a step costs one token per
    user against that cache.

    Attributes:
        users: the users of the batch in the order in which they are denoised, int64 [B].
        noise_weight: lambda, of the last token.
    """

    def __init__(self, network: ADRecNetwork, batch: PackedBatch) -> None:
        self.adm, self.noise_weight = network.adm, network.noise_weight
        self.plan = plan = network.plan(batch, inference=True)
        self.users = plan.users
        self.temb = network.time_embedding()  # [T, D]
        c = network.condition(batch, plan)  # [rows, D]
        x0, t = network.clean_targets(batch.targets), torch.zeros_like(batch.items)  # clean, at t = 0
        self.cache = network.adm.fill(c + network.noisy_input(x0, t, plan), plan)
        self.c = c[plan.last_rows[self.users]]  # [B, D]

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Return ``x0_hat`` [B, D] of ``x`` [B, D] at timestep ``t``, both in the order of :attr:`users`."""
        z = self.c + self.noise_weight * x + self.noise_weight * self.temb[t]  # [B, D]
        return self.adm.step(z, self.plan, self.cache)
