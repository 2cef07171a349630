"""Results of worker threads for the event loops that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol


class Waiting(Protocol):
    """What waits for a result: the future and its loop."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the future."""

    @property
    def answer(self) -> asyncio.Future[Any]:
        """Gets the result."""


def deliver(results: Sequence[tuple[Waiting, Any]]) -> None:
    """Set each future to its result, or to fail with it if it is an error, from any thread."""
    for loop in {each.loop for each, _ in results}:
        loop.call_soon_threadsafe(_set, [(each.answer, result) for each, result in results if each.loop is loop])


def _set(results: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in results:
        if future.done():  # its client has gone
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
