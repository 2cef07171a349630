"""Whether half precision is worth its while on a processor."""

from __future__ import annotations

import time

import torch

SIZE, REPEATS = 512, 5
SLOW = 1.2  # times as long as float32, from which on bfloat16 is told to be slow


def slow_bfloat16(device: torch.device) -> str | None:
    """Return a sentence where matrix products in bfloat16 take longer than in float32 on ``device``, else None.

    A CPU without instructions for bfloat16 is many times slower with it. It is measured, in some milliseconds.
    """
    if device.type != "cpu":
        return None
    ratio = _seconds(torch.bfloat16) / _seconds(torch.float32)
    if ratio < SLOW:
        return None
    return (
        f"precision is bfloat16, and a matrix product takes {ratio:.1f} times as long in it as in float32 on this "
        "processor; set precision to float32."
    )


def _seconds(dtype: torch.dtype) -> float:
    """Return the least of some timings of a product of two matrices."""
    a = torch.full((SIZE, SIZE), 0.5, dtype=dtype)
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return min(times)
