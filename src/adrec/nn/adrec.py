"""The network of ADRec (paper, section 4), and all networks by name.

It obeys the contract of :mod:`adrec.nn.base`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn

from adrec.config.adrec import ModelConfig
from adrec.config.stage import NetworkConfig
from adrec.data.batch import PackedBatch
from adrec.nn.base import Noise, SequenceNetwork, last_tokens
from adrec.nn.blocks import Blocks, last_outputs
from adrec.nn.decoders import AdaptiveDecoder, MLPDecoder, TimeEmbedding
from adrec.nn.denoising import LastTokenDenoiser
from adrec.nn.diffusion import ForwardProcess, Schedule, sample, unit
from adrec.nn.kernels.dropout import dropout
from adrec.nn.kernels.layout import Layout
from adrec.nn.kernels.rotary import places, turns
from adrec.nn.losses import Objective, squared_error
from adrec.nn.padded import PaddedNetwork, SASRecNetwork, blocks_of
from adrec.nn.positions import Positions

AnyNetwork = TypeVar("AnyNetwork", bound=SequenceNetwork)


class Prediction(NamedTuple):
    """What a training step predicts.

    Attributes:
        c: the conditions, [N, D].
        x0_hat: the denoised targets, [N, D]; None where there is no denoiser.
        x0: the targets, [N, D]; None likewise.
    """

    c: Tensor
    x0_hat: Tensor | None = None
    x0: Tensor | None = None


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step.

    Attributes:
        t: timesteps, int64 [N], or [B] where a sequence has one.
        eps: unit noise, [N, D].
        condition_kept: which users keep their condition, bool [B]; None keeps all (no guidance).
    """

    t: Tensor
    eps: Tensor
    condition_kept: Tensor | None = None

    def select(self, users: Tensor, tokens: Tensor) -> Draws:
        """Return the draws of some ``users`` [b] of the batch, whose tokens are ``tokens`` [n]."""
        t = self.t[tokens if len(self.t) == len(self.eps) else users]
        return Draws(t, self.eps[tokens], None if self.condition_kept is None else self.condition_kept[users])


