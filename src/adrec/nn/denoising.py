"""Denoising of only the last token of each user (paper, inference)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adrec.data.batch import PackedBatch

if TYPE_CHECKING:
    from adrec.nn.adrec import ADRecNetwork


class LastTokenDenoiser:
    """Predicts ``x0_hat`` of each user's last token; whatever depends only on the history is computed once.

    Attention is causal, so ADM's keys and values of the history are the same at every step. A step therefore computes
    one token per user against that cache.

    Attributes:
        users: the users of the batch in denoising order, int64 [B].
        noise_weight: lambda, for the last token.
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
