"""DiffRec (Du et al. 2023, arXiv 2304.04541): only the target is noised, and is appended to its clean history.

The noisy target is the last token of a bidirectional transformer, which predicts the clean target; a linear layer and
a softmax map that to an item. It is not Wang et al.'s "Diffusion Recommender Model", which has the same name.

There is no published code. The following choices are ours, where the available description leaves them open:

- the transition from an item to its representation, N(E(v), beta_0 I), is replaced by its mean (beta_0 = 0);
- the objective is the squared error of the predicted representation (the bound's terms, simplified as in DDPM) plus the
  cross-entropy of the item given the predicted representation, with equal weights; timesteps are drawn uniformly;
- T = 1000 with DDPM's linear schedule; ``num_starts`` = 4;
- positions count from the end, since the paper's sequences are padded to one length;
- prefixes of a sequence are sampled, as for DiffuRec (:mod:`adrec.models.baselines.prefixes`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from torch import Generator, Tensor, nn

from adrec.config.diffusion import Sampler, ScheduleName
from adrec.config.parsing import require
from adrec.config.stage import TransformerConfig, check_steps
from adrec.data.batch import PackedBatch
from adrec.models.baselines.prefixes import PrefixConfig, PrefixDraws, draw_prefixes, prefixes_of
from adrec.models.network import NetworkModel
from adrec.nn.base import Noise, SequenceNetwork, last_tokens
from adrec.nn.blocks import Blocks
from adrec.nn.diffusion import ForwardProcess, Schedule, sample
from adrec.nn.initialize import initialize_linear
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.kernels.dropout import dropout
from adrec.nn.kernels.layout import Layout, layout
from adrec.nn.losses import Objective
from adrec.nn.scores import InnerProducts, Scores


@dataclass(frozen=True)
class DiffRecConfig(TransformerConfig):
    """The network.

    Attributes:
        num_train_timesteps: T, the number of diffusion timesteps.
        num_inference_steps: denoising steps at inference, at most T; 1 is the paper's efficient inference.
        sampler: ``ancestral`` or ``ddim``, as in ADRec.
        noise_schedule: the name of the schedule of ``beta``.
        num_starts: the number of random starts whose predictions are averaged at inference (efficient inference).
        prefixes: the number of prefixes of a sequence, each with its own target, drawn per epoch.
    """

    num_train_timesteps: int = 1000
    num_inference_steps: int = 1
    sampler: Sampler = "ancestral"
    noise_schedule: ScheduleName = "linear"
    num_starts: int = 4
    prefixes: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.num_train_timesteps, self.num_inference_steps)
        for name in ("num_starts", "prefixes"):
            require(getattr(self, name) >= 1, f"model.{name} must be at least 1; it is {getattr(self, name)}.")


@dataclass(frozen=True)
class Config(PrefixConfig):
    """DiffRec's configuration.

    Attributes:
        model: the network.
    """

    model: DiffRecConfig = field(default_factory=DiffRecConfig)


@dataclass(frozen=True)
class RowsWithTargets:
    """Histories with a slot for the target appended to each: R = M + P rows of P sequences.

    Attributes:
        plan: the attention layout of the rows.
        order: for each row, its index in the histories' tokens [M] followed by the targets [P], int64 [R].
        from_end: for each row, the number of rows after it in its sequence, int64 [R].
    """

    plan: Layout
    order: Tensor
    from_end: Tensor

    @classmethod
    def of(cls, batch: PackedBatch, heads: int) -> RowsWithTargets:
        """Return the rows of the histories of ``batch``."""
        ends, device = batch.lengths.cumsum(), batch.items.device
        num_tokens, lengths = len(batch.items), batch.lengths + 1
        order = np.insert(np.arange(num_tokens), ends, num_tokens + np.arange(len(ends)))  # [R]
        from_end = np.repeat(lengths.cumsum(), lengths) - 1 - np.arange(len(order))  # [R]
        plan = layout(lengths, int(lengths.max()), heads=heads, sink=False, causal=False, device=device)
        return cls(plan, torch.from_numpy(order).to(device), torch.from_numpy(from_end).to(device))


def step_embeddings(num_timesteps: int, hidden_size: int) -> Tensor:
    """Return ``z_n``: interleaved sines and cosines of n over 10000^(2 j / D), [T, D]."""
    periods = 10_000 ** (torch.arange(0, hidden_size, 2) / hidden_size)  # [D / 2]
    angles = torch.arange(num_timesteps)[:, None] / periods  # [T, D / 2]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class DiffRecNetwork(SequenceNetwork):
    """The denoise sequential recommender."""

    config: DiffRecConfig
    causal = False
    uses_noise = True
    z: Tensor

    def __init__(self, config: DiffRecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        size = config.hidden_size
        self.schedule = Schedule.create(config.noise_schedule, config.num_train_timesteps)
        self.forward_process = ForwardProcess(self.schedule)
        self.register_buffer("z", step_embeddings(config.num_train_timesteps, size), persistent=False)
        self.positions = nn.Embedding(config.max_length + 1, size)
        self.blocks = Blocks(config.num_blocks, size, config.num_heads, config.dropout)
        self.rounding = nn.Linear(size, num_items + 1)

    def initialize(self, rng: Generator) -> None:
        """Draw the embedding from N(0, 1) (the noise's scale), positions N(0, 0.02), blocks Xavier normal."""
        nn.init.normal_(self.item_embedding.weight, generator=rng)
        nn.init.normal_(self.positions.weight, std=0.02, generator=rng)
        self.blocks.initialize(rng)
        initialize_linear(self.rounding, rng)

    def draw(self, batch: PackedBatch, rng: Generator) -> PrefixDraws:
        """Draw prefixes and the timesteps and noise of their targets."""
        config = self.config
        return draw_prefixes(batch, config.prefixes, config.num_train_timesteps, config.hidden_size, rng)

    def forward(
        self, batch: PackedBatch, draws: PrefixDraws | None = None, rng: Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict each prefix's clean target: return ``x0_hat`` and ``x0``, [P, D] each, and the targets [P]."""
        assert draws is not None, "DiffRec needs prefixes, noise and timesteps"
        examples, _, _ = prefixes_of(batch, draws.prefixes)
        targets = last_tokens(examples.targets, examples)  # [P]
        t, eps = draws.of_prefixes()
        x0 = self.item_embedding(targets)  # [P, D]
        x_t = self.forward_process(x0, t, eps)  # [P, D]
        rows = RowsWithTargets.of(examples, self.config.num_heads)
        return self.denoise(self.item_embedding(examples.items), x_t, self.z[t], rows, rng), x0, targets

    def denoise(self, h: Tensor, x: Tensor, z: Tensor, rows: RowsWithTargets, rng: Generator | None = None) -> Tensor:
        """Return ``TransformerEncoder([h_1 + y_1 + z_n, .., x_n + y_T + z_n])[-1]`` of each sequence, [P, D].

        ``h`` are the histories' items [M, D], ``x`` the noisy targets and ``z`` their step embeddings, [P, D] each.
        """
        sequence = torch.cat([h, x])[rows.order] + self.positions(rows.from_end) + z[rows.plan.row_users]  # [R, D]
        hidden = self.blocks(dropout(sequence, self.config.embedding_dropout, rng), rows.plan, rng)
        return hidden[rows.plan.last_rows]

    def losses(
        self, outputs: tuple[Tensor, Tensor, Tensor], batch: PackedBatch, draws: PrefixDraws, objective: Objective
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of the item and the squared error of its representation, means over prefixes."""
        x0_hat, x0, targets = outputs
        number = objective.draws.number
        query, classes = objective.query(with_ones(x0_hat)), self.classes()
        return {
            "ce": cross_entropy(query, classes, targets, padding_class=False, total=number),
            "mse": (x0_hat - x0).square().mean(-1).sum() / number,
        }

    def classes(self) -> Tensor:
        """Return ``[W, b]``, whose products with ``[h, 1]`` are the logits ``W h + b``, [V + 1, D + 1]."""
        return torch.cat([self.rounding.weight, self.rounding.bias[:, None]], dim=1)

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Denoise the item after each history: return the mean of x0 over the starts, [B, D].

        Start k uses ``noise(k S + S)`` as its initial sample; its step i adds ``noise(k S + i)``.
        """
        assert noise is not None, "denoising starts from noise"
        steps, starts = num_steps or self.config.num_inference_steps, self.config.num_starts
        h, rows = self.item_embedding(batch.items), RowsWithTargets.of(batch, self.config.num_heads)

        def denoise(x: Tensor, t: int) -> Tensor:
            return self.denoise(h, x, self.z[t].expand_as(x), rows)

        def start(k: int) -> Tensor:
            chain, sampler = self.schedule.respaced(steps), self.config.sampler
            return sample(denoise, chain, lambda i: noise(k * steps + i), sampler=sampler)

        return torch.stack([start(k) for k in reversed(range(starts))]).mean(0)

    def scored(self, query: Tensor, batch: PackedBatch) -> Scores:
        """Return the logits of the output of :meth:`predict`, [B, D]."""
        return InnerProducts(with_ones(query), self.classes().detach())


def with_ones(x: Tensor) -> Tensor:
    """Append a column of ones, [N, D] -> [N, D + 1]."""
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


class DiffRec(NetworkModel):
    """DiffRec: the noisy target is appended to its clean history."""

    name = "diffrec"
    paper = "Du, Yuan, Huang, Zhao and Zhou: Sequential Recommendation with Diffusion Models (arXiv 2304.04541, 2023)"
    Config = Config
    networks = MappingProxyType({"network": DiffRecNetwork})
