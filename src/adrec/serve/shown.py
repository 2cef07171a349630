"""The log of what was shown, one JSON object a line, for ``adrec evaluate --served``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from adrec.inference.ids import Id
from adrec.serve.models import Served
from adrec.utils.errors import ConfigError

logger = logging.getLogger(__name__)


class Shown:
    """Writes the log. Lines are appended, so that a restart loses nothing.

    A log that cannot be written, such as on a full disk, is no error of the service: what it lacks is counted.

    Args:
        path: the log.

    Attributes:
        lost: lines that could not be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.file = path.open("ab", buffering=0)
            if _is_cut(path):
                self.file.write(b"\n")
        except OSError as error:
            raise ConfigError(f"--log {path} cannot be written ({error.strerror}).") from error
        self._lock = threading.Lock()
        self._encoder, self.lost = msgspec.json.Encoder(), 0

    def line(self, user: Id, model: Served, items: list[Any], among: Sequence[str]) -> dict[str, Any]:
        """Return what is logged of an answer; ``among`` are the models of which the user's hash chose this one."""
        line = {"time_ms": int(1000 * time.time()), "user": user, "run": model.run, "model": model.digest}
        return line | {"items": items} | ({"among": sorted(among)} if len(among) > 1 else {})

    def write(self, line: dict[str, Any]) -> None:
        """Append a line; the operating system has it at once, so an end of the process loses none."""
        with self._lock:
            try:
                self.file.write(self._encoder.encode(line) + b"\n")
            except (OSError, ValueError) as error:
                if not self.lost:
                    logger.error("the log cannot be written (%s); the service goes on without it", error)
                self.lost += 1

    def end(self) -> None:
        """Close the log."""
        with self._lock:
            try:
                self.file.close()
            except OSError as error:
                logger.error("the end of the log cannot be written (%s)", error)


def _is_cut(path: Path) -> bool:
    """Return whether a file does not end with a line's end, as after a crash."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
