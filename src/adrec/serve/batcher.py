"""Micro-batching: one thread answers all queries that wait, together; nothing waits while the thread is idle."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from adrec.inference.engine import Answer, Engine, Query
from adrec.utils.futures import deliver

Result = TypeVar("Result")
MOST = 64  # queries that are answered together
WAITING = 512  # queries that may wait
IDLE = 64  # pieces of work that may wait until the thread is idle
GRACE = 0.5  # seconds beyond its deadline that a request waits for the thread
logger = logging.getLogger(__name__)


class BusyError(Exception):
    """Raised if too many queries wait, or a query waited beyond its deadline."""


LATE = "the request waited beyond its deadline"


@dataclass(frozen=True)
class _Waiting:
    engine: Engine | None  # None: ``work`` is called
    work: Any  # a query, or a function
    deadline: float  # on the clock of time.monotonic
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


@dataclass(frozen=True)
class _Idle:
    work: Callable[[], None]
    otherwise: Callable[[], None]


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
        self._idle: deque[_Idle] = deque()
        self._changed = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """The number of queries that wait."""
        return len(self._queue)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    async def ask(self, engine: Engine, queries: Sequence[Query], deadline: float) -> list[Answer]:
        """Return the answers to some queries.

        Raises :class:`BusyError` if too many wait, or they take beyond the ``deadline`` (of time.monotonic).
        """
        return await self._answers(self._put(engine, queries, deadline), deadline)

    async def call(self, function: Callable[[], Result], deadline: float) -> Result:
        """Return what a function returns in the thread, in its turn. Raises :class:`BusyError` as :meth:`ask` does."""
        (answer,) = await self._answers(self._put(None, [function], deadline), deadline)
        found: Result = answer
        return found

    async def _answers(self, futures: Sequence[asyncio.Future[Any]], deadline: float) -> list[Any]:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic()) + GRACE):
                return list(await asyncio.gather(*futures))
        except TimeoutError as error:
            raise BusyError(LATE) from error

    def when_idle(self, work: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Call ``work`` in the thread when no query waits; ``otherwise`` is called if too much waits for that."""
        with self._changed:
            self._idle.append(_Idle(work, otherwise))
            dropped = self._idle.popleft() if len(self._idle) > IDLE or self._ends else None
            self._changed.notify()
        if dropped is not None:
            dropped.otherwise()

    def _put(self, engine: Engine | None, work: Sequence[Any], deadline: float) -> list[asyncio.Future[Any]]:
        loop = asyncio.get_running_loop()
        asked = [_Waiting(engine, each, deadline, loop, loop.create_future()) for each in work]
        with self._changed:
            if self._ends or not self.is_alive or len(self._queue) + len(asked) > self.waiting:
                raise BusyError("too many requests wait; try again soon")
            self._queue.extend(asked)
            self._changed.notify()
        return [each.answer for each in asked]

    def end(self) -> None:
        """End the thread, once all that waits is answered; what waits until it is idle is not done."""
        with self._changed:
            self._ends = True
            left = list(self._idle)
            self._idle.clear()
            self._changed.notify()
        self._thread.join()
        for each in left:
            each.otherwise()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._idle:
                    if self._ends:
                        return
                    self._changed.wait()
                some = [self._queue.popleft() for _ in range(min(self.most, len(self._queue)))]
                idle = None if some else self._idle.popleft()
            try:
                if idle is not None:
                    idle.work()
                else:
                    self._answer(some)
            except Exception:  # whatever happens, the thread goes on
                logger.exception("the inference thread failed, and goes on")

    def _answer(self, some: Sequence[_Waiting]) -> None:
        """Answer queries that can be answered together, then the others one by one, each if its time is not over."""
        began = time.monotonic()
        asked = self._in_time(some)
        together = [each for each in asked if each.engine is not None and each.work.choice is None]
        for engine in dict.fromkeys(each.engine for each in together):
            own = [each for each in together if each.engine is engine]
            assert engine is not None
            answers = _tried(lambda engine=engine, own=own: engine.answer([each.work for each in own]))  # type: ignore[misc]
            failed = isinstance(answers, BaseException)
            deliver([(each, answers if failed else answers[at]) for at, each in enumerate(own)])
        for each in asked:
            if each.engine is None or each.work.choice is not None:
                for alone in self._in_time([each]):
                    deliver([(alone, _tried(lambda alone=alone: _alone(alone)))])  # type: ignore[misc]
        if asked:
            self.on_batch(len(asked), time.monotonic() - began)

    def _in_time(self, some: Sequence[_Waiting]) -> list[_Waiting]:
        """Return those whose deadline is not over; the others are told."""
        now = time.monotonic()
        deliver([(each, BusyError(LATE)) for each in some if each.deadline < now])
        return [each for each in some if each.deadline >= now]


def _alone(waiting: _Waiting) -> Any:
    return waiting.work() if waiting.engine is None else waiting.engine.answer([waiting.work])[0]


def _tried(function: Callable[[], Any]) -> Any:
    """Return what a function returns or, whatever a model raises, the error."""
    try:
        return function()
    except Exception as error:
        return error
