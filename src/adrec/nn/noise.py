"""Unit noise that depends only on a seed and a history.

At inference each user's noise is a function of (seed, history, step). A recommendation is therefore reproducible, and
does not depend on the other users of the batch, on the batch size or (except for rounding) on the device.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.data.spans import Int64s


def _signed(word: int) -> int:
    """Return the int64 with the same 64 bits: PyTorch has no arithmetic on uint64, and products wrap alike."""
    return word - (1 << 64) if word >> 63 else word


GOLDEN = _signed(0x9E3779B97F4A7C15)
LOW = 0xFFFFFFFF  # 32 bits


def _mix_(x: Tensor) -> Tensor:
    """Scramble 64-bit integers in place: the finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    _fold_(x, 30).mul_(_signed(0xBF58476D1CE4E5B9))
    _fold_(x, 27).mul_(_signed(0x94D049BB133111EB))
    return _fold_(x, 31)


def _fold_(x: Tensor, bits: int) -> Tensor:
    """Apply ``x ^= x >> bits`` in place, with a logical (zero-filling) shift."""
    return x.bitwise_xor_(x.bitwise_right_shift(bits).bitwise_and_((1 << (64 - bits)) - 1))


def history_keys(batch: PackedBatch, seed: int) -> Tensor:
    """Return a 64-bit key of each history and the seed, int64 [B], of a batch on the CPU."""
    lengths = batch.lengths
    starts = np.cumsum(lengths) - lengths
    from_end = np.repeat(starts + lengths, lengths) - np.arange(len(batch.items))
    words = _mix_(batch.items << 20 | torch.from_numpy(from_end))
    sums = torch.from_numpy(np.add.reduceat(words.numpy(), starts))
    return _mix_(sums + _mix_(torch.tensor([seed])))


def keys_of(items: Int64s, lengths: Int64s, seed: int) -> Int64s:
    """Return the keys of :func:`history_keys` for histories in rows, ``items`` [B, n] with 0 behind their ends."""
    places = np.arange(items.shape[1])
    words = np.where(places < lengths[:, None], items << 20 | (lengths[:, None] - places), 0)
    sums = _mixed(words.view(np.uint64)).sum(1)  # 0 stays 0
    keys: Int64s = _mixed(sums + _mixed(np.array([seed]).view(np.uint64))).view(np.int64)
    return keys


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return what :func:`_mix_` makes of 64-bit integers, which have an unsigned type here."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def unit_noise(keys: Tensor, hidden_size: int, first: int, end: int) -> Tensor:
    """Return the noise of steps ``first`` to ``end`` - 1, [steps, B, D], by the Box-Muller transform.

    Args:
        keys: the key of each history, int64 [B].
        hidden_size: D.
        first: the first step; steps count from 1.
        end: the step after the last one.
    """
    half = (hidden_size + 1) // 2
    counters = torch.arange(first * half + 1, end * half + 1, device=keys.device)
    bits = _mix_(keys[:, None] + (counters * GOLDEN).view(-1, 1, half))  # [steps, B, half]
    radius = (bits.bitwise_right_shift(32).bitwise_and_(LOW)).to(torch.float32).add_(1)  # 1 .. 2^32: never log(0)
    angle = bits.bitwise_and_(LOW).to(torch.float32)
    radius = radius.mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = angle.mul_(2 * torch.pi * 2.0**-32)
    noise = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)  # [steps, B, 2 half]
    return noise[..., :hidden_size]


def history_words(items: Tensor, lengths: Tensor) -> Tensor:
    """Return the words whose sum is a history's key, int64 [B, n], of histories in rows as in :func:`keys_of`."""
    places = torch.arange(items.shape[1], device=items.device)
    words = items * (1 << 20) + (lengths[:, None] - places)
    return torch.where(places < lengths[:, None], words, 0)


def mixed_keys(words: Tensor, seed: int) -> Tensor:
    """Return the keys of :func:`keys_of` from :func:`history_words`, int64 [B], by what can be exported."""
    own = int(_mixed(np.array([seed]).view(np.uint64)).view(np.int64)[0])  # a tensor would be mixed again when exported
    mixed = _mix_(words)
    sums = (mixed[:, None] @ torch.ones_like(mixed)[:, :, None])[:, 0, 0]  # ONNX Runtime's own sum is one of floats
    return _mix_(sums + own)


AT_ONCE = 8  # steps whose noise is drawn together: drawing a single step is dominated by overhead


class HistoryNoise:
    """``noise(i)``: unit normal noise [B, D] of step i >= 1, by a counter-based generator keyed by history.

    The batch is on the CPU; the noise is drawn on ``device``.
    """

    def __init__(self, batch: PackedBatch, hidden_size: int, seed: int, device: torch.device) -> None:
        self.keys = history_keys(batch, seed).to(device, non_blocking=True)
        self.hidden_size = hidden_size
        self._drawn: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """Return the noise of ``step``, [B, D]. Steps are requested in descending order; lower ones are prefetched."""
        if step not in self._drawn:
            first = max(1, step - AT_ONCE + 1)
            drawn = unit_noise(self.keys, self.hidden_size, first, step + 1)
            self._drawn = dict(zip(range(first, step + 1), drawn, strict=True))
        return self._drawn[step]
