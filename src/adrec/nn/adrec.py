"""The network of ADRec (paper, section 4): CAM, ADM, token-level noise, the two losses, last-token denoising.

Shapes: N tokens of B users in a packed batch, D the hidden size, V items, T diffusion timesteps. ``rows`` are the
tokens followed by the padding sinks (:mod:`adrec.nn.kernels.layout`). Variants of the paper's model are in
:mod:`adrec.nn.ablation`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from adrec.config.adrec import ModelConfig
from adrec.data.batch import PackedBatch
from adrec.nn.base import Noise
from adrec.nn.blocks import Blocks, last_outputs
from adrec.nn.denoising import LastTokenDenoiser
from adrec.nn.diffusion import ForwardProcess, Schedule, sample
from adrec.nn.kernels.dropout import dropout
from adrec.nn.kernels.layout import Layout
from adrec.nn.kernels.rotary import rotations, row_positions
from adrec.nn.losses import Objective, squared_error
from adrec.nn.padded import PaddedNetwork
from adrec.nn.positions import Positions
from adrec.nn.time import TimeEmbedding


class Prediction(NamedTuple):
    """The outputs of a training step.

    Attributes:
        c: the conditions, [N, D].
        x0_hat: the denoised targets, [N, D]; None without diffusion.
        x0: the targets, [N, D]; None without diffusion.
    """

    c: Tensor
    x0_hat: Tensor | None = None
    x0: Tensor | None = None


@dataclass(frozen=True)
class TokenNoise:
    """The timesteps and the noise of a training step.

    Attributes:
        t: an independent timestep for each token, int64 [N].
        eps: unit noise, [N, D].
    """

    t: Tensor
    eps: Tensor

    def select(self, users: Tensor, tokens: Tensor) -> TokenNoise:
        """Return the noise of some ``tokens`` [n] of the batch."""
        return TokenNoise(self.t[tokens], self.eps[tokens])


class ADRecNetwork(PaddedNetwork):
    """The causal attention module (CAM) and, with diffusion, the auto-regressive diffusion module (ADM)."""

    config: ModelConfig
    adm: Any  # Blocks; another decoder in an ablation

    def __init__(self, config: ModelConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        size, diffusion = config.hidden_size, config.diffusion
        if diffusion is not None:
            self.schedule = Schedule.create(diffusion.noise_schedule, diffusion.num_train_timesteps)
            self.forward_process = self.make_forward_process(self.schedule)
        self.positions = Positions(config.max_length, size) if config.positions == "learned" else None
        self.history_norm = nn.LayerNorm(size, eps=1e-12)
        self.cam = Blocks.of(config)
        if diffusion is not None:
            self.time_embedding = TimeEmbedding(diffusion.num_train_timesteps, size)
            self.adm = self.make_adm()
            self.noise_weight = diffusion.noise_weight  # lambda

    def make_forward_process(self, schedule: Schedule) -> ForwardProcess:
        """Return q(x_t given x0)."""
        return ForwardProcess(schedule)

    def make_adm(self) -> Any:
        """Return ADM: transformer blocks like CAM's."""
        assert self.config.diffusion is not None
        return Blocks.of(self.config, self.config.diffusion.adm_blocks)

    def initialize(self, rng: Generator) -> None:
        """Draw the initial weights: the embedding N(0, std), blocks Xavier normal, MLPs as PyTorch does."""
        nn.init.normal_(self.item_embedding.weight, std=self.config.embedding_std, generator=rng)
        if self.positions is not None:
            self.positions.initialize(rng)
        self.history_norm.reset_parameters()
        self.cam.initialize(rng)
        if self.denoises:
            self.time_embedding.initialize(rng)
            self.adm.initialize(rng)

    @property
    def denoises(self) -> bool:
        """Whether the network has a denoiser."""
        return self.config.diffusion is not None

    @property
    def uses_noise(self) -> bool:  # type: ignore[override]
        """Whether inference denoises."""
        return self.config.ranks_by_sample

    def draw(self, batch: PackedBatch, rng: Generator) -> TokenNoise | None:
        """Draw a training step's timesteps, ``t ~ U{0..T-1}`` for every token, and noise (section 4.2)."""
        if not self.denoises:
            return None
        num_tokens, device = len(batch.items), self.item_embedding.weight.device
        t = torch.randint(self.config.num_train_timesteps, (num_tokens,), generator=rng, device=device)
        return TokenNoise(t, torch.randn(num_tokens, self.config.hidden_size, generator=rng, device=device))

    def plan(self, batch: PackedBatch, *, inference: bool = False) -> Layout:
        """Return the attention layout of ``batch``, with each row's rotation if positions are rotary."""
        plan = super().plan(batch, inference=inference)
        if self.config.positions != "rotary":
            return plan
        head_size = self.config.hidden_size // self.config.num_heads
        return replace(plan, rotation=rotations(row_positions(plan), head_size))

    def history(self, batch: PackedBatch, plan: Layout, rng: Generator | None = None) -> Tensor:
        """Return ``h = LayerNorm(Dropout(E[s]))`` of every row, [rows, D]."""
        h, p = self.embed(batch, plan), self.config.embedding_dropout
        if self.positions is not None:
            h = h + plan.with_sinks(self.positions(batch), h.new_zeros(()))
        if self.config.drops_normalized:
            return dropout(self.history_norm(h), p, rng)
        return self.history_norm(dropout(h, p, rng))

    def condition(self, batch: PackedBatch, plan: Layout, rng: Generator | None = None) -> Tensor:
        """Return ``c = CAM(h)`` of every row, [rows, D]."""
        return self.cam(self.history(batch, plan, rng), plan, rng)

    def clean_targets(self, items: Tensor) -> Tensor:
        """Return ``x0 = E[items]``, [.., D]."""
        return self.item_embedding(items)

    def noisy_input(self, x_t: Tensor, t: Tensor, plan: Layout, sink_t: Tensor | None = None) -> Tensor:
        """Return ``lambda (x_t + temb(t))`` of every row, [rows, D].

        The input of a sink is the clean padding row at t = 0 (or at ``sink_t``, [] or [B]).
        """
        zero = t.new_zeros(())
        x_rows = plan.with_sinks(x_t, self.clean_targets(zero))  # [rows, D]
        t_rows = plan.with_sinks(t, zero if sink_t is None else sink_t)  # [rows]
        return self.noise_weight * (x_rows + self.time_embedding()[t_rows])

    def forward(self, batch: PackedBatch, draws: TokenNoise | None = None, rng: Generator | None = None) -> Prediction:
        """Predict the clean targets from noisy ones: ``x0_hat = ADM(c + lambda (x_t + temb(t)))``."""
        plan = self.plan(batch)
        c = self.condition(batch, plan, rng)  # [rows, D]
        if not self.denoises:
            return Prediction(c[: plan.num_tokens])
        assert draws is not None, "a denoiser needs noise and timesteps"
        x0 = self.clean_targets(batch.targets)  # [N, D]
        x_t = self.forward_process(x0, draws.t, draws.eps)  # [N, D]
        z = c + self.noisy_input(x_t, draws.t, plan)  # [rows, D]
        x0_hat = self.adm(z, plan, rng)[: plan.num_tokens]  # [N, D]
        return Prediction(c[: plan.num_tokens], x0_hat, x0)

    def losses(self, outputs: Prediction, batch: PackedBatch, draws: object, objective: Objective) -> dict[str, Tensor]:
        """Return the cross-entropy of the ranking vectors and the squared error, each if weighted (section 4.4).

        Without diffusion the cross-entropy is the only loss.
        """
        losses, weights = {}, objective.weights if self.denoises else {}
        if "ce" in (weights or ("ce",)):
            query = outputs.x0_hat if self.config.ranks_by_sample else outputs.c
            assert query is not None
            losses["ce"] = self.item_cross_entropy(query, batch, objective)
        if "mse" in weights:
            assert outputs.x0_hat is not None and outputs.x0 is not None
            mean_weight = objective.total_weight / objective.num_tokens
            error = squared_error(outputs.x0_hat, outputs.x0, batch, objective.num_users, mean_weight)
            losses["mse"] = weights["mse"] * error
        return losses

    def denoiser(self, batch: PackedBatch) -> LastTokenDenoiser:
        """Return the denoiser of the last token of each user of ``batch``."""
        return LastTokenDenoiser(self, batch)

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Denoise only the last token of each user (paper, inference): return its x0, [B, D].

        If the condition ranks, return the condition; no noise is used.

        Args:
            batch: histories; their targets are the true next items, clean, at t = 0.
            noise: ``noise(S)`` is the initial sample, ``noise(i)`` the noise added at step i, [B, D] each.
            num_steps: S, the number of denoising steps; ``num_inference_steps`` by default.
        """
        diffusion = self.config.diffusion
        if diffusion is None or not self.config.ranks_by_sample:
            return self.last_conditions(batch)
        assert noise is not None, "denoising starts from noise"
        denoise = self.denoiser(batch)
        chain = self.schedule.respaced(num_steps or diffusion.num_inference_steps)
        x = self.sample(denoise, chain, lambda i: noise(i)[denoise.users])  # [B, D]
        return torch.empty_like(x).index_copy_(0, denoise.users, x)

    def sample(self, denoise: LastTokenDenoiser, chain: Schedule, noise: Noise) -> Tensor:
        """Run the reverse process from pure noise, [B, D]."""
        assert self.config.diffusion is not None
        return sample(denoise, chain, noise, sampler=self.config.diffusion.sampler)

    def last_conditions(self, batch: PackedBatch) -> Tensor:
        """Return the condition of each user's last token, [B, D]."""
        plan = self.plan(batch, inference=True)
        return last_outputs(self.cam, self.history(batch, plan), plan)
