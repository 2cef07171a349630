"""Live histories: events on disk before they are acknowledged, and in memory for the next request."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from adrec.live.events import Entry, Event, hash_of
from adrec.live.store import Store
from adrec.utils.errors import DataError
from adrec.utils.futures import deliver

WAITING = 100_000  # events that may wait to be stored
MOST = 5_000  # events in one transaction
OF_A_USER = 5_000  # the last events of a user that are in memory
SLOW = 15.0  # seconds after which a request is told that its events may not be stored
ENDING = 10.0  # seconds in which what waits is stored at the end
logger = logging.getLogger(__name__)


class FullError(Exception):
    """Raised if too many events wait to be stored, or the database does not answer."""


@dataclass(frozen=True)
class _Waiting:
    work: list[Event] | str  # events, or a user to erase
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[int]

    @property
    def size(self) -> int:
        return 1 if isinstance(self.work, str) else len(self.work)


class Live:
    """The events of a store by user, in memory: of each user the last :data:`OF_A_USER`.

    A thread of its own stores what waits in one transaction (group commit), then adds it to memory, and only then is it
    acknowledged. Whatever fails, the thread goes on, and what is on disk comes to memory.

    Args:
        store: the store; its events are read first.
        after: the number of the last event that no model needs, as its data set contains it; kept as ``first``.
    """

    def __init__(self, store: Store, after: int = 0) -> None:
        self.store, self.first = store, after
        self._users: dict[str, deque[Entry]] = {}
        self._erased: dict[str, int] = {}
        self._last = after
        self.latest_ms = 0
        self._behind = False  # memory lacks what may be on disk
        self._read()
        self._queue: deque[_Waiting] = deque()
        self._waiting, self._forget = 0, after
        self._changed = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def after(self, user: str, seq: int) -> list[Entry]:
        """Return a user's last events after a number, in their order."""
        return [each for each in list(self._users.get(user, ())) if each.seq > seq]

    def is_erased(self, user: str, seq: int) -> bool:
        """Return whether a user's interactions up to a number are erased."""
        return self._erased.get(user, 0) > seq

    async def add(self, events: Sequence[Event]) -> int:
        """Store events; return how many are new.

        Raises:
            FullError: if too many events wait, or the database does not answer in time.
            DataError: if they cannot be stored.
        """
        return await self._ask(list(events), len(events))

    async def erase(self, user: str) -> None:
        """Delete a user's events; what a data set has of the user is not used any more. Raises as :meth:`add` does."""
        await self._ask(user, 1)

    def forget(self, seq: int) -> None:
        """Free the events up to a number, which no model needs any more."""
        with self._changed:
            self._forget = max(self._forget, seq)
            self._changed.notify()

    def end(self) -> None:
        """Store what waits, and close the store; a database that does not answer is not waited for long."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join(ENDING)
        if self.is_alive:
            logger.error("the database of events does not answer; %d requests were not stored", len(self._queue))
        else:
            self.store.close()

    async def _ask(self, work: list[Event] | str, size: int) -> int:
        loop = asyncio.get_running_loop()
        asked = _Waiting(work, loop, loop.create_future())
        with self._changed:
            if self._ends or not self.is_alive or self._waiting + size > WAITING:
                raise FullError("too many events wait to be stored; send them again soon")
            self._waiting += size
            self._queue.append(asked)
            self._changed.notify()
        try:
            async with asyncio.timeout(SLOW):
                return await asked.answer
        except TimeoutError as error:
            raise FullError("the database of events does not answer in time; send them again soon") from error

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and self._forget == self.first:
                    if self._ends:
                        return
                    self._changed.wait()
                some, forget = self._group(), self._forget
            if forget > self.first:
                self._drop(forget)
            if some:
                deliver(list(zip(some, self._stored(some), strict=True)))

    def _group(self) -> list[_Waiting]:
        """Take what is done together: one erasure, or the events of several requests."""
        some: list[_Waiting] = []
        while self._queue and sum(each.size for each in some) < MOST:
            if some and (isinstance(some[0].work, str) or isinstance(self._queue[0].work, str)):
                break
            some.append(self._queue.popleft())
            self._waiting -= some[-1].size
        return some

    def _stored(self, some: Sequence[_Waiting], *, again: bool = True) -> list[int | BaseException]:
        """Do what was asked for in one transaction or, if that fails, each by itself: one may spoil it for all.

        What fails by itself is tried once more, as a lost connection is made anew.
        """
        try:
            return self._done(some)
        except Exception as error:  # the thread goes on
            self._behind = True  # it may be on disk all the same, if the answer was lost
            if len(some) == 1 and not again:
                logger.error("events cannot be stored: %s", error)
                return [error if isinstance(error, DataError) else DataError(f"events cannot be stored ({error}).")]
        alone = len(some) == 1
        return [result for each in some for result in self._stored([each], again=not alone)]

    def _done(self, some: Sequence[_Waiting]) -> list[int | BaseException]:
        if self._behind:
            self._read()
        first = some[0].work
        if isinstance(first, str):
            self._apply(self.store.erase(first, int(1000 * time.time())))
            return [1]
        asked = [each.work for each in some if not isinstance(each.work, str)]
        entries = self.store.add([event for events in asked for event in events])
        for entry in entries.values():
            self._apply(entry)
        return [sum(entries.pop(hash_of(each.event_id), None) is not None for each in events) for events in asked]

    def _read(self) -> None:
        """Read what memory lacks."""
        for entry in self.store.entries(self._last):
            self._apply(entry)
        self._behind = False

    def _apply(self, entry: Entry) -> None:
        self._last = max(self._last, entry.seq)
        if entry.item is None:
            self._users.pop(entry.user, None)
            self._erased[entry.user] = entry.seq
            return
        self._users.setdefault(entry.user, deque(maxlen=OF_A_USER)).append(entry)
        self.latest_ms = max(self.latest_ms, entry.time_ms)

    def _drop(self, seq: int) -> None:
        for user, own in list(self._users.items()):
            kept = deque((each for each in own if each.seq > seq), maxlen=OF_A_USER)
            if kept:
                self._users[user] = kept
            else:
                del self._users[user]
        self._erased = {user: at for user, at in self._erased.items() if at > seq}
        self.first = seq
