"""Seconds and peak memory of preparing generated interactions: ``python benchmarks/preparing.py 1e6 1e7``.

Each format is prepared by a process of its own, so that its peak memory is its own. Ids are texts of 20 characters, as
Amazon's are.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

FORMATS = ("csv", "csv.gz", "jsonl", "parquet", "quoted.csv")


def interactions(rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    users, items = rng.integers(rows // 20, size=rows), rng.zipf(1.3, size=rows) % 200_000
    return pl.DataFrame(
        {
            "user_id": pl.Series(users).cast(pl.String).str.zfill(20),
            "item_id": pl.Series(items).cast(pl.String).str.zfill(10),
            "rating": rng.integers(1, 6, size=rows),
            "timestamp": rng.integers(1_400_000_000, 1_700_000_000, size=rows),
        }
    )


def written(table: pl.DataFrame, folder: Path) -> Iterator[Path]:
    for name in FORMATS:
        path = folder / f"interactions.{name}"
        if name == "parquet":
            table.write_parquet(path)
        elif name == "jsonl":
            table.write_ndjson(path)
        elif name == "csv.gz":
            with (folder / "interactions.csv").open("rb") as plain, gzip.open(path, "wb", compresslevel=1) as packed:
                shutil.copyfileobj(plain, packed)
        else:
            table.write_csv(path, quote_style="always" if name == "quoted.csv" else "necessary")
        yield path


def measured(path: Path, folder: Path) -> tuple[float, float]:
    """Return seconds and peak MB of one process that prepares ``path``, its start included."""
    before = time.perf_counter()
    arguments = [sys.executable, "-m", "adrec", "prepare", str(path), "--out", str(folder / "data"), "--overwrite"]
    code = (
        f"import resource, subprocess; subprocess.run({[*arguments, '--quiet']!r}, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    peak = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return time.perf_counter() - before, float(peak)


def main() -> None:
    table = Table("rows", "format", "file MB", "seconds", "peak MB")
    for rows in (int(float(text)) for text in sys.argv[1:] or ["1e6"]):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for path in written(interactions(rows), folder):
                seconds, peak = measured(path, folder)
                size = path.stat().st_size / 1e6
                table.add_row(f"{rows:,}", path.name.partition(".")[2], f"{size:.0f}", f"{seconds:.1f}", f"{peak:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
