"""A check that half precision is fast enough on a CPU."""

from __future__ import annotations

import time

import torch

SIZE, REPEATS = 512, 5
SLOW = 1.2  # the ratio to float32's time from which bfloat16 is reported as slow


def slow_bfloat16(device: torch.device) -> str | None:
    """Return a warning if matrix products in bfloat16 take longer than in float32 on ``device``, else None.

    A CPU without bfloat16 instructions is many times slower with it. The measurement takes some milliseconds.
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
    """Return the minimum of several timings of a matrix product."""
    a = torch.full((SIZE, SIZE), 0.5, dtype=dtype)
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return min(times)
