"""The log of what was shown, one JSON object a line, for ``adrec evaluate --served``."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from adrec.inference.ids import Id
from adrec.serve.models import Served
from adrec.utils.errors import ConfigError

FLUSHED = 1.0  # seconds between two writes to the disk


class Shown:
    """Writes the log. Lines are appended, so that a restart loses nothing.

    Args:
        path: the log.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.file = path.open("ab")
        except OSError as error:
            raise ConfigError(f"--log {path} cannot be written ({error.strerror}).") from error
        self._lock, self._flushed = threading.Lock(), time.monotonic()
        self._encoder = msgspec.json.Encoder()

    def line(self, user: Id, model: Served, items: list[Any]) -> dict[str, Any]:
        """Return what is logged of an answer."""
        return {
            "time_ms": int(1000 * time.time()), "user": user, "run": model.run, "model": model.digest, "items": items,
        }  # fmt: skip

    def write(self, line: dict[str, Any]) -> None:
        """Append a line; it is on its way to the disk within a second, if others follow."""
        with self._lock:
            self.file.write(self._encoder.encode(line) + b"\n")
            if time.monotonic() - self._flushed > FLUSHED:
                self.file.flush()
                self._flushed = time.monotonic()

    def end(self) -> None:
        """Close the log."""
        with self._lock:
            self.file.close()
