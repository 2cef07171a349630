"""The time that an epoch takes."""

from __future__ import annotations

import time


class Clock:
    """Runs from its creation."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def spent(self) -> dict[str, float]:
        """Return the seconds so far, and the core-seconds: of all threads, and independent of other load."""
        wall, core = self._started
        return {
            "seconds": round(time.perf_counter() - wall, 4),
            "core_seconds": round(time.process_time() - core, 4),
        }
