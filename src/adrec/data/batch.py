"""Packed batches: the sequences of many users in flat tensors, without padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.data.spans import Int64s, spans


@dataclass(frozen=True)
class PackedBatch:
    """B sequences, one after the other: N tokens in all.

    Attributes:
        items: item numbers s_1..s_n of each user, int64 [N].
        targets: the item after each, s_2..s_{n+1}, int64 [N]; 0 where it is not known (the last at inference).
        lengths: the number of tokens of each user, int64 [B], each at least 1, on the CPU.
        cu_seqlens: the start of each user's tokens, and the end of the last one's, int64 [B + 1].
        numbers: a copy of ``items`` on the CPU, which avoids a wait for the GPU; None if unknown.
        weights: the weight of each target in the loss, float32 [N]; None if all count the same.
    """

    items: Tensor
    targets: Tensor
    lengths: Int64s
    cu_seqlens: Tensor
    numbers: Int64s | None = None
    weights: Tensor | None = None

    @property
    def num_users(self) -> int:
        """The number of users, B."""
        return len(self.lengths)

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch with its tensors on ``device``, without waiting for pending GPU work."""
        items, targets, cu_seqlens = (
            each.to(device, non_blocking=True) for each in (self.items, self.targets, self.cu_seqlens)
        )
        weights = None if self.weights is None else self.weights.to(device, non_blocking=True)
        return PackedBatch(items, targets, self.lengths, cu_seqlens, self.numbers, weights)

    def select(self, users: Int64s) -> tuple[PackedBatch, Tensor]:
        """Return the sequences of the given ``users`` [b], and the positions of their tokens in this batch, [n]."""
        lengths = self.lengths[users]
        positions = spans(self.lengths.cumsum()[users] - lengths, lengths)
        device = self.items.device
        tokens = torch.from_numpy(positions).to(device, non_blocking=True)
        cu_seqlens = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])).to(device, non_blocking=True)
        numbers = None if self.numbers is None else self.numbers[positions]
        weights = None if self.weights is None else self.weights[tokens]
        part = PackedBatch(self.items[tokens], self.targets[tokens], lengths, cu_seqlens, numbers, weights)
        return part, tokens

    def parts(self, max_tokens: int) -> list[Int64s]:
        """Divide the users, by length, into parts of at most ``max_tokens`` tokens, or of one user.

        A batch that is small enough stays whole, in its own order.
        """
        if self.lengths.sum() <= max_tokens:
            return [np.arange(self.num_users)]
        order = np.argsort(self.lengths, kind="stable")
        parts, first, total = [], 0, 0
        for index, length in enumerate(self.lengths[order].tolist()):
            if total + length > max_tokens and index > first:
                parts.append(order[first:index])
                first, total = index, 0
            total += length
        return [*parts, order[first:]]


def _packed(items: Int64s, targets: Int64s, lengths: Int64s, weights: Tensor | None = None) -> PackedBatch:
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    tensors = [torch.from_numpy(each) for each in (items, targets, cu_seqlens)]
    return PackedBatch(tensors[0], tensors[1], lengths, tensors[2], items, weights)


def training_batch(
    items: NDArray[np.int32],
    starts: Int64s,
    ends: Int64s,
    max_length: int,
    weights: NDArray[np.float32] | None = None,
) -> PackedBatch:
    """Pack the last ``max_length`` + 1 interactions of ``items[start:end]`` as inputs and targets shifted by one.

    Every span must hold two interactions or more. ``weights`` are those of all interactions as targets.
    """
    lengths = np.minimum(ends - starts - 1, max_length)
    positions = spans(ends - 1 - lengths, lengths)
    weighed = None if weights is None else torch.from_numpy(weights[positions + 1])
    return _packed(items[positions].astype(np.int64), items[positions + 1].astype(np.int64), lengths, weighed)


def history_batch(items: NDArray[np.integer], starts: Int64s, ends: Int64s, max_length: int) -> PackedBatch:
    """Pack the last ``max_length`` interactions of ``items[start:end]``, to predict what follows.

    Every span must hold one interaction or more. The last token's target is 0: not known.
    """
    lengths = np.minimum(ends - starts, max_length)
    histories = items[spans(ends - lengths, lengths)].astype(np.int64)
    targets = np.concatenate([histories[1:], [0]])
    targets[np.cumsum(lengths) - 1] = 0
    return _packed(histories, targets, lengths)
