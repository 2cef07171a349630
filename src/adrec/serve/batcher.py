"""Micro-batching: one thread answers all queries that wait, together; nothing waits while the thread is idle."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from adrec.inference.engine import Answer, Engine, Query

Result = TypeVar("Result")
MOST = 64  # queries that are answered together
WAITING = 512  # queries that may wait
IDLE = 64  # pieces of work that may wait until the thread is idle


class BusyError(Exception):
    """Raised if too many queries wait, or a query waited beyond its deadline."""


@dataclass(frozen=True)
class _Waiting:
    engine: Engine | None  # None: ``work`` is called
    work: Any  # a query, or a function
    deadline: float  # on the clock of time.monotonic
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class Batcher:
    """Answers queries in a thread of its own.

    Args:
        most: the largest number of queries that are answered together.
        waiting: the largest number of queries that wait.
        on_batch: is told the number of queries answered together, and the seconds it took.
    """

    def __init__(
        self,
        *,
        most: int = MOST,
        waiting: int = WAITING,
        on_batch: Callable[[int, float], None] = lambda number, seconds: None,
    ) -> None:
        self.most, self.waiting, self.on_batch = most, waiting, on_batch
        self._queue: deque[_Waiting] = deque()
        self._idle: deque[Callable[[], None]] = deque(maxlen=IDLE)
        self._changed = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """The number of queries that wait."""
        return len(self._queue)

    async def ask(self, engine: Engine, queries: Sequence[Query], seconds: float) -> list[Answer]:
        """Return the answers to some queries. Raises :class:`BusyError` if too many wait, or they take too long."""
        return list(await asyncio.gather(*self._put(engine, queries, seconds)))

    async def call(self, function: Callable[[], Result], seconds: float) -> Result:
        """Return what a function returns in the thread, in its turn. Raises :class:`BusyError` as :meth:`ask` does."""
        (answer,) = self._put(None, [function], seconds)
        result: Result = await answer
        return result

    def when_idle(self, function: Callable[[], None]) -> None:
        """Call a function in the thread when no query waits; if too many wait for that, the oldest is forgotten."""
        with self._changed:
            self._idle.append(function)
            self._changed.notify()

    def _put(self, engine: Engine | None, work: Sequence[Any], seconds: float) -> list[asyncio.Future[Any]]:
        loop, deadline = asyncio.get_running_loop(), time.monotonic() + seconds
        asked = [_Waiting(engine, each, deadline, loop, loop.create_future()) for each in work]
        with self._changed:
            if self._ends or len(self._queue) + len(asked) > self.waiting:
                raise BusyError("too many requests wait; try again soon")
            self._queue.extend(asked)
            self._changed.notify()
        return [each.answer for each in asked]

    def end(self) -> None:
        """End the thread, once all that waits is answered."""
        with self._changed:
            self._ends = True
            self._idle.clear()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._idle:
                    if self._ends:
                        return
                    self._changed.wait()
                some = [self._queue.popleft() for _ in range(min(self.most, len(self._queue)))]
                idle = None if some else self._idle.popleft()
            if idle is not None:
                idle()
            else:
                self._answer(some)

    def _answer(self, some: Sequence[_Waiting]) -> None:
        now = time.monotonic()
        results: list[tuple[_Waiting, Any]] = [
            (each, BusyError("the request waited beyond its deadline")) for each in some if each.deadline < now
        ]
        asked = [each for each in some if each.deadline >= now]
        for engine in dict.fromkeys(each.engine for each in asked):
            own = [each for each in asked if each.engine is engine]
            results += zip(own, self._results(engine, own), strict=True)
        if asked:
            self.on_batch(len(asked), time.monotonic() - now)
        for loop in {each.loop for each, _ in results}:
            found = [(each.answer, result) for each, result in results if each.loop is loop]
            loop.call_soon_threadsafe(_deliver, found)

    def _results(self, engine: Engine | None, some: Sequence[_Waiting]) -> list[Any]:
        if engine is None:
            return [_tried(each.work) for each in some]
        answers = _tried(lambda: engine.answer([each.work for each in some]))
        return [answers] * len(some) if isinstance(answers, BaseException) else list(answers)


def _tried(function: Callable[[], Any]) -> Any:
    """Return what a function returns or, whatever a model raises, the error: the thread goes on."""
    try:
        return function()
    except Exception as error:
        return error


def _deliver(results: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in results:
        if future.done():  # its client has gone
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
