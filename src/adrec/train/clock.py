"""The time that an epoch takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

NOTHING: Mapping[str, float] = MappingProxyType({})


class Clock:
    """Runs from its creation; ``before`` is what was spent earlier, as :meth:`spent` tells it."""

    def __init__(self, before: Mapping[str, float] = NOTHING) -> None:
        self._wall = time.perf_counter() - before.get("seconds", 0.0)
        self._core = time.process_time() - before.get("core_seconds", 0.0)

    def spent(self) -> dict[str, float]:
        """Return the seconds so far, and the core-seconds: of all threads, and independent of other load."""
        return {
            "seconds": round(time.perf_counter() - self._wall, 4),
            "core_seconds": round(time.process_time() - self._core, 4),
        }
