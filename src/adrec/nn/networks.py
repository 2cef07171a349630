"""The networks: ADRec (paper, section 4) and the SASRec that pre-trains its item embedding.

Both obey the contract of :mod:`adrec.nn.sequence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn

from adrec.components import NetworkConfig, PaddedConfig
from adrec.config import ModelConfig
from adrec.data.batch import PackedBatch
from adrec.nn.attention import Cache
from adrec.nn.consistency import consistent_cross_entropy
from adrec.nn.decoders import AdaptiveDecoder, MLPDecoder, TimeEmbedding
from adrec.nn.diffusion import ForwardProcess, Schedule, sample, unit
from adrec.nn.dropout import dropout
from adrec.nn.layers import Blocks
from adrec.nn.layout import Layout
from adrec.nn.losses import Objective, cross_entropy, squared_error
from adrec.nn.repeats import Repeats, met_by_histories
from adrec.nn.sequence import Noise, SequenceNetwork, last_tokens, normal_linear_layers
from adrec.scoring import Biased, Scores

AnyNetwork = TypeVar("AnyNetwork", bound=SequenceNetwork)
REPEAT_SCALE = 10.0


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
        t: timesteps, int64 [N], or [B] with noise per sequence.
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


class PaddedNetwork(SequenceNetwork):
    """What ADRec and its pre-training share: the published code's way with padding."""

    config: PaddedConfig

    def __init__(self, config: PaddedConfig, num_items: int) -> None:
        # As a class of the softmax the padding row is trained there alone, as in the published code: with padding_idx
        # it enters the input without gradient. Otherwise it is trained as what the sink starts from: with neither,
        # Adam's L2 term would shrink it until the input norm divides by almost nothing.
        super().__init__(config, num_items, padding_idx=0 if config.padding_class else None)
        self.attends_padding, self.ranks_padding = config.attend_padding, config.padding_class
        self.repeat_preference = nn.Parameter(torch.zeros(())) if config.repeat_bias else None

    @property
    def repeat_bias(self) -> Tensor | None:
        """What is added to the scores of the items of the history, a number; None where nothing is.

        It is a multiple of the parameter, so that steps of Adam's learning rate take it through several logits within
        an epoch or two.
        """
        return None if self.repeat_preference is None else REPEAT_SCALE * self.repeat_preference

    def with_sinks(self, tokens: Tensor, sinks: Tensor, plan: Layout) -> Tensor:
        """Append a row for each user's sink, [..] or [B, ..], to the ``tokens``, [N, ..]."""
        num_sinks = len(plan.row_users) - plan.num_tokens
        return torch.cat([tokens, sinks.expand(num_sinks, *tokens.shape[1:])]) if num_sinks else tokens

    def embed(self, batch: PackedBatch, plan: Layout) -> Tensor:
        """Return the embedded items of all rows, [rows, D]."""
        rows = self.with_sinks(batch.items, batch.items.new_zeros(()), plan)
        return self.item_embedding(rows)

    def scores(self, x: Tensor) -> Tensor:
        """Return the inner products of ``x`` [.., D] with every item, [.., V + 1]; column 0 is padding."""
        return x @ self.item_embedding.weight.T

    def full_cross_entropy(self, x: Tensor, batch: PackedBatch, objective: Objective) -> Tensor:
        """Return the cross-entropy of every token's output, [N, D]; of two passes, with how far they are apart."""
        loss = cross_entropy
        if objective.consistency:
            loss = partial(consistent_cross_entropy, alpha=objective.consistency)
        return loss(
            objective.query(x),
            self.item_embedding.weight,
            batch.targets,
            padding_class=self.config.padding_class,
            num_tokens=objective.num_tokens,
            repeat_bias=self.repeat_bias,
            repeats=Repeats.of_tokens(batch) if self.config.repeat_bias else None,
        )

    def scored(self, query: Tensor, batch: PackedBatch) -> Scores:
        """Return the products of the queries [B, D] with the item embedding, and the bias of repeats."""
        products, bias = super().scored(query, batch), self.repeat_bias
        if bias is None:
            return products
        return Biased(products, met_by_histories(batch), bias.detach())


