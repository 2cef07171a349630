"""The history of a user: what the data set has, then the events since."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adrec.data.moments import PER_SECOND
from adrec.data.spans import Int64s
from adrec.inference.engine import Engine
from adrec.inference.ids import Id
from adrec.live.histories import Live


@dataclass(frozen=True)
class Person:
    """A user's history, oldest first.

    Attributes:
        user: the id, as the data set has it.
        items: the ids of the items.
        numbers: their numbers, 0 for items that the model does not know, int64.
        times_ms: their times in milliseconds since 1970, int64; None if the data set's times only give an order.
    """

    user: Id
    items: list[Id]
    numbers: Int64s
    times_ms: NDArray[np.int64] | None


def until(engine: Engine, store: str) -> int:
    """Return the number of the last event of a store that the data set contains."""
    return engine.dataset.info.events.get(store, 0)


def person(engine: Engine, live: Live | None, user: Id) -> Person | None:
    """Return what is known of a user; None if nothing is.

    Events are in the order of their times, behind those of the data set that are not later: the order in which
    ``adrec prepare --events`` puts them.
    """
    own, index = engine.user_id(user), engine.index_of(user)
    known = 0 if live is None else until(engine, live.store.id)
    if live is not None and live.is_erased(str(own), known):
        index = None
    events = live.after(str(own), known) if live is not None else []
    if index is None and not events:
        return None
    base = np.empty(0, dtype=np.int64) if index is None else engine.dataset.history(index).astype(np.int64)
    items = [engine.item_of(number) for number in base.tolist()]
    numbers = np.where(base <= engine.num_items, base, 0)
    times = None if index is None else _milliseconds(engine, index)
    if events:
        later = np.array([each.time_ms for each in events], dtype=np.int64)
        before = times if times is not None else np.full(len(base), np.iinfo(np.int64).min)
        named = [engine.item_id(each.item or "") for each in events]
        numbers = np.concatenate([numbers, engine.numbers_or_0(named)])
        both, items = np.concatenate([before, later]), items + named
        order = np.argsort(both, kind="stable")
        items, numbers, both = [items[at] for at in order.tolist()], numbers[order], both[order]
        times = both
    return Person(own, items, numbers, times)


def _milliseconds(engine: Engine, index: int) -> NDArray[np.int64] | None:
    """Return the times of a user's history in milliseconds; None if they only give an order."""
    dataset = engine.dataset
    unit = PER_SECOND.get(dataset.info.time_unit)
    if unit is None:
        return None
    times = np.asarray(dataset.times[dataset.offsets[index] : dataset.offsets[index + 1]])
    found: NDArray[np.int64] = np.floor(times * (1000 / unit)).astype(np.int64)
    return found


def latest_ms(engine: Engine, live: Live | None) -> int | None:
    """Return the last moment that is known, of the data set or an event; None if times only give an order."""
    unit = PER_SECOND.get(engine.dataset.info.time_unit)
    if unit is None:
        return None
    last = int(np.asarray(engine.dataset.times).max() * (1000 / unit))
    return max(last, 0 if live is None else live.latest_ms)
