"""The inference thread: deadlines hold, failures harm only their own request, and idle work is done or told."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest

from adrec.inference.engine import Answer, Query
from adrec.serve.batcher import IDLE, Batcher, BusyError

NONE = np.empty(0, dtype=np.int64)


class Slow:
    """An engine that answers after some seconds, and fails for k = 13."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.sizes = seconds, list[int]()

    def answer(self, queries: list[Query]) -> list[Answer]:
        time.sleep(self.seconds)
        self.sizes.append(len(queries))
        if any(query.k == 13 for query in queries):
            raise ValueError("unlucky")
        return [Answer([], "model") for _ in queries]


def query(k: int = 1, choice: Any = None) -> Query:
    return Query(NONE, k, False, NONE, None, choice)


def soon(seconds: float = 2.0) -> float:
    return time.monotonic() + seconds


def test_what_waits_is_answered_together() -> None:
    async def ask() -> None:
        engine, batcher = Slow(0.05), Batcher()
        await asyncio.gather(*(batcher.ask(engine, [query()], soon()) for _ in range(30)))  # type: ignore[arg-type]
        assert sum(engine.sizes) == 30 and len(engine.sizes) < 5
        batcher.end()

    asyncio.run(ask())


def test_a_failure_is_told_and_the_thread_goes_on() -> None:
    async def ask() -> None:
        engine, batcher = Slow(), Batcher()
        with pytest.raises(ValueError, match="unlucky"):
            await batcher.ask(engine, [query(13)], soon())  # type: ignore[arg-type]
        batcher.when_idle(lambda: 1 / 0, lambda: None)  # type: ignore[arg-type, return-value]
        assert await batcher.ask(engine, [query()], soon())  # type: ignore[arg-type]
        assert batcher.is_alive
        batcher.end()

    asyncio.run(ask())


def test_deadlines_hold_even_while_the_thread_is_busy() -> None:
    async def ask() -> None:
        engine, batcher = Slow(1.5), Batcher()
        began = time.monotonic()
        with pytest.raises(BusyError, match="deadline"):
            await batcher.ask(engine, [query()], soon(0.1))  # type: ignore[arg-type]
        assert time.monotonic() - began < 1.2
        batcher.end()

    asyncio.run(ask())


def test_costly_queries_come_after_the_others_and_one_by_one() -> None:
    async def ask() -> None:
        engine, batcher = Slow(0.02), Batcher()
        some = [query(choice=object()) if at % 2 else query() for at in range(6)]
        await batcher.ask(engine, some, soon())  # type: ignore[arg-type]
        assert sorted(engine.sizes)[-1] <= 3 and engine.sizes.count(1) >= 3
        batcher.end()

    asyncio.run(ask())


def test_idle_work_is_done_or_told() -> None:
    batcher, gate = Batcher(), threading.Event()
    done, told = list[int](), list[int]()
    batcher.when_idle(lambda: gate.wait(5) and None, lambda: None)  # type: ignore[arg-type, return-value]
    time.sleep(0.05)
    for at in range(IDLE + 10):
        batcher.when_idle(lambda at=at: done.append(at), lambda at=at: told.append(at))  # type: ignore[misc]
    assert told == list(range(10))
    gate.set()
    deadline = time.monotonic() + 5
    while len(done) < IDLE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done == list(range(10, IDLE + 10))
    batcher.end()
    batcher.when_idle(lambda: done.append(-1), lambda: told.append(-1))
    assert told[-1] == -1 and done[-1] != -1


def test_too_much_is_refused() -> None:
    async def ask() -> None:
        engine, batcher = Slow(0.1), Batcher(waiting=5)
        tasks = [asyncio.create_task(batcher.ask(engine, [query()], soon())) for _ in range(5)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="too many"):
            await batcher.ask(engine, [query()] * 6, soon())  # type: ignore[arg-type]
        await asyncio.gather(*tasks)
        batcher.end()
        with pytest.raises(BusyError):
            await batcher.ask(engine, [query()], soon())  # type: ignore[arg-type]

    asyncio.run(ask())
