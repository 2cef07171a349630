"""DiffuRec (Li, Sun and Li 2023, arXiv 2304.00686): items as distributions, made from the noisy target.

The noisy target is added to every item of the history, and a transformer predicts the clean target. It is trained with
cross-entropy over the catalogue. Equation numbers are the paper's.

The paper trains every prefix of a sequence as an example. Prefixes share no computation in this model, so ``prefixes``
of each user's prefixes are drawn in each epoch. With 4, a step of 128 users has the published 512 examples, and an
epoch costs 2 rows for each token of the data (all prefixes: 5 on Baby, 7 on Beauty, 21 on ML-100k).

There are no positions. The last item is distinguished only because its row is the output, after pre-norm blocks whose
residual sum carries it. The length of a history shows in the padding, to which items attend in the authors' code.

Differences from that code (github.com/WHUIR/DiffuRec), besides the sampled prefixes:

- the padding of a sequence is one sink (:mod:`adrec.nn.kernels.layout`) with one lambda; theirs has one lambda for each
  padding position;
- at inference lambda is drawn once, not at every step;
- timesteps are drawn uniformly, not by their losses;
- padding is not a class of the softmax;
- the learning rate falls by a cosine over 500 epochs, not by a factor of 10 every 100;
- only NDCG@20 selects and stops, not any of six metrics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Generator, Tensor, nn

from adrec.config.diffusion import Sampler, ScheduleName
from adrec.config.parsing import require
from adrec.config.stage import StageConfig, TransformerConfig, check_steps
from adrec.data.batch import PackedBatch
from adrec.models.baselines.blocks import DiffuRecBlock, initialize_block
from adrec.models.baselines.prefixes import PrefixConfig, PrefixDraws, draw_prefixes, prefixes_of
from adrec.models.network import NetworkModel
from adrec.nn.base import Noise, SequenceNetwork, last_tokens
from adrec.nn.diffusion import ForwardProcess, Schedule, sample
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.kernels.dropout import dropout
from adrec.nn.kernels.layout import Layout
from adrec.nn.losses import Objective
from adrec.nn.time import TimeEmbedding

TRAIN = StageConfig(weight_decay=0.0, first_evaluation=20, evaluate_every=20, patience=5)


@dataclass(frozen=True)
class DiffuRecConfig(TransformerConfig):
    """The network (section 4) with the published hyper-parameters (section 5.1.4).

    Attributes:
        num_train_timesteps: T, the number of diffusion timesteps.
        num_inference_steps: denoising steps at inference, at most T; each runs the transformer on whole histories.
        sampler: ``ancestral`` (the paper) or ``ddim``, as in ADRec.
        noise_schedule: the name of the schedule of ``beta``.
        noise_weight: delta, the mean and the standard deviation of lambda, the noisy target's weight in each item.
        prefixes: the number of prefixes of a sequence, each with its own target, drawn per epoch.
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
        train: the stage, with the validation interval and patience of the authors' code.
    """

    model: DiffuRecConfig = field(default_factory=DiffuRecConfig)
    train: StageConfig = TRAIN


@dataclass(frozen=True)
class DiffuRecNoise(PrefixDraws):
    """The random numbers of one training step.

    Attributes:
        scale: unit noise of lambda, for each token of the batch and each of K prefixes, [N, K, D].
        sink_scale: the same for the padding of each user's prefixes, [B, K, D]: one lambda for all padding of a prefix.
    """

    scale: Tensor
    sink_scale: Tensor

    def select(self, users: Tensor, tokens: Tensor) -> DiffuRecNoise:
        """Return the draws of some ``users`` [b] of the batch, whose tokens are ``tokens`` [n]."""
        own = vars(super().select(users, tokens))
        return DiffuRecNoise(**own, scale=self.scale[tokens], sink_scale=self.sink_scale[users])

    def of_rows(self, tokens: Tensor, columns: Tensor) -> Tensor:
        """Return the noise of lambda of the rows of the prefixes [rows, D]: their tokens, then their sinks."""
        return torch.cat([self.scale[tokens, columns], self.sink_scale[self.chosen]])


class DiffuRecNetwork(SequenceNetwork):
    """The approximator ``f(x_s, d_s, z)``."""

    config: DiffuRecConfig
    causal = False
    attends_padding = True
    uses_noise = True

    def __init__(self, config: DiffuRecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        size = config.hidden_size
        self.schedule = Schedule.create(config.noise_schedule, config.num_train_timesteps)
        self.forward_process = ForwardProcess(self.schedule)
        self.time_embedding = TimeEmbedding(config.num_train_timesteps, size)
        self.input_norm = nn.LayerNorm(size, eps=1e-12)
        self.blocks = nn.ModuleList(
            DiffuRecBlock(size, config.num_heads, config.dropout) for _ in range(config.num_blocks)
        )
        self.output_norm = nn.LayerNorm(size, eps=1e-12)

    def initialize(self, rng: Generator) -> None:
        """Draw the initial weights as ADRec's: the embedding N(0, 1), blocks Xavier normal, MLPs as PyTorch does."""
        nn.init.normal_(self.item_embedding.weight, generator=rng)
        self.time_embedding.initialize(rng)
        for block in self.blocks:
            initialize_block(block, rng)
        self.input_norm.reset_parameters()
        self.output_norm.reset_parameters()

    def draw(self, batch: PackedBatch, rng: Generator) -> DiffuRecNoise:
        """Draw prefixes, the timesteps and noise of their targets, and lambda."""
        config = self.config
        drawn = draw_prefixes(batch, config.prefixes, config.num_train_timesteps, config.hidden_size, rng)
        device, columns = batch.items.device, (drawn.prefixes.shape[1], config.hidden_size)
        scale = torch.randn(len(batch.items), *columns, generator=rng, device=device)
        sink_scale = torch.randn(batch.num_users, *columns, generator=rng, device=device)
        return DiffuRecNoise(**vars(drawn), scale=scale, sink_scale=sink_scale)

    def forward(
        self, batch: PackedBatch, draws: DiffuRecNoise | None = None, rng: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict each prefix's clean target from its noisy one: return ``x0_hat`` [P, D] and the targets [P]."""
        assert draws is not None, "DiffuRec needs prefixes, noise and timesteps"
        examples, tokens, columns = prefixes_of(batch, draws.prefixes)
        targets = last_tokens(examples.targets, examples)  # [P]
        t, eps = draws.of_prefixes()
        x_t = self.forward_process(self.item_embedding(targets), t, eps)  # [P, D]; eq. 14
        plan = self.plan(examples)
        h = self.history(examples, plan, rng)
        outputs = self.approximate(h, x_t + self.time_embedding()[t], draws.of_rows(tokens, columns), plan, rng)
        return outputs, targets

    def history(self, batch: PackedBatch, plan: Layout, rng: Generator | None = None) -> Tensor:
        """Return ``LayerNorm(Dropout(E[s]))`` of every token and sink, [rows, D]; there are no positions."""
        items = plan.with_sinks(batch.items, batch.items.new_zeros(()))
        return self.input_norm(dropout(self.item_embedding(items), self.config.embedding_dropout, rng))

    def approximate(
        self, h: Tensor, noisy: Tensor, scale: Tensor, plan: Layout, rng: Generator | None = None
    ) -> Tensor:
        """Return the transformer's output of ``z_i = e_i + lambda_i (x_s + d_s)`` (eq. 9) for each last item, [B, D].

        ``h`` are the items [rows, D], ``noisy`` is ``x_s + d_s`` [B, D] and ``scale`` the unit noise of lambda
        [rows, D].
        """
        z = h + self.config.noise_weight * (1 + scale) * noisy[plan.row_users]  # [rows, D]
        *before, last = self.blocks
        for block in before:
            z = block(z, plan, rng)
        z = last(z, plan, rng, rows=plan.last_rows)  # [B, D]
        return self.output_norm(dropout(z, self.config.dropout, rng))

    def losses(
        self, outputs: tuple[Tensor, Tensor], batch: PackedBatch, draws: DiffuRecNoise, objective: Objective
    ) -> dict[str, Tensor]:
        """Return the cross-entropy over the catalogue (eq. 15), the mean over prefixes."""
        x0_hat, targets = outputs
        number = objective.draws.number
        query, items = objective.query(x0_hat), self.item_embedding.weight
        return {"ce": cross_entropy(query, items, targets, padding_class=False, total=number)}

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Denoise each history's next item from pure noise (algorithm 2): return its x0, [B, D].

        ``noise(S)`` is the initial sample, ``noise(i)`` the noise added at step i. The lambda of the history's p-th
        last item is computed from ``noise(S + p)``, and that of its padding from ``noise(S + L + 1)``; both are the
        same at all steps.
        """
        assert noise is not None, "denoising starts from noise"
        steps = num_steps or self.config.num_inference_steps
        plan = self.plan(batch, inference=True)
        h, temb = self.history(batch, plan), self.time_embedding()  # [rows, D], [T, D]
        scale = self._lambda_noise(batch, plan, lambda position: noise(steps + position))

        def denoise(x: Tensor, t: int) -> Tensor:
            return self.approximate(h, x + temb[t], scale, plan)

        return sample(denoise, self.schedule.respaced(steps), noise, sampler=self.config.sampler)

    def _lambda_noise(self, batch: PackedBatch, plan: Layout, noise: Noise) -> Tensor:
        """Return for every row the ``noise`` of its position from the history's end, 1 for the last, [rows, D]."""
        users = plan.row_users[: plan.num_tokens]
        from_end = batch.cu_seqlens[1:][users] - torch.arange(len(users), device=users.device)  # [N], 1 for the last
        of_sinks = noise(self.config.max_length + 1)  # steps are requested in descending order
        by_place = [noise(position) for position in range(int(batch.lengths.max()), 0, -1)]  # the farthest first
        return torch.cat([torch.stack(by_place)[-from_end, users], of_sinks])


class DiffuRec(NetworkModel):
    """DiffuRec: the noisy target is added to the items of the sequence."""

    name = "diffurec"
    paper = "Li, Sun and Li: DiffuRec: A Diffusion Model for Sequential Recommendation (TOIS 2023)"
    Config = Config
    networks = MappingProxyType({"network": DiffuRecNetwork})