class SASRecNetwork(PaddedNetwork):
    """Stage 1: SASRec (Kang and McAuley 2018) without positions, trained with full cross-entropy."""

    reads = frozenset(
        {
            *("hidden_size", "num_blocks", "num_heads", "max_length"),
            *("embedding_dropout", "dropout", "attend_padding", "padding_class", "repeat_bias"),
        }
    )

    def __init__(self, config: PaddedConfig, num_items: int) -> None:
        super().__init__(
            config, num_items
        )  # causal also where ADRec's control is not: it must not learn leaked targets
        self.norm = nn.LayerNorm(config.hidden_size)
        self.blocks = Blocks(config.num_blocks, config.hidden_size, config.num_heads, config.dropout)

    def initialize(self, rng: Generator) -> None:
        """Draw every linear layer and the embedding from N(0, 0.1), biases 0."""
        normal_linear_layers(self, 0.1, rng)

    def forward(self, batch: PackedBatch, draws: None = None, rng: Generator | None = None) -> Tensor:
        """Return the output of every token, [N, D]."""
        return self._outputs(batch, self.plan(batch), rng)

    def losses(self, outputs: Tensor, batch: PackedBatch, draws: None, objective: Objective) -> dict[str, Tensor]:
        """Return the full cross-entropy."""
        return {"ce": self.full_cross_entropy(outputs, batch, objective)}

    def _outputs(self, batch: PackedBatch, plan: Layout, rng: Generator | None) -> Tensor:
        h = dropout(self.norm(self.embed(batch, plan)), self.config.embedding_dropout, rng)
        return self.blocks(h, plan, rng)[: plan.num_tokens]

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Return each user's last output, [B, D]; nothing here is random."""
        return last_tokens(self._outputs(batch, self.plan(batch, inference=True), None), batch)


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
        self.history_norm = nn.LayerNorm(size, eps=1e-12)
        self.cam = Blocks(config.num_blocks, size, config.num_heads, config.dropout)
        if config.decoder != "none":
            self.time_embedding = TimeEmbedding(config.num_train_timesteps, size)
            self.adm = _denoiser(config)

    def initialize(self, rng: Generator) -> None:
        """Draw the initial weights: the embedding N(0, std), blocks Xavier normal, MLPs as PyTorch does."""
        nn.init.normal_(self.item_embedding.weight, std=self.config.embedding_std, generator=rng)
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

    def clean_targets(self, items: Tensor) -> Tensor:
        """Return ``x0 = E[items]``: of length 1 where diffusion is geodesic, or of variance 1 where so configured."""
        x0 = self.item_embedding(items)
        if self.config.unit_targets:  # they must not shrink to please the squared error, so it does not train them
            x0 = x0.detach() / self.item_embedding.weight[1:].detach().std()
        return unit(x0) if self.config.geodesic else x0

    def condition(self, batch: PackedBatch, plan: Layout, rng: Generator | None = None) -> Tensor:
        """Return ``c = CAM(LayerNorm(Dropout(E[s])))`` of every row, [rows, D]."""
        h, p = self.embed(batch, plan), self.config.embedding_dropout
        if self.config.drops_normalized:
            h = dropout(self.history_norm(h), p, rng)
        else:
            h = self.history_norm(dropout(h, p, rng))
        return self.cam(h, plan, rng)

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
        per_token = self.config.noise_level == "token"
        t = draws.t if per_token else draws.t[plan.row_users[: plan.num_tokens]]  # [N]
        x_t = self.forward_process(x0, t, draws.eps)  # [N, D]
        sink_t = draws.t.new_zeros(()) if per_token else draws.t
        return Prediction(c[: plan.num_tokens], self.decode(read, x_t, t, sink_t, plan, rng), x0)

    def losses(
        self, outputs: Prediction, batch: PackedBatch, draws: Draws | None, objective: Objective
    ) -> dict[str, Tensor]:
        """Return the cross-entropy and the squared error, each where it is weighted (paper, section 4.4)."""
        losses = {}
        if "ce" in (objective.weights or ("ce",)):
            query = outputs.c if self.config.ranks_by == "condition" else outputs.x0_hat
            assert query is not None
            losses["ce"] = self.full_cross_entropy(query, batch, objective)
        if "mse" in objective.weights:
            assert outputs.x0_hat is not None and outputs.x0 is not None
            error = squared_error(outputs.x0_hat, outputs.x0, batch, objective.num_users)
            losses["mse"] = objective.weights["mse"] * error
        return losses

    def noisy_input(self, x_t: Tensor, t: Tensor, sink_t: Tensor, plan: Layout) -> Tensor:
        """Return ``lambda (x_t + temb(t))`` of every row; a sink has the padding row, clean, [rows, D]."""
        padding = self.clean_targets(t.new_zeros(()))  # [D]
        x_rows = self.with_sinks(x_t, padding, plan)
        t_rows = self.with_sinks(t, sink_t, plan)
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
            return last_tokens(self.condition(batch, self.plan(batch, inference=True)), batch)
        assert noise is not None, "denoising starts from noise"
        steps = num_steps or self.config.num_inference_steps
        denoise = LastTokenDenoiser(self, batch)
        ordered = lambda i: noise(i)[denoise.users]  # noqa: E731 - [B, D]
        x = sample(denoise, self.schedule.respaced(steps), ordered, self.config.geodesic, self.config.sampler)
        return torch.empty_like(x).index_copy_(0, denoise.users, x)


def _denoiser(config: ModelConfig) -> Blocks | MLPDecoder | AdaptiveDecoder:
    if config.decoder == "attention":
        return Blocks(config.num_blocks, config.hidden_size, config.num_heads, config.dropout)
    if config.decoder == "mlp":
        return MLPDecoder(config.hidden_size)
    return AdaptiveDecoder(config.hidden_size, config.num_blocks)


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


NETWORKS: Mapping[str, type[SequenceNetwork]] = {"adrec": ADRecNetwork, "sasrec": SASRecNetwork}


def make_network(network: type[AnyNetwork], config: NetworkConfig, num_items: int) -> AnyNetwork:
    """Return a network of a class, with weights still to be drawn or loaded.

    PyTorch's layers draw weights from the global generator when they are made; it is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        return network(config, num_items)
