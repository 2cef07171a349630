"""Micro-batching: one thread answers all queries that wait, together; nothing waits while the thread is idle."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adrec.inference.engine import Answer, Query

MOST = 64  # queries that are answered together
WAITING = 512  # queries that may wait


class BusyError(Exception):
    """Raised if too many queries wait, or a query waited beyond its deadline."""


@dataclass(frozen=True)
class _Waiting:
    query: Query
    deadline: float  # on the clock of time.monotonic
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Answer]


class Batcher:
    """Answers queries in a thread of its own.

    Args:
        answer: answers several queries.
        most: the largest number of queries that are answered together.
        waiting: the largest number of queries that wait.
        on_batch: is told the number of queries answered together, and the seconds it took.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Query]], list[Answer]],
        *,
        most: int = MOST,
        waiting: int = WAITING,
        on_batch: Callable[[int, float], None] = lambda number, seconds: None,
    ) -> None:
        self.answer, self.most, self.waiting, self.on_batch = answer, most, waiting, on_batch
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """The number of queries that wait."""
        return len(self._queue)

    async def ask(self, queries: Sequence[Query], seconds: float) -> list[Answer]:
        """Return the answers to some queries. Raises :class:`BusyError` if too many wait, or they take too long."""
        loop, deadline = asyncio.get_running_loop(), time.monotonic() + seconds
        asked = [_Waiting(query, deadline, loop, loop.create_future()) for query in queries]
        with self._changed:
            if self._ends or len(self._queue) + len(asked) > self.waiting:
                raise BusyError("too many requests wait; try again soon")
            self._queue.extend(asked)
            self._changed.notify()
        return list(await asyncio.gather(*(each.answer for each in asked)))

    def end(self) -> None:
        """End the thread, once all that waits is answered."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._ends:
                        return
                    self._changed.wait()
                some = [self._queue.popleft() for _ in range(min(self.most, len(self._queue)))]
            self._answer(some)

    def _answer(self, some: Sequence[_Waiting]) -> None:
        now = time.monotonic()
        late = [each for each in some if each.deadline < now]
        asked = [each for each in some if each.deadline >= now]
        results: list[tuple[_Waiting, Answer | BaseException]] = [
            (each, BusyError("the request waited beyond its deadline")) for each in late
        ]
        if asked:
            try:
                results += zip(asked, self.answer([each.query for each in asked]), strict=True)
            except Exception as error:  # whatever a model raises: the thread goes on
                results += [(each, error) for each in asked]
            self.on_batch(len(asked), time.monotonic() - now)
        for loop in {each.loop for each, _ in results}:
            own = [(each.answer, result) for each, result in results if each.loop is loop]
            loop.call_soon_threadsafe(_deliver, own)


def _deliver(results: Sequence[tuple[asyncio.Future[Answer], Answer | BaseException]]) -> None:
    for future, result in results:
        if future.done():  # its client has gone
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
