"""The rows of metrics of a run, ``metrics.jsonl``: one JSON object for each epoch, appended as it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adrec.utils.errors import RunError
from adrec.utils.files import append_line, write_bytes


def digest_of_lines(lines: Sequence[bytes]) -> str:
    """Return the hash of some lines."""
    return hashlib.blake2b(b"".join(lines), digest_size=16).hexdigest()


NO_ROWS = digest_of_lines([])


@dataclass(frozen=True)
class Metrics:
    """The file of the rows of metrics at ``path``."""

    path: Path

    def lines(self) -> list[bytes]:
        """Return the lines; a killed process leaves half a line, which does not count."""
        try:
            lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        except OSError as error:
            raise RunError(f"{self.path} cannot be read ({error.strerror}).") from error
        return [line for line in lines if line.endswith(b"\n")]

    def digest(self) -> str:
        """Return the digest of the lines."""
        return digest_of_lines(self.lines())

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows. Raises :class:`RunError` for a line that is not a JSON object."""
        try:
            rows = [json.loads(line) for line in self.lines()]
        except (ValueError, RecursionError) as error:
            raise RunError(f"{self.path} has a line that is not JSON; restore it from a copy.") from error
        if not all(isinstance(row, dict) for row in rows):
            raise RunError(f"{self.path} has a line that is not a JSON object; restore it from a copy.")
        return rows

    def append(self, row: Mapping[str, object]) -> None:
        """Append a row, and wait until it is on the disk."""
        append_line(self.path, json.dumps(row))

    def keep(self, number: int) -> None:
        """Drop all lines after the first ``number``."""
        lines = self.lines()
        whole = self.path.read_bytes() if self.path.exists() else b""
        if whole != b"".join(lines[:number]):
            write_bytes(self.path, b"".join(lines[:number]))
