"""Last-token denoising for every decoder, with guidance, and with bidirectional attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.nn.ablation.decoders import AdaptiveDecoder, MLPDecoder
from adrec.nn.blocks import Blocks
from adrec.nn.denoising import LastTokenDenoiser
from adrec.nn.kernels.attention import Cache

if TYPE_CHECKING:
    from adrec.nn.ablation.network import AblationNetwork


class AblationDenoiser(LastTokenDenoiser):
    """Predicts ``x0_hat`` of each user's last token.

    With bidirectional attention the history's keys and values depend on the last token, so every step decodes all rows.
    Guidance needs a second, unconditional pass.
    """

    def __init__(self, network: AblationNetwork, batch: PackedBatch) -> None:
        self.network, self.adm, self.noise_weight = network, network.adm, network.noise_weight
        self.plan = network.plan(batch, inference=True)
        self.users = self.plan.users
        self.last = self.plan.last_rows[self.users]
        self.temb = network.time_embedding()  # [T, D]
        condition = network.condition(batch, self.plan)  # [rows, D]
        conditions = [condition, torch.zeros_like(condition)] if network.guided else [condition]
        self.conditions = [c[self.last] for c in conditions]  # [B, D] each
        self.inputs: list[Tensor] = []
        self.caches: list[list[Cache]] = []
        if isinstance(network.adm, Blocks):
            x0, t = network.clean_targets(batch.targets), torch.zeros_like(batch.items)
            history = network.noisy_input(x0, t, self.plan)
            self.inputs = [c + history for c in conditions]  # [rows, D] each
            if network.causal:
                self.caches = [network.adm.fill(z, self.plan) for z in self.inputs]

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Return ``x0_hat`` [B, D] of ``x`` [B, D] at timestep ``t``, both in the order of :attr:`users`."""
        noisy, time = self.noise_weight * x, self.noise_weight * self.temb[t]  # [B, D], [D]
        outputs = [self._decode(branch, noisy, time) for branch in range(len(self.conditions))]
        if len(outputs) == 1:
            return outputs[0]
        conditional, unconditional = outputs
        return unconditional + self.network.ablation.guidance_scale * (conditional - unconditional)

    def _decode(self, branch: int, noisy: Tensor, time: Tensor) -> Tensor:
        adm, c = self.adm, self.conditions[branch]
        if isinstance(adm, AdaptiveDecoder):
            return adm(noisy, time, c)
        z = c + noisy + time  # [B, D]
        if isinstance(adm, MLPDecoder):
            return adm(z)
        assert isinstance(adm, Blocks)
        if self.caches:
            return adm.step(z, self.plan, self.caches[branch])
        return adm(self.inputs[branch].index_copy(0, self.last, z), self.plan)[self.last]
