"""DreamRec (Yang et al. 2023, arXiv 2310.20453): generates the next item's embedding, guided by the history.

A transformer encodes the history as the guidance c. A denoiser predicts the clean embedding of the next item from the
noisy one, c and the timestep. The squared error is the only loss. There are no negatives, so nothing keeps the
embeddings apart: on small catalogues the published method is weak, and this implementation does not correct that.

The transformer is causal, as in the authors' code, so every token of a packed batch is a separate training example.
The defaults are those of the authors' run on YooChoose (schedule, T, w, rates), with our width and length.
Differences from their code: the blocks and the timestep's MLP are ADRec's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Generator, Tensor, nn

from adrec.config.base import OneStageConfig
from adrec.config.diffusion import Sampler, ScheduleName
from adrec.config.parsing import require
from adrec.config.stage import StageConfig, TransformerConfig, check_shares, check_steps
from adrec.data.batch import PackedBatch
from adrec.models.network import NetworkModel
from adrec.nn.base import Noise, SequenceNetwork, last_tokens
from adrec.nn.blocks import Blocks
from adrec.nn.diffusion import ForwardProcess, Schedule, sample
from adrec.nn.initialize import initialize_linear
from adrec.nn.kernels.dropout import dropout
from adrec.nn.losses import Objective
from adrec.nn.time import TimeEmbedding


@dataclass(frozen=True)
class DreamRecConfig(TransformerConfig):
    """The network.

    Attributes:
        num_train_timesteps: T, the number of diffusion timesteps.
        num_inference_steps: denoising steps at inference, at most T.
        sampler: ``ancestral`` (the paper, with the posterior's variance) or ``ddim``.
        noise_schedule: the name of the schedule of ``beta``.
        guidance_strength: w of classifier-free guidance at inference; 0 uses only the condition.
        condition_dropout: the share of examples trained without their condition.
    """

    num_blocks: int = 1
    num_heads: int = 1
    embedding_dropout: float = 0.1
    num_train_timesteps: int = 500
    num_inference_steps: int = 500
    sampler: Sampler = "ancestral"
    noise_schedule: ScheduleName = "exp"
    guidance_strength: float = 2.0
    condition_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "condition_dropout")
        check_steps(self.num_train_timesteps, self.num_inference_steps)
        strength = self.guidance_strength
        require(strength >= 0, f"model.guidance_strength must not be negative; it is {strength}.")


TRAIN = StageConfig(weight_decay=0.0, first_evaluation=10, evaluate_every=10, patience=10)


@dataclass(frozen=True)
class Config(OneStageConfig):
    """DreamRec's configuration.

    Attributes:
        model: the network.
        train: the stage.
    """

    batch_size: int = 256
    model: DreamRecConfig = field(default_factory=DreamRecConfig)
    train: StageConfig = TRAIN


@dataclass(frozen=True)
class DreamRecNoise:
    """The random numbers of one training step.

    Attributes:
        t: timesteps, int64 [N].
        eps: unit noise, [N, D].
        condition_kept: bool [N], whether each token keeps its condition.
    """

    t: Tensor
    eps: Tensor
    condition_kept: Tensor

    def select(self, users: Tensor, tokens: Tensor) -> DreamRecNoise:
        """Return the draws of some ``users`` [b] of the batch, whose tokens are ``tokens`` [n]."""
        return DreamRecNoise(self.t[tokens], self.eps[tokens], self.condition_kept[tokens])


class DreamRecNetwork(SequenceNetwork):
    """The history's encoder and the denoiser."""

    config: DreamRecConfig
    uses_noise = True

    def __init__(self, config: DreamRecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        size = config.hidden_size
        self.schedule = Schedule.create(config.noise_schedule, config.num_train_timesteps)
        self.forward_process = ForwardProcess(self.schedule)
        self.positions = nn.Embedding(config.max_length, size)
        self.input_norm = nn.LayerNorm(size)
        self.encoder = Blocks(config.num_blocks, size, config.num_heads, config.dropout)
        self.no_condition = nn.Parameter(torch.empty(size))  # the paper's dummy token
        self.time_embedding = TimeEmbedding(config.num_train_timesteps, size)
        self.denoiser = nn.Linear(3 * size, size)

    def initialize(self, rng: Generator) -> None:
        """Draw embeddings from N(0, 1), blocks Xavier normal, the denoiser as PyTorch does."""
        for embedding in (self.item_embedding.weight, self.positions.weight, self.no_condition):
            nn.init.normal_(embedding, generator=rng)
        self.input_norm.reset_parameters()
        self.encoder.initialize(rng)
        self.time_embedding.initialize(rng)
        initialize_linear(self.denoiser, rng)

    def draw(self, batch: PackedBatch, rng: Generator) -> DreamRecNoise:
        """Draw the timesteps, the noise and the dropped conditions of a training step."""
        num_tokens, device = len(batch.items), batch.items.device
        t = torch.randint(self.config.num_train_timesteps, (num_tokens,), generator=rng, device=device)
        eps = torch.randn(num_tokens, self.config.hidden_size, generator=rng, device=device)
        kept = torch.rand(num_tokens, generator=rng, device=device) >= self.config.condition_dropout
        return DreamRecNoise(t, eps, kept)

    def condition(self, batch: PackedBatch, rng: Generator | None = None, *, inference: bool = False) -> Tensor:
        """Return the guidance c of every token, [N, D]; positions count from a sequence's first item."""
        starts = batch.cu_seqlens[:-1].repeat_interleave(batch.cu_seqlens.diff())  # [N]
        places = torch.arange(len(batch.items), device=batch.items.device) - starts  # [N]
        h = self.item_embedding(batch.items) + self.positions(places)  # [N, D]
        h = self.input_norm(dropout(h, self.config.embedding_dropout, rng))
        return self.encoder(h, self.plan(batch, inference=inference), rng)

    def denoise(self, x: Tensor, c: Tensor, temb: Tensor) -> Tensor:
        """Return ``x0_hat = f(x_t, c, t)``, [N, D]: one linear layer, as in the authors' runs."""
        return self.denoiser(torch.cat([x, c, temb.expand_as(x)], dim=-1))

    def forward(
        self, batch: PackedBatch, draws: DreamRecNoise | None = None, rng: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict every token's clean target from its noisy one: return ``x0_hat`` and ``x0``, [N, D] each."""
        assert draws is not None, "DreamRec needs noise and timesteps"
        c = torch.where(draws.condition_kept[:, None], self.condition(batch, rng), self.no_condition)  # [N, D]
        x0 = self.item_embedding(batch.targets)  # [N, D]
        x_t = self.forward_process(x0, draws.t, draws.eps)  # [N, D]
        return self.denoise(x_t, c, self.time_embedding()[draws.t]), x0

    def losses(
        self, outputs: tuple[Tensor, Tensor], batch: PackedBatch, draws: DreamRecNoise, objective: Objective
    ) -> dict[str, Tensor]:
        """Return the squared error (section 3.2), the mean over D and over tokens; its gradient reaches x0 too."""
        x0_hat, x0 = outputs
        return {"mse": (x0_hat - x0).square().mean(-1).sum() / objective.num_tokens}

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Generate each history's next item (algorithm 2): return its embedding, [B, D].

        Guidance computes ``(1 + w) f(x, c, t) - w f(x, no condition, t)``. The denoiser is linear in its condition and
        the weights sum to 1, so this is ``f(x, (1 + w) c - w (no condition), t)``: one product per step, not two.
        """
        assert noise is not None, "denoising starts from noise"
        steps, w = num_steps or self.config.num_inference_steps, self.config.guidance_strength
        c = last_tokens(self.condition(batch, inference=True), batch)  # [B, D]
        c = (1 + w) * c - w * self.no_condition  # [B, D]
        temb = self.time_embedding()  # [T, D]
        chain, sampler = self.schedule.respaced(steps), self.config.sampler
        return sample(lambda x, t: self.denoise(x, c, temb[t]), chain, noise, sampler=sampler, variance="posterior")


class DreamRec(NetworkModel):
    """DreamRec: generates the next item's embedding."""

    name = "dreamrec"
    paper = (
        "Yang, Wu, Wang, Wang, Yuan and He: Generate What You Prefer: Reshaping Sequential Recommendation via Guided "
        "Diffusion (NeurIPS 2023)"
    )
    Config = Config
    networks = MappingProxyType({"network": DreamRecNetwork})
