"""Denoising the last token of each user and nothing else (paper, inference)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.nn.blocks import Blocks
from adrec.nn.decoders import AdaptiveDecoder, MLPDecoder
from adrec.nn.kernels.attention import Cache

if TYPE_CHECKING:
    from adrec.nn.adrec import ADRecNetwork


class LastTokenDenoiser:
    """Predicts ``x0_hat`` of each user's last token; what depends on the history alone is computed once.

    With causal attention the history's keys and values in ADM are the same at every step, so a step costs one
    token per user. With bidirectional attention they depend on the last token: every step decodes all rows.

    Attributes:
        users: the users of the batch in the order in which they are denoised, int64 [B].
    """

    def __init__(self, network: ADRecNetwork, batch: PackedBatch) -> None:
        self.network, self.plan = network, network.plan(batch, inference=True)
        self.users = self.plan.users
        self.last = self.plan.last_rows[self.users]
        self.temb = network.time_embedding()  # [T, D]
        condition = network.condition(batch, self.plan)  # [rows, D]
        # Guidance needs a second pass, without condition.
        conditions = [condition, torch.zeros_like(condition)] if network.guided else [condition]
        self.conditions = [c[self.last] for c in conditions]  # [B, D] each
        self.inputs: list[Tensor] = []
        self.caches: list[list[Cache]] = []
        if isinstance(network.adm, Blocks):
            zeros = torch.zeros_like(batch.items)
            history = network.noisy_input(network.clean_targets(batch.targets), zeros, zeros.new_zeros(()), self.plan)
            self.inputs = [c + history for c in conditions]  # [rows, D] each
            if network.causal:
                self.caches = [network.adm.fill(z, self.plan) for z in self.inputs]

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Return ``x0_hat`` [B, D] of ``x`` [B, D] at timestep ``t``, both in the order of :attr:`users`."""
        weight = 0.0 if self.network.blind else self.network.config.noise_weight
        noisy, time = weight * x, weight * self.temb[t]  # [B, D], [D]
        outputs = [self._decode(branch, noisy, time) for branch in range(len(self.conditions))]
        if len(outputs) == 1:
            return outputs[0]
        conditional, unconditional = outputs
        return unconditional + self.network.config.guidance_scale * (conditional - unconditional)

    def _decode(self, branch: int, noisy: Tensor, time: Tensor) -> Tensor:
        adm, c = self.network.adm, self.conditions[branch]
        if isinstance(adm, AdaptiveDecoder):
            return adm(noisy, time, c)
        z = c + noisy + time  # [B, D]
        if isinstance(adm, MLPDecoder):
            return adm(z)
        if self.caches:
            return adm.step(z, self.plan, self.caches[branch])
        return adm(self.inputs[branch].index_copy(0, self.last, z), self.plan)[self.last]
