"""Recommendations written as shards: bounded memory, several processes, and a killed job that goes on.

======================================================  ========================================================
``OUT/part-00003-of-00010.parquet``                     the recommendations for a tenth of the users
``.OUT.shards/request.json``                            what was asked for; another request is refused
``.OUT.shards/part-00003-of-00010.<digest>.done``       marks that shard as whole, by the digest of its content
======================================================  ========================================================

The marks are beside the folder, which holds Parquet files alone: every library reads it as one table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from adrec.utils.errors import ConfigError, RunError
from adrec.utils.files import atomic_file, remove_temporaries, write_bytes
from adrec.utils.platforms import rank_of_environment
from adrec.utils.sealed import read_sealed, write_sealed
from adrec.utils.tables import write_parquet

REQUEST = "request.json"
OTHERS = {"weights": "another run", "data": "a run on other data"}  # their digests would say nothing


@dataclass(frozen=True)
class Share:
    """Every n-th shard, beginning with the i-th, counted from 1: ``i/n``."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Share:
        """Read ``i/n``; without it, every process that ``torchrun`` started has its part.

        Raises :class:`ConfigError` unless 1 <= i <= n.
        """
        if text is None:
            rank, size = rank_of_environment()
            return cls(rank + 1, size)
        first, _, second = text.partition("/")
        if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
            raise ConfigError(f"--shard is i/n, such as 1/4 to 4/4; it is {text!r}.")
        return cls(int(first), int(second))


@dataclass(frozen=True)
class Shards:
    """A folder of shards.

    Attributes:
        folder: the folder.
        request: everything that decides the content, as plain JSON.
        total: the number of users (or histories).
        size: of a shard.
    """

    folder: Path
    request: Mapping[str, Any]
    total: int
    size: int

    @property
    def count(self) -> int:
        """The number of shards."""
        return -(-self.total // self.size)

    def path(self, shard: int) -> Path:
        """Return the file of a shard, counted from 0."""
        return self.folder / f"part-{shard:05}-of-{self.count:05}.parquet"

    @property
    def marks(self) -> Path:
        """The folder of the request and the marks."""
        return self.folder.with_name(f".{self.folder.name}.shards")

    def prepare(self) -> None:
        """Make the folder and write the request, or check that it is the same.

        Raises :class:`RunError` if the folder holds something else.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted, there = {**self.request, "users": self.total, "shard-size": self.size}, self.marks / REQUEST
        if there.exists():
            found = read_sealed(there, RunError, "remove the folder, or choose another --out")
            different = [key for key, value in wanted.items() if found.get(key) != value]
            if different:
                was, now = found.get(different[0]), wanted[different[0]]
                what = OTHERS.get(different[0], f"another request, whose {different[0]} is {was}, not {now}")
                raise RunError(
                    f"{self.folder} has the shards of {what}; choose another --out, or remove it and {self.marks}."
                )
            return
        if any(not each.name.startswith(".") for each in self.folder.iterdir()):
            if there.exists():  # another process has begun meanwhile
                self.prepare()
                return
            raise RunError(f"{self.folder} is not empty and has no shards; choose another --out.")
        self.marks.mkdir(exist_ok=True)
        write_sealed(there, wanted)

    def is_done(self, shard: int) -> bool:
        """Return whether a shard is whole: its marker names the digest of its content."""
        path = self.path(shard)
        return path.exists() and self._marker(shard, _digest(path)).exists()

    def write(self, share: Share, make: Callable[[int, int], pl.DataFrame], skip: Callable[[int, str], None]) -> int:
        """Write the shards of ``share`` that are not done, one after the other; return the number of rows written.

        Args:
            share: the shards of this process.
            make: returns the recommendations for users ``start`` to ``end``.
            skip: called with the number of users of each shard that is done already; and with 0 and a sentence
                about each that was damaged.
        """
        self.prepare()
        rows = 0
        if share.of == 1:
            remove_temporaries(self.folder)
        for shard in range(share.number - 1, self.count, share.of):
            start, end = shard * self.size, min((shard + 1) * self.size, self.total)
            if self.is_done(shard):
                skip(end - start, "")
                continue
            path = self.path(shard)
            if self._marks_of(shard):
                skip(0, f"{path} was missing or not what was written: it is computed again.")
            table = make(start, end)
            with atomic_file(path) as temporary:
                write_parquet(table, temporary)
            for old in self._marks_of(shard):
                old.unlink(missing_ok=True)
            write_bytes(self._marker(shard, _digest(path)), b"")
            rows += table.height
        return rows

    def left(self) -> int:
        """Return the number of shards that are not done, of all shares."""
        return sum(not self._marks_of(shard) for shard in range(self.count))

    def _marks_of(self, shard: int) -> list[Path]:
        return list(self.marks.glob(f"{self.path(shard).stem}.*.done"))

    def _marker(self, shard: int, digest: str) -> Path:
        return self.marks / f"{self.path(shard).stem}.{digest}.done"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