class ADRecNetwork(PaddedNetwork):
    """The causal attention module (CAM) and the auto-regressive diffusion module (ADM), where there is one.

    Attributes:
        blind: at inference, the last token's x_t and t are 0 whatever they are: a control, for what they contribute.
    """

    config: ModelConfig
    blind: bool = False

    def __init__(self, config: ModelConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.causal = config.causal
        size = config.hidden_size
        self.schedule = Schedule.create(config.noise_schedule, config.num_train_timesteps)
        self.forward_process = ForwardProcess(self.schedule, config.geodesic)
        self.positions = Positions(config.max_length, size) if config.positions == "learned" else None
        self.history_norm = nn.LayerNorm(size, eps=1e-12)
        self.cam = blocks_of(config)
        if config.decoder != "none":
            self.time_embedding = TimeEmbedding(config.num_train_timesteps, size)
            self.adm = _denoiser(config)

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
        """Whether there is a denoiser, trained by the squared error."""
        return self.config.decoder != "none"

    @property
    def uses_noise(self) -> bool:  # type: ignore[override]
        """Whether inference denoises."""
        return self.config.ranks_by == "sample"

    @property
    def keeps_history(self) -> bool:
        """Whether what ADM makes of a history is computed once for all denoising steps."""
        return self.causal or self.config.decoder != "attention"

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is on."""
        return self.config.guidance_scale != 1

    def draw(self, batch: PackedBatch, rng: Generator) -> Draws | None:
        """Draw the timesteps, the noise and the dropped conditions of a training step; nothing without a denoiser."""
        if not self.denoises:
            return None
        device = self.item_embedding.weight.device
        num_t = len(batch.items) if self.config.noise_level == "token" else batch.num_users
        t = torch.randint(self.config.num_train_timesteps, (num_t,), generator=rng, device=device)
        eps = torch.randn(len(batch.items), self.config.hidden_size, generator=rng, device=device)
        kept = None
        if self.guided:
            kept = torch.rand(batch.num_users, generator=rng, device=device) >= self.config.condition_dropout
        return Draws(t, eps, kept)

    def plan(self, batch: PackedBatch, *, inference: bool = False) -> Layout:
        """Return where each row of ``batch`` stands in attention, with its rotation where positions are rotary."""
        plan = super().plan(batch, inference=inference)
        if self.config.positions != "rotary":
            return plan
        head_size = self.config.hidden_size // self.config.num_heads
        return replace(plan, rotation=turns(places(plan), head_size))

    def clean_targets(self, items: Tensor) -> Tensor:
        """Return ``x0 = E[items]``: of length 1 where diffusion is geodesic, or of variance 1 where so configured."""
        x0 = self.item_embedding(items)
        if self.config.detached_targets or self.config.unit_targets:  # not to shrink to please the squared error
            x0 = x0.detach()
        if self.config.unit_targets:
            x0 = x0 / self.item_embedding.weight[1:].detach().std()
        return unit(x0) if self.config.geodesic else x0

    def condition(self, batch: PackedBatch, plan: Layout, rng: Generator | None = None) -> Tensor:
        """Return ``c = CAM(LayerNorm(Dropout(E[s])))`` of every row, [rows, D]."""
        return self.cam(self.history(batch, plan, rng), plan, rng)

    def history(self, batch: PackedBatch, plan: Layout, rng: Generator | None = None) -> Tensor:
        """Return ``LayerNorm(Dropout(E[s]))`` of every row, with learned positions where there are any, [rows, D]."""
        h, p = self.embed(batch, plan), self.config.embedding_dropout
        if self.positions is not None:
            h = h + plan.with_sinks(self.positions(batch), h.new_zeros(()))
        if self.config.drops_normalized:
            return dropout(self.history_norm(h), p, rng)
        return self.history_norm(dropout(h, p, rng))

    def decode(
        self, c: Tensor, x_t: Tensor, t: Tensor, sink_t: Tensor, plan: Layout, rng: Generator | None = None
    ) -> Tensor:
        """Return ``x0_hat`` of every token, [N, D], from every row's condition ``c``, [rows, D]."""
        if isinstance(self.adm, AdaptiveDecoder):
            weight = self.config.noise_weight
            return self.adm(weight * x_t, weight * self.time_embedding()[t], c[: plan.num_tokens])
        z = c + self.noisy_input(x_t, t, sink_t, plan)  # [rows, D]
        decoded = self.adm(z, plan, rng) if isinstance(self.adm, Blocks) else self.adm(z)
        return decoded[: plan.num_tokens]

    def forward(self, batch: PackedBatch, draws: Draws | None = None, rng: Generator | None = None) -> Prediction:
        """Predict the clean targets from noisy ones."""
        plan = self.plan(batch)
        c = self.condition(batch, plan, rng)  # [rows, D]
        if not self.denoises:
            return Prediction(c[: plan.num_tokens])
        assert draws is not None, "a denoiser needs noise and timesteps"
        read = c if draws.condition_kept is None else c * draws.condition_kept[plan.row_users, None]
        x0 = self.clean_targets(batch.targets)  # [N, D]
        x_t, t, sink_t = self.noised(x0, draws, plan)
        return Prediction(c[: plan.num_tokens], self.decode(read, x_t, t, sink_t, plan, rng), x0)

    def noised(self, x0: Tensor, draws: Draws, plan: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Return the noisy targets [N, D] and the timesteps of tokens [N] and of sinks ([] or [B])."""
        level, zero = self.config.noise_level, draws.t.new_zeros(())
        if level == "token":
            return self.forward_process(x0, draws.t, draws.eps), draws.t, zero
        t = draws.t[plan.row_users[: plan.num_tokens]]  # [N]
        x_t = self.forward_process(x0, t, draws.eps)  # [N, D]
        if level == "sequence":
            return x_t, t, draws.t
        last = torch.zeros_like(t, dtype=torch.bool).index_fill_(0, plan.last_rows, True)  # [N]
        return torch.where(last[:, None], x_t, x0), torch.where(last, t, zero), zero

    def losses(
        self, outputs: Prediction, batch: PackedBatch, draws: Draws | None, objective: Objective
    ) -> dict[str, Tensor]:
        """Return the cross-entropy and the squared error, each where it is weighted (paper, section 4.4)."""
        losses = {}
        if "ce" in (objective.weights or ("ce",)):
            query = outputs.c if self.config.ranks_by == "condition" else outputs.x0_hat
            assert query is not None
            losses["ce"] = self.item_cross_entropy(query, batch, objective)
        if "mse" in objective.weights:
            assert outputs.x0_hat is not None and outputs.x0 is not None
            error = squared_error(outputs.x0_hat, outputs.x0, batch, objective.num_users)
            losses["mse"] = objective.weights["mse"] * error
        return losses

    def noisy_input(self, x_t: Tensor, t: Tensor, sink_t: Tensor, plan: Layout) -> Tensor:
        """Return ``lambda (x_t + temb(t))`` of every row; a sink has the padding row, clean, [rows, D]."""
        padding = self.clean_targets(t.new_zeros(()))  # [D]
        x_rows = plan.with_sinks(x_t, padding)
        t_rows = plan.with_sinks(t, sink_t)
        return self.config.noise_weight * (x_rows + self.time_embedding()[t_rows])

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Denoise the last token of each user and nothing else (paper, inference): return its x0, [B, D].

        Where the condition ranks, it is returned as it is, without noise.

        Args:
            batch: histories; their targets are the true next items, clean, at t = 0.
            noise: ``noise(S)`` is the start, ``noise(i)`` what step i adds, [B, D] each.
            num_steps: S, the number of denoising steps, ``num_inference_steps`` by default.
        """
        if self.config.ranks_by == "condition":
            plan = self.plan(batch, inference=True)
            if not self.causal:
                return last_tokens(self.condition(batch, plan), batch)
            return last_outputs(self.cam, self.history(batch, plan), plan)
        assert noise is not None, "denoising starts from noise"
        steps = num_steps or self.config.num_inference_steps
        denoise = LastTokenDenoiser(self, batch)
        ordered = lambda i: noise(i)[denoise.users]  # noqa: E731 - [B, D]
        x = sample(denoise, self.schedule.respaced(steps), ordered, self.config.geodesic, self.config.sampler)
        return torch.empty_like(x).index_copy_(0, denoise.users, x)


def _denoiser(config: ModelConfig) -> Blocks | MLPDecoder | AdaptiveDecoder:
    if config.decoder == "attention":
        return blocks_of(config)
    if config.decoder == "mlp":
        return MLPDecoder(config.hidden_size)
    return AdaptiveDecoder(config.hidden_size, config.num_blocks)


NETWORKS: Mapping[str, type[SequenceNetwork]] = {"adrec": ADRecNetwork, "sasrec": SASRecNetwork}


def make_network(network: type[AnyNetwork], config: NetworkConfig, num_items: int) -> AnyNetwork:
    """Return a network of a class, with weights still to be drawn or loaded.

    PyTorch's layers draw weights from the global generator when they are made; it is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        return network(config, num_items)
