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
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def history_keys(batch: PackedBatch, seed: int) -> UInt64s:
    """Return a 64-bit key of each history and the seed, [B]."""
    lengths = batch.lengths
    starts = np.cumsum(lengths) - lengths
    from_end = np.repeat(starts + lengths, lengths) - np.arange(len(batch.items))
    words = batch.items.cpu().numpy().astype(np.uint64) << np.uint64(20) | from_end.astype(np.uint64)
    return _mix(np.add.reduceat(_mix(words), starts) + _mix(np.array([seed], dtype=np.uint64)))


class HistoryNoise:
    """``noise(i)``: unit normal noise [B, D] of step i, by a counter-based generator keyed by history."""

    def __init__(self, batch: PackedBatch, hidden_size: int, seed: int, device: torch.device) -> None:
        self.keys = history_keys(batch, seed)
        self.hidden_size, self.device = hidden_size, device

    def __call__(self, step: int) -> Tensor:
        """Return the noise of ``step``, [B, D], by Box and Muller's transform of pairs of uniforms."""
        half = (self.hidden_size + 1) // 2
        counters = np.arange(step * half, (step + 1) * half, dtype=np.uint64) + np.uint64(1)
        bits = _mix(self.keys[:, None] + counters * np.uint64(0x9E3779B97F4A7C15))  # [B, half]
        radius_bits = (bits >> np.uint64(32)).astype(np.float64) + 1  # 1 .. 2^32: never log(0)
        angle_bits = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64)
        radius = torch.from_numpy(np.sqrt(-2 * np.log(radius_bits * 2.0**-32)))
        angle = torch.from_numpy(angle_bits * (2 * np.pi * 2.0**-32))
        noise = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)  # [B, 2 half]
        return noise[:, : self.hidden_size].to(self.device, torch.float32)
