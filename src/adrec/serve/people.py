"""The history of a user: what the data set has, then the events since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adrec.data.moments import PER_SECOND
from adrec.data.spans import Int64s
from adrec.inference.engine import Engine
from adrec.inference.ids import Id
from adrec.live.events import Entry
from adrec.live.histories import Live


@dataclass(frozen=True)
class Person:
    """A user's history, oldest first.

    Attributes:
        user: the id, as the data set has it.
        numbers: the numbers of the items, 0 for items that the model does not know, int64.
        times: their times in the unit of the data set.
        base: the item numbers of the data set's part, int64.
        others: the ids of the items behind it.
        order: the position in ``base`` and ``others`` together of each interaction, int64.
    """

    user: Id
    numbers: Int64s
    times: NDArray[Any]
    base: Int64s
    others: Sequence[Id]
    order: Int64s

    def items(self, engine: Engine) -> list[Id]:
        """Return the ids of the items."""
        known = len(self.base)
        return [
            engine.item_of(int(self.base[at])) if at < known else self.others[at - known] for at in self.order.tolist()
        ]


def until(engine: Engine, store: str) -> int:
    """Return the number of the last event of a store that the data set contains."""
    return engine.dataset.info.events.get(store, 0)


def person(engine: Engine, live: Live | None, user: Id) -> Person | None:
    """Return what is known of a user; None if nothing is.

    Interactions are in the order of their times in the data set's unit, and of one time in the order in which they were
    stored: the order of ``adrec prepare --events``. Those that wait in the data set, as a filter leaves out users with
    too few, count too.
    """
    own, index = engine.user_id(user), engine.index_of(user)
    known = 0 if live is None else until(engine, live.store.id)
    erased = live is not None and live.is_erased(str(own), known)
    events = live.after(str(own), known) if live is not None else []
    waiting = [] if erased or index is not None else engine.waiting(own)
    if erased:
        index = None
    if index is None and not events and not waiting:
        return None
    dataset = engine.dataset
    span = slice(0, 0) if index is None else slice(int(dataset.offsets[index]), int(dataset.offsets[index + 1]))
    base, times = np.asarray(dataset.items[span]).astype(np.int64), np.asarray(dataset.times[span])
    others: list[Id] = [item for item, _ in waiting] + [engine.item_id(each.item or "") for each in events]
    numbers = np.where(base <= engine.num_items, base, 0)
    order = np.arange(len(base) + len(others))
    if others:
        later = np.concatenate([np.array([at for _, at in waiting]), _in_unit(events, dataset.info.time_unit)])
        if dataset.info.time_unit not in PER_SECOND:  # only an order: behind all others
            later = np.full(len(others), times.max() if len(times) else 0)
        times = np.concatenate([times, later])
        order = np.argsort(times, kind="stable")
        numbers = np.concatenate([numbers, engine.numbers_or_0(others)])[order]
        times = times[order]
    return Person(own, numbers, times, base, others, order)


def _in_unit(events: Sequence[Entry], unit: str) -> Int64s:
    """Return the times of events in a unit, as whole numbers of it."""
    milliseconds = np.array([each.time_ms for each in events], dtype=np.int64)
    per_second = PER_SECOND.get(unit, 1000)
    return milliseconds * (per_second // 1000) if per_second >= 1000 else milliseconds * per_second // 1000


def latest(engine: Engine, live: Live | None, now: float) -> float | None:
    """Return the last moment that is known, of the data set or an event, but not after ``now`` (seconds since 1970).

    It is in the unit of the data set; None if its times only give an order.
    """
    unit = PER_SECOND.get(engine.dataset.info.time_unit)
    if unit is None:
        return None
    event = 0.0 if live is None else min(live.latest_ms / 1000, now)
    return max(engine.last_time, event * unit)
