"""Unit noise that depends on a seed and a history alone.

At inference each user's noise is a function of (seed, history, step), so a recommendation does not depend on who else
is in the batch, on the batch size, or on the device: asked again, it is the same.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.data.batch import PackedBatch

UInt64s = NDArray[np.uint64]


def _mix(x: UInt64s) -> UInt64s:
    """Scramble 64-bit integers: the finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def history_keys(batch: PackedBatch, seed: int) -> UInt64s:
    """Return a 64-bit key of each history and the seed, [B]."""
    lengths = batch.lengths
    starts = np.cumsum(lengths) - lengths
    from_end = np.repeat(starts + lengths, lengths) - np.arange(len(batch.items))
    words = batch.items.cpu().numpy().astype(np.uint64) << np.uint64(20) | from_end.astype(np.uint64)
    return _mix(np.add.reduceat(_mix(words), starts) + _mix(np.array([seed], dtype=np.uint64)))


AT_ONCE = 8  # steps whose noise is drawn together: one step of a batch is too little work for its overhead


class HistoryNoise:
    """``noise(i)``: unit normal noise [B, D] of step i >= 1, by a counter-based generator keyed by history."""

    def __init__(self, batch: PackedBatch, hidden_size: int, seed: int, device: torch.device) -> None:
        self.keys = history_keys(batch, seed)
        self.hidden_size, self.device = hidden_size, device
        self._drawn: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """Return the noise of ``step``, [B, D]. Steps are asked for downwards, so those below are drawn with it."""
        if step not in self._drawn:
            first = max(1, step - AT_ONCE + 1)
            self._drawn = dict(zip(range(first, step + 1), self._draw(first, step + 1), strict=True))
        return self._drawn[step]

    def _draw(self, first: int, end: int) -> Tensor:
        """Return the noise of some steps, [steps, B, D], by Box and Muller's transform of pairs of uniforms."""
        half = (self.hidden_size + 1) // 2
        counters = np.arange(first * half, end * half, dtype=np.uint64) + np.uint64(1)
        increments = (counters * np.uint64(0x9E3779B97F4A7C15)).reshape(-1, 1, half)
        bits = _mix(self.keys[:, None] + increments)  # [steps, B, half]
        radius_bits = (bits >> np.uint64(32)).astype(np.float32) + 1  # 1 .. 2^32: never log(0)
        angle_bits = (bits & np.uint64(0xFFFFFFFF)).astype(np.float32)
        radius = torch.from_numpy(radius_bits).mul_(2.0**-32).log_().mul_(-2).sqrt_()
        angle = torch.from_numpy(angle_bits).mul_(2 * np.pi * 2.0**-32)
        noise = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)  # [steps, B, 2 half]
        return noise[..., : self.hidden_size].to(self.device, torch.float32)
