"""DiffuRec (Li, Sun and Li 2023, arXiv 2304.00686): items as distributions, made from the noisy target.

The noisy target enters every item of the history, a transformer turns them into the clean target, and cross-entropy
over the catalogue trains it. Equations are the paper's.

The paper trains every prefix of a sequence as an example. Prefixes share no computation here, so ``prefixes`` of each
user's are drawn anew in each epoch: with 4, a step of 128 users has the published 512 examples, and an epoch costs 2
rows for each token of the data (all prefixes: 5 on Baby, 7 on Beauty, 21 on ML-100k). Differences from the authors'
code: padding is not attended to, and the blocks normalise behind the residual sum, as ADRec's do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Generator, Tensor, nn

from adrec.baselines.prefixes import PrefixConfig, PrefixDraws, draw_prefixes, prefixes_of
from adrec.config import Sampler, ScheduleName
from adrec.data.batch import PackedBatch
from adrec.models import NetworkModel
from adrec.nn.decoders import TimeEmbedding
from adrec.nn.diffusion import ForwardProcess, Schedule, sample
from adrec.nn.dropout import dropout
from adrec.nn.layers import Blocks
from adrec.nn.layout import Layout
from adrec.nn.losses import Objective, cross_entropy
from adrec.nn.sequence import Noise, SequenceNetwork, last_tokens
from adrec.settings import TransformerConfig, check_steps
from adrec.strict import require


@dataclass(frozen=True)
class DiffuRecConfig(TransformerConfig):
    """The network (section 4) with the published hyper-parameters (section 5.1.4).

    Attributes:
        num_train_timesteps: T.
        num_inference_steps: denoising steps at inference, at most T; each runs the transformer on whole histories.
        sampler: as of ADRec: ``ancestral`` (the paper) or ``ddim``.
        noise_schedule: the name of the schedule of ``beta``.
        noise_weight: delta, the mean and the standard deviation of lambda, the noisy target's weight beside an item.
        prefixes: how many prefixes of a sequence, each with its own target, are drawn in an epoch.
    """

    num_blocks: int = 4
    num_train_timesteps: int = 32
    num_inference_steps: int = 32
    sampler: Sampler = "ancestral"
    noise_schedule: ScheduleName = "trunc_lin"
    noise_weight: float = 0.001
    prefixes: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.num_train_timesteps, self.num_inference_steps)
        require(self.noise_weight >= 0, f"model.noise_weight must not be negative; it is {self.noise_weight}.")
        require(self.prefixes >= 1, f"model.prefixes must be at least 1; it is {self.prefixes}.")


@dataclass(frozen=True)
class Config(PrefixConfig):
    """DiffuRec's configuration.

    Attributes:
        model: the network.
    """

    model: DiffuRecConfig = field(default_factory=DiffuRecConfig)


@dataclass(frozen=True)
class Draws(PrefixDraws):
    """The random numbers of one training step.

    Attributes:
        scale: unit noise of lambda, for each token of the batch and each of K prefixes, [N, K, D].
    """

    scale: Tensor

    def select(self, users: Tensor, tokens: Tensor) -> Draws:
        """Return the draws of some ``users`` [b] of the batch, whose tokens are ``tokens`` [n]."""
        return Draws(**vars(super().select(users, tokens)), scale=self.scale[tokens])


class DiffuRecNetwork(SequenceNetwork):
    """The approximator ``f(x_s, d_s, z)``."""

    config: DiffuRecConfig
    causal = False
    uses_noise = True

    def __init__(self, config: DiffuRecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        size = config.hidden_size
        self.schedule = Schedule.create(config.noise_schedule, config.num_train_timesteps)
        self.forward_process = ForwardProcess(self.schedule, geodesic=False)
        self.time_embedding = TimeEmbedding(config.num_train_timesteps, size)
        self.input_norm = nn.LayerNorm(size, eps=1e-12)
        self.blocks = Blocks(config.num_blocks, size, config.num_heads, config.dropout)
        self.output_norm = nn.LayerNorm(size, eps=1e-12)

    def initialize(self, rng: Generator) -> None:
        """Draw the initial weights as ADRec's: the embedding N(0, 1), blocks Xavier normal, MLPs as PyTorch does."""
        nn.init.normal_(self.item_embedding.weight, generator=rng)
        self.time_embedding.initialize(rng)
        self.blocks.initialize(rng)
        self.input_norm.reset_parameters()
        self.output_norm.reset_parameters()

    def draw(self, batch: PackedBatch, rng: Generator) -> Draws:
        """Draw prefixes, the timesteps and noise of their targets, and lambda."""
        config = self.config
        drawn = draw_prefixes(batch, config.prefixes, config.num_train_timesteps, config.hidden_size, rng)
        shape = len(batch.items), drawn.prefixes.shape[1], config.hidden_size
        return Draws(**vars(drawn), scale=torch.randn(shape, generator=rng, device=batch.items.device))

    def forward(
        self, batch: PackedBatch, draws: Draws | None = None, rng: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict each prefix's clean target from its noisy one: return ``x0_hat`` [P, D] and the targets [P]."""
        assert draws is not None, "DiffuRec needs prefixes, noise and timesteps"
        examples, tokens, columns = prefixes_of(batch, draws.prefixes)
        targets = last_tokens(examples.targets, examples)  # [P]
        t, eps = draws.of_prefixes()
        x_t = self.forward_process(self.item_embedding(targets), t, eps)  # [P, D]; eq. 14
        users = torch.repeat_interleave(torch.from_numpy(examples.lengths).to(tokens.device))  # [M]
        noisy = (x_t + self.time_embedding()[t])[users]  # [M, D]
        h = self.history(examples, rng)
        outputs = self.approximate(h, noisy, draws.scale[tokens, columns], self.plan(examples), rng)
        return last_tokens(outputs, examples), targets

    def history(self, batch: PackedBatch, rng: Generator | None = None) -> Tensor:
        """Return ``LayerNorm(Dropout(E[s]))`` of every token, [N, D]; there are no positions."""
        return self.input_norm(dropout(self.item_embedding(batch.items), self.config.embedding_dropout, rng))

    def approximate(
        self, h: Tensor, noisy: Tensor, scale: Tensor, plan: Layout, rng: Generator | None = None
    ) -> Tensor:
        """Return the transformer's output of ``z_i = e_i + lambda_i (x_s + d_s)`` (eq. 9), [N, D].

        ``h`` are the items, ``noisy`` is ``x_s + d_s`` and ``scale`` the unit noise of lambda, each [N, D].
        """
        z = h + self.config.noise_weight * (1 + scale) * noisy  # [N, D]
        return self.output_norm(dropout(self.blocks(z, plan, rng), self.config.dropout, rng))

    def losses(
        self, outputs: tuple[Tensor, Tensor], batch: PackedBatch, draws: Draws, objective: Objective
    ) -> dict[str, Tensor]:
        """Return the cross-entropy over the catalogue (eq. 15), the mean over prefixes."""
        x0_hat, targets = outputs
        number = objective.draws.number
        query, items = objective.query(x0_hat), self.item_embedding.weight
        return {"ce": cross_entropy(query, items, targets, padding_class=False, num_tokens=number)}

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Denoise each history's next item from pure noise (algorithm 2): return its x0, [B, D].

        ``noise(S)`` is the start, ``noise(i)`` what step i adds. The lambda of the history's p-th last item is made of
        ``noise(S + p)``: drawn once and kept through the steps.
        """
        assert noise is not None, "denoising starts from noise"
        steps = num_steps or self.config.num_inference_steps
        plan, h = self.plan(batch, inference=True), self.history(batch)
        temb = self.time_embedding()  # [T, D]
        users = torch.repeat_interleave(torch.from_numpy(batch.lengths).to(h.device))  # [N]
        from_end = batch.cu_seqlens[1:][users] - torch.arange(len(users), device=h.device)  # [N], 1 for the last
        by_place = [noise(steps + place) for place in range(int(batch.lengths.max()), 0, -1)]  # the farthest first
        scale = torch.stack(by_place)[-from_end, users]  # [N, D]

        def denoise(x: Tensor, t: int) -> Tensor:
            return last_tokens(self.approximate(h, (x + temb[t])[users], scale, plan), batch)

        return sample(denoise, self.schedule.respaced(steps), noise, False, self.config.sampler)


class DiffuRec(NetworkModel):
    """DiffuRec: a sequence's items take in the noisy target."""

    name = "diffurec"
    paper = "Li, Sun and Li: DiffuRec: A Diffusion Model for Sequential Recommendation (TOIS 2023)"
    Config = Config
    networks = MappingProxyType({"network": DiffuRecNetwork})
