"""What diagnosing an embedding costs: seconds and peak memory by number of items.

python -m benchmarks.diagnosing 1e5 1e6
"""

from __future__ import annotations

import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from adrec.diagnose import Space, diagnose
from benchmarks.common import in_own_process

SIZE = 128


def cost(items: int) -> float:
    """Return the seconds of a diagnosis of random clusters, references included."""
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((items, SIZE), dtype=np.float32)
    embedding += 2 * rng.standard_normal((50, SIZE), dtype=np.float32)[rng.integers(50, size=items)]
    began = time.perf_counter()
    found = diagnose(Space("clusters", embedding))
    assert found.verdict.state == "alive"
    return time.perf_counter() - began


def main() -> None:
    """Print a table."""
    table = Table("items", "seconds", "peak MiB", title=f"adrec diagnose, {SIZE} dimensions")
    for text in sys.argv[1:] or ["1e4", "1e5", "1e6"]:
        took, peak = in_own_process(cost, int(float(text)))
        table.add_row(f"{int(float(text)):,}", f"{took:.1f}", f"{peak / 2**20:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
