"""Prefixes of packed sequences as separate training examples, for networks whose input contains the target.

If every token of the history sees the noisy target, two prefixes of a sequence share no computation. A sequence of n
items then costs n (n + 1) / 2 rows instead of n. Therefore only some prefixes of each sequence are drawn per step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from adrec.config.base import OneStageConfig
from adrec.config.stage import StageConfig
from adrec.data.batch import PackedBatch
from adrec.data.spans import Int64s, spans

TRAIN = StageConfig(weight_decay=0.0, first_evaluation=5, evaluate_every=5, patience=5)


@dataclass(frozen=True)
class PrefixConfig(OneStageConfig):
    """The configuration of a network trained on prefixes: 4 for each of 128 users give the published 512 examples.

    Attributes:
        train: the stage; validation is slow, so it is less frequent than for other models.
    """

    batch_size: int = 128
    max_tokens: int = 2048
    train: StageConfig = TRAIN


@dataclass(frozen=True)
class PrefixDraws:
    """The random numbers of one training step: prefixes, and the timesteps and noise of their targets.

    Attributes:
        prefixes: the lengths of K prefixes of each sequence, int64 [B, K], on the CPU; 0 for missing ones.
        t: timesteps, int64 [B, K].
        eps: unit noise, [B, K, D].
    """

    prefixes: Int64s
    t: Tensor
    eps: Tensor

    def select(self, users: Tensor, tokens: Tensor) -> PrefixDraws:
        """Return the draws of some ``users`` [b] of the batch."""
        return PrefixDraws(self.prefixes[users.cpu().numpy()], self.t[users], self.eps[users])

    @property
    def number(self) -> int:
        """P, the number of prefixes."""
        return int(np.count_nonzero(self.prefixes))

    @property
    def chosen(self) -> Tensor:
        """Whether each of a sequence's K prefixes exists, bool [B, K]."""
        return torch.from_numpy(self.prefixes > 0).to(self.t.device)

    def of_prefixes(self) -> tuple[Tensor, Tensor]:
        """Return the timestep [P] and the noise [P, D] of each prefix, in the order of :func:`prefixes_of`."""
        chosen = self.chosen
        return self.t[chosen], self.eps[chosen]


def draw_prefixes(batch: PackedBatch, count: int, num_timesteps: int, hidden_size: int, rng: Generator) -> PrefixDraws:
    """Draw up to ``count`` distinct prefixes of each sequence (all of them if it has no more) and their noise."""
    device = batch.items.device
    lengths = torch.from_numpy(batch.lengths).to(device)  # [B]
    positions = torch.arange(int(batch.lengths.max()), device=device)
    order = torch.rand(len(lengths), len(positions), generator=rng, device=device)  # [B, l]
    first = order.masked_fill_(positions >= lengths[:, None], 2).topk(min(count, len(positions)), largest=False)
    prefixes = torch.where(first.values < 1, first.indices + 1, 0)  # [B, K]
    t = torch.randint(num_timesteps, prefixes.shape, generator=rng, device=device)
    eps = torch.randn(*prefixes.shape, hidden_size, generator=rng, device=device)
    return PrefixDraws(prefixes.cpu().numpy(), t, eps)


def prefixes_of(batch: PackedBatch, prefixes: Int64s) -> tuple[PackedBatch, Tensor, Tensor]:
    """Return the prefixes of ``batch``, user by user, as sequences: P of them with M tokens in total.

    Also return the index of each token in ``batch``, int64 [M], and the prefix (of its user's K) that contains it,
    int64 [M]. The target of a prefix is that of its last token.
    """
    users, columns = np.nonzero(prefixes)
    lengths = prefixes[users, columns]  # [P]
    tokens = spans((batch.lengths.cumsum() - batch.lengths)[users], lengths)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    arrays = tokens, cu_seqlens, np.repeat(columns, lengths)
    where, bounds, column = (torch.from_numpy(each).to(batch.items.device) for each in arrays)
    return PackedBatch(batch.items[where], batch.targets[where], lengths, bounds), where, column
