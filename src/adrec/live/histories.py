"""Live histories: events on disk before they are acknowledged, and in memory for the next request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from adrec.live.store import Entry, Event, Store
from adrec.utils.errors import DataError

WAITING = 100_000  # events that may wait to be stored
MOST = 5_000  # events in one transaction


class FullError(Exception):
    """Raised if too many events wait to be stored."""


@dataclass(frozen=True)
class _Waiting:
    work: list[Event] | str  # events, or a user to erase
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[int]


class Live:
    """The events of a store by user, in memory.

    A thread of its own stores what waits in one transaction (group commit), then adds it to memory, and only then is it
    acknowledged.

    Args:
        store: the store; its events are read first.
        after: the number of the last event that no model needs, as its data set contains it; kept as ``first``.
    """

    def __init__(self, store: Store, after: int = 0) -> None:
        self.store, self.first = store, after
        self._users: dict[str, list[Entry]] = {}
        self._erased: dict[str, int] = {}
        self.latest_ms = 0
        for entry in store.entries(after):
            self._apply(entry)
        self._queue: deque[_Waiting] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    def after(self, user: str, seq: int) -> list[Entry]:
        """Return a user's events after a number, in their order."""
        return [each for each in self._users.get(user, ()) if each.seq > seq]

    def is_erased(self, user: str, seq: int) -> bool:
        """Return whether a user's interactions up to a number are erased."""
        return self._erased.get(user, 0) > seq

    async def add(self, events: Sequence[Event]) -> int:
        """Store events; return how many are new.

        Raises:
            FullError: if too many events wait.
            DataError: if they cannot be stored.
        """
        return await self._ask(list(events), len(events))

    async def erase(self, user: str) -> None:
        """Delete a user's events; what a data set has of the user is not used any more."""
        await self._ask(user, 1)

    def end(self) -> None:
        """Store what waits, and close the store."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join()
        self.store.close()

    async def _ask(self, work: list[Event] | str, size: int) -> int:
        loop = asyncio.get_running_loop()
        asked = _Waiting(work, loop, loop.create_future())
        with self._changed:
            if self._ends or self._waiting + size > WAITING:
                raise FullError("too many events wait to be stored; send them again soon")
            self._waiting += size
            self._queue.append(asked)
            self._changed.notify()
        return await asked.done

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._ends:
                        return
                    self._changed.wait()
                some = [self._queue.popleft()]
                size = _size(some[0])
                while self._queue and isinstance(some[-1].work, list) and isinstance(self._queue[0].work, list):
                    if size + _size(self._queue[0]) > MOST:
                        break
                    size += _size(self._queue[0])
                    some.append(self._queue.popleft())
                self._waiting -= size
            results = self._stored(some)
            for loop in {each.loop for each in some}:
                own = [(each.done, result) for each, result in zip(some, results, strict=True) if each.loop is loop]
                loop.call_soon_threadsafe(_deliver, own)

    def _stored(self, some: Sequence[_Waiting]) -> list[int | BaseException]:
        """Store what was asked for: one erasure, or the events of several requests in one transaction."""
        try:
            first = some[0].work
            if isinstance(first, str):
                self._apply(self.store.erase(first, int(1000 * time.time())))
                return [1]
            asked = [each.work for each in some if not isinstance(each.work, str)]
            entries = self.store.add([event for events in asked for event in events])
            for entry in entries.values():
                self._apply(entry)
        except Exception as error:  # the thread goes on
            failed = error if isinstance(error, DataError) else DataError(f"events cannot be stored ({error}).")
            return [failed] * len(some)
        return [sum(entries.pop(each.event_id, None) is not None for each in events) for events in asked]

    def _apply(self, entry: Entry) -> None:
        if entry.item is None:
            self._users.pop(entry.user, None)
            self._erased[entry.user] = entry.seq
            return
        self._users.setdefault(entry.user, []).append(entry)
        self.latest_ms = max(self.latest_ms, entry.time_ms)


def _size(waiting: _Waiting) -> int:
    return 1 if isinstance(waiting.work, str) else len(waiting.work)


def _deliver(results: Sequence[tuple[asyncio.Future[int], int | BaseException]]) -> None:
    for future, result in results:
        if future.done():  # its client has gone
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
