"""ADRec's network with the settings of :class:`adrec.config.diffusion.AblationConfig`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from adrec.config.adrec import ModelConfig
from adrec.config.diffusion import AblationConfig
from adrec.data.batch import PackedBatch
from adrec.nn.ablation.decoders import AdaptiveDecoder, MLPDecoder
from adrec.nn.ablation.denoising import AblationDenoiser
from adrec.nn.ablation.geodesic import GeodesicForwardProcess
from adrec.nn.adrec import ADRecNetwork, Prediction, TokenNoise
from adrec.nn.base import Noise, last_tokens
from adrec.nn.blocks import Blocks
from adrec.nn.denoising import LastTokenDenoiser
from adrec.nn.diffusion import ForwardProcess, Schedule, sample, unit
from adrec.nn.kernels.layout import Layout


@dataclass(frozen=True)
class AblationNoise(TokenNoise):
    """The random numbers of a training step; ``t`` is [B] where a sequence has one timestep.

    Attributes:
        condition_kept: bool [B], whether each user keeps its condition; None keeps all (no guidance).
    """

    condition_kept: Tensor | None = None

    def select(self, users: Tensor, tokens: Tensor) -> AblationNoise:
        """Return the noise of some ``users`` [b] of the batch, whose tokens are ``tokens`` [n]."""
        t = self.t[tokens if len(self.t) == len(self.eps) else users]
        kept = None if self.condition_kept is None else self.condition_kept[users]
        return AblationNoise(t, self.eps[tokens], kept)


class AblationNetwork(ADRecNetwork):
    """ADRec's network with another decoder, other noise, other targets, guidance, or bidirectional attention."""

    def __init__(self, config: ModelConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.causal = self.ablation.causal

    @property
    def ablation(self) -> AblationConfig:
        """The ablation settings of the configuration."""
        assert self.config.ablation is not None
        return self.config.ablation

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is on."""
        return self.ablation.guidance_scale != 1

    @property
    def decodes_whole_histories(self) -> bool:
        """Whether each denoising step decodes all rows: a history's keys and values depend on its last token."""
        return not self.causal and isinstance(self.adm, Blocks)

    def make_forward_process(self, schedule: Schedule) -> ForwardProcess:
        """Return q(x_t given x0)."""
        return GeodesicForwardProcess(schedule) if self.ablation.geodesic else ForwardProcess(schedule)

    def make_adm(self) -> Any:
        """Return the decoder."""
        if self.ablation.decoder == "attention":
            return super().make_adm()
        if self.ablation.decoder == "mlp":
            return MLPDecoder(self.config.hidden_size)
        assert self.config.diffusion is not None
        return AdaptiveDecoder(self.config.hidden_size, self.config.diffusion.adm_blocks)

    def draw(self, batch: PackedBatch, rng: Generator) -> AblationNoise:
        """Draw the timesteps, the noise and the dropped conditions of a training step."""
        device = self.item_embedding.weight.device
        num_t = len(batch.items) if self.ablation.noise_level == "token" else batch.num_users
        t = torch.randint(self.config.num_train_timesteps, (num_t,), generator=rng, device=device)
        eps = torch.randn(len(batch.items), self.config.hidden_size, generator=rng, device=device)
        kept = None
        if self.guided:
            kept = torch.rand(batch.num_users, generator=rng, device=device) >= self.ablation.condition_dropout
        return AblationNoise(t, eps, kept)

    def clean_targets(self, items: Tensor) -> Tensor:
        """Return ``x0`` [.., D], without gradient; scaled to variance 1 or to length 1 if so configured."""
        x0 = self.item_embedding(items)
        if self.ablation.detached_targets or self.ablation.unit_targets:
            x0 = x0.detach()
        if self.ablation.unit_targets:
            x0 = x0 / self.item_embedding.weight[1:].detach().std()
        return unit(x0) if self.ablation.geodesic else x0

    def forward(self, batch: PackedBatch, draws: TokenNoise | None = None, rng: Generator | None = None) -> Prediction:
        """Predict the clean targets from noisy ones."""
        assert draws is not None, "a denoiser needs noise and timesteps"
        plan = self.plan(batch)
        c = self.condition(batch, plan, rng)  # [rows, D]
        kept = draws.condition_kept if isinstance(draws, AblationNoise) else None
        read = c if kept is None else c * kept[plan.row_users, None]
        x0 = self.clean_targets(batch.targets)  # [N, D]
        x_t, t, sink_t = self.noised(x0, draws, plan)
        return Prediction(c[: plan.num_tokens], self.decode(read, x_t, t, sink_t, plan, rng), x0)

    def noised(self, x0: Tensor, draws: TokenNoise, plan: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Return the noisy targets [N, D] and the timesteps of tokens [N] and of sinks ([] or [B])."""
        level, zero = self.ablation.noise_level, draws.t.new_zeros(())
        if level == "token":
            return self.forward_process(x0, draws.t, draws.eps), draws.t, zero
        t = draws.t[plan.row_users[: plan.num_tokens]]  # [N]
        x_t = self.forward_process(x0, t, draws.eps)  # [N, D]
        if level == "sequence":
            return x_t, t, draws.t
        last = torch.zeros_like(t, dtype=torch.bool).index_fill_(0, plan.last_rows, True)  # [N]
        return torch.where(last[:, None], x_t, x0), torch.where(last, t, zero), zero

    def decode(
        self, c: Tensor, x_t: Tensor, t: Tensor, sink_t: Tensor, plan: Layout, rng: Generator | None = None
    ) -> Tensor:
        """Return ``x0_hat`` of every token, [N, D], from every row's condition ``c``, [rows, D]."""
        if isinstance(self.adm, AdaptiveDecoder):
            weight = self.noise_weight
            return self.adm(weight * x_t, weight * self.time_embedding()[t], c[: plan.num_tokens])
        z = c + self.noisy_input(x_t, t, plan, sink_t)  # [rows, D]
        decoded = self.adm(z, plan, rng) if isinstance(self.adm, Blocks) else self.adm(z)
        return decoded[: plan.num_tokens]

    def denoiser(self, batch: PackedBatch) -> LastTokenDenoiser:
        """Return the denoiser of the last token of each user of ``batch``."""
        return AblationDenoiser(self, batch)

    def sample(self, denoise: LastTokenDenoiser, chain: Schedule, noise: Noise) -> Tensor:
        """Run the reverse process from pure noise, [B, D]; on the unit sphere if diffusion is geodesic."""
        if not self.ablation.geodesic:
            return super().sample(denoise, chain, noise)
        assert self.config.diffusion is not None
        return sample(denoise, chain, noise, sampler=self.config.diffusion.sampler, project=unit)

    def last_conditions(self, batch: PackedBatch) -> Tensor:
        """Return the condition of each user's last token, [B, D]."""
        if self.causal:
            return super().last_conditions(batch)
        return last_tokens(self.condition(batch, self.plan(batch, inference=True)), batch)


@contextmanager
def blinded(network: ADRecNetwork) -> Iterator[None]:
    """Make ``network`` denoise without the last token's x_t and t, to measure what they contribute."""
    make = network.denoiser

    def blind(batch: PackedBatch) -> LastTokenDenoiser:
        denoise = make(batch)
        denoise.noise_weight = 0.0
        return denoise

    network.denoiser = blind  # type: ignore[method-assign]
    try:
        yield
    finally:
        del network.denoiser


@contextmanager
def ranked_by_sample(network: ADRecNetwork) -> Iterator[None]:
    """Make ``network`` rank by its denoised sample, whatever its configured ranking."""
    config = network.config
    if config.ablation is not None:
        network.config = replace(config, ablation=replace(config.ablation, ranks_by="sample"))
    try:
        yield
    finally:
        network.config = config
