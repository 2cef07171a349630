"""Recommendations for many users into a folder of shards, by this process or by another engine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from rich.console import Console

from adrec.bulk.shards import Shards, Share
from adrec.cli.console import counter
from adrec.cli.recommending import Audience, Items, Request, Wishes
from adrec.utils.errors import ConfigError
from adrec.utils.folders import check_apart, check_no_file
from adrec.utils.text import counted

SIZE = 100_000  # users in a shard by default


@dataclass(frozen=True)
class Sharding:
    """Where the shards are written, and by what.

    Attributes:
        out: the folder.
        size: users in a shard; None is :data:`SIZE`.
        share: ``i/n``, the part of the shards of this process; None is all, or that of a process of ``torchrun``.
        engine: what computes them.
    """

    out: Path | None
    size: int | None = None
    share: str | None = None
    engine: Literal["local", "spark", "ray"] = "local"

    def check(self, output_format: str | None, inputs: Sequence[Path | None], device: str = "auto") -> None:
        """Raise :class:`UserError` before any work if the shards cannot be written."""
        if self.out is None:
            raise ConfigError("shards are written into a folder; give it with --out FOLDER.")
        if self.out.suffix in (".csv", ".jsonl", ".parquet") and not self.out.is_dir():
            raise ConfigError(f"shards are Parquet files in a folder, and --out {self.out} is a file's name.")
        if output_format is not None:
            raise ConfigError("--format is about standard output, and shards are Parquet files; leave it out.")
        if self.engine != "local" and (self.share is not None or self.size is not None):
            raise ConfigError(f"--engine {self.engine} divides the work itself; leave out --shard and --shard-size.")
        if self.engine != "local" and device != "auto":
            raise ConfigError(f"the workers of --engine {self.engine} compute on their CPUs; leave out --device.")
        check_no_file(self.out)
        check_apart(self.out, inputs, "--out")
        Share.parse(self.share)


def recommend(
    run: Path,
    audience: Audience,
    items: Items,
    wishes: Wishes,
    how: Sharding,
    *,
    data: Path | None,
    device: str,
    console: Console,
    own_model: str | None = None,
) -> None:
    """Write the recommendations of ``run`` into the folder ``how.out``; what is there already is kept."""
    assert how.out is not None
    if how.engine != "local":
        from adrec.cli import engines

        engines.recommend(
            run, audience, items, wishes, how.engine, how.out, data=data, console=console, model=own_model
        )
        return
    request = Request(run, audience, items, wishes, data=data, device=device)
    share = Share.parse(how.share)
    shards = Shards(how.out, request.identity(), request.total, how.size or SIZE)
    for note in request.notes:
        console.print(f"note: {note}")
    with counter(console) as progress:
        task = progress.add_task("recommending", total=request.total if share.of == 1 else None)

        def make(start: int, end: int) -> pl.DataFrame:
            found = request.table(start, end, lambda done: progress.advance(task, done))
            for note in found.notes:
                kind = re.sub("[0-9,]", "", note.partition(":")[0])
                if not alike[kind]:
                    console.print(f"note: users {start + 1:,} to {end:,}: {note}")
                alike[kind] += 1
            return found.table

        alike: Counter[str] = Counter()  # notes that differ in their numbers alone
        whole: list[int] = []

        def skip(users: int, damaged: str) -> None:
            progress.advance(task, users)
            if damaged:
                console.print(f"note: {damaged}")
            else:
                whole.append(users)

        rows = shards.write(share, make, skip)
    for more in (count - 1 for count in alike.values() if count > 1):
        console.print(f"note: {counted(more, 'other shard')} had such a note.")
    left = shards.left()
    rest = f"; {counted(left, 'shard')} of other parts {'is' if left == 1 else 'are'} not there yet" if left else ""
    already = f"; whole already: {counted(len(whole), 'shard')}" if whole else ""
    console.print(f"{rows:,} rows written to {how.out}, {counted(shards.count, 'shard')} in all{already}{rest}")
