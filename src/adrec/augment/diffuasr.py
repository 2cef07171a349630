"""DiffuASR (Liu et al. 2023, arXiv 2309.12858): a diffusion model generates earlier interactions of a user.

M pseudo items are generated before each training sequence, which lengthens short ones. The generator is trained on
sequences that are long enough: their first M items are the target, and the items after those are the guide.

An item's x0 is the direction of its embedding, of length sqrt(D). Rounding to an item depends only on directions, and
the unit noise then has the size of the signal. The embedding comes from a previously trained recommender and is frozen
(the published code offers both). If the error of the noise trained it, that error would be least with all items alike.

Differences from the authors' code:

- the U-Net predicts ``v = sqrt(abar_t) eps - sqrt(1 - abar_t) x0`` (Salimans and Ho 2022, arXiv 2202.00512), from which
  the noise follows: of the noisiest x_t the noise is almost known, and an error in it would grow a hundredfold in x0;
- the guide is also a channel of the image (see :mod:`adrec.augment.unet`);
- if a sequence is longer than the window, the M items are those just before the L guiding items, not the user's first;
- during sampling, an estimate of x0 is never longer than a true x0;
- there is no moving average of the weights;
- guidance by a classifier, the paper's other strategy, is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from adrec.augment.unet import SUNet
from adrec.config.augmentation import SUNetConfig
from adrec.data.batch import PackedBatch
from adrec.data.sequences import Sequences
from adrec.inference.scores import best_items
from adrec.nn.base import Noise, SequenceNetwork
from adrec.nn.diffusion import ForwardProcess, Schedule, sample, unit
from adrec.nn.losses import Objective
from adrec.nn.noise import HistoryNoise
from adrec.nn.scores import InnerProducts

AT_ONCE = 256  # sequences whose prefixes are generated together


@dataclass(frozen=True)
class GenerationNoise:
    """The random numbers of one training step.

    Attributes:
        t: timesteps, int64 [B].
        eps: unit noise, [B, M, D].
    """

    t: Tensor
    eps: Tensor

    def select(self, users: Tensor, tokens: Tensor) -> GenerationNoise:
        """Return the draws of some ``users`` [b] of the batch."""
        return GenerationNoise(self.t[users], self.eps[users])


class DiffuASRNetwork(SequenceNetwork):
    """Generates the M items before a sequence, guided by the sequence.

    Every sequence of a training batch holds M + 2 interactions or more, including its last target.
    """

    config: SUNetConfig
    uses_noise = True

    def __init__(self, config: SUNetConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.schedule = Schedule.create(config.noise_schedule, config.num_train_timesteps)
        self.forward_process = ForwardProcess(self.schedule)
        self.unet = SUNet(
            config.num_items, config.hidden_size, config.num_train_timesteps, config.channels, config.dropout
        )

    def initialize(self, rng: Generator) -> None:
        """Draw the U-Net's weights as PyTorch does, the embedding from N(0, 1)."""
        nn.init.normal_(self.item_embedding.weight, generator=rng)
        self.unet.initialize(rng)

    def draw(self, batch: PackedBatch, rng: Generator) -> GenerationNoise:
        """Draw a timestep for each sequence, and the noise of its first items."""
        shape, device = (batch.num_users, self.config.num_items, self.config.hidden_size), batch.items.device
        t = torch.randint(self.config.num_train_timesteps, shape[:1], generator=rng, device=device)
        return GenerationNoise(t, torch.randn(shape, generator=rng, device=device))

    def directions(self, items: Tensor) -> Tensor:
        """Return the x0 of item numbers: the direction of the embedding with a mean square of 1, [.., D]."""
        return unit(self.item_embedding(items)) * math.sqrt(self.config.hidden_size)

    def guide(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return the sum of the x0 of each sequence's ``items``, ``lengths`` of them: [n], [B] -> [B, D]."""
        sums = self.item_embedding.weight.new_zeros(len(lengths), self.config.hidden_size)
        users = torch.repeat_interleave(lengths, output_size=len(items))  # [n]
        return sums.index_add_(0, users, self.directions(items))

    def forward(
        self, batch: PackedBatch, draws: GenerationNoise | None = None, rng: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict the noise of each sequence's first M items: return the predicted and true noise, [B, M, D] each."""
        assert draws is not None, "DiffuASR needs noise and timesteps"
        starts, lengths = batch.cu_seqlens[:-1], batch.cu_seqlens.diff()
        positions = torch.arange(self.config.num_items, device=starts.device)
        x0 = self.directions(batch.items[starts[:, None] + positions])  # [B, M, D]
        behind = torch.arange(len(batch.items), device=starts.device) - starts.repeat_interleave(lengths)  # [N]
        following = batch.targets[behind >= self.config.num_items - 1]  # targets are one position ahead of items
        guide = self.guide(following, lengths - self.config.num_items + 1)  # [B, D]
        x_t = self.forward_process(x0.flatten(1), draws.t, draws.eps.flatten(1)).view_as(x0)  # [B, M, D]
        signal, noise = (
            each[draws.t, None, None] for each in (self.forward_process.signal, self.forward_process.noise)
        )
        return signal * self.unet(x_t, draws.t, guide, rng) + noise * x_t, draws.eps

    def losses(
        self, outputs: tuple[Tensor, Tensor], batch: PackedBatch, draws: GenerationNoise, objective: Objective
    ) -> dict[str, Tensor]:
        """Return the squared error of the noise (DDPM eq. 14), the mean over M, D and sequences."""
        predicted, eps = outputs
        return {"mse": (predicted - eps).square().mean((1, 2)).sum() / objective.num_users}

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Generate the M item vectors before each history by DDIM without noise, [B, M, D].

        Args:
            batch: histories of at most L items.
            noise: ``noise(S)``, [B, M, D], is the initial sample.
            num_steps: S; ``num_inference_steps`` by default.
        """
        assert noise is not None, "denoising starts from noise"
        shape = batch.num_users, self.config.num_items, self.config.hidden_size
        guide = self.guide(batch.items, batch.cu_seqlens.diff())
        process, longest = self.forward_process, math.sqrt(self.config.hidden_size)

        def denoise(x: Tensor, t: int) -> Tensor:
            v = self.unet(x, guide.new_full(shape[:1], t, dtype=torch.int64), guide)  # [B, M, D]
            x0 = process.signal[t] * x - process.noise[t] * v
            return x0 * (longest / x0.norm(dim=-1, keepdim=True)).clamp(max=1)

        chain = self.schedule.respaced(num_steps or self.config.num_inference_steps)
        return sample(denoise, chain, lambda step: noise(step).reshape(shape), sampler="ddim")

    def rounded(self, vectors: Tensor) -> Tensor:
        """Return the number of the item with the highest cosine to each vector, [.., D] -> int64 [..], on the CPU."""
        query = InnerProducts(vectors.flatten(0, -2), unit(self.item_embedding.weight.detach()))
        return best_items(query, 1, self.num_items)[0].view(vectors.shape[:-1])

    def prefixes(self, histories: Sequences, seed: int) -> Tensor:
        """Return the M items generated before each history, int64 [U, M], on the CPU.

        The items depend only on the history's last L items and the ``seed``.
        """
        device, size = self.item_embedding.weight.device, self.config.num_items * self.config.hidden_size
        found = torch.zeros(len(histories), self.config.num_items, dtype=torch.int64)
        for first in range(0, len(histories), AT_ONCE):
            users = np.arange(first, min(first + AT_ONCE, len(histories)))
            batch = histories.history_batch(users)
            noise = HistoryNoise(batch, size, seed, device)
            found[users] = self.rounded(self.predict(batch.to(device), noise))
        return found
