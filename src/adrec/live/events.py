"""What a store of events takes and gives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl


class Event(NamedTuple):
    """An event: a user and an item.

    Attributes:
        event_id: its own id; of events with one id, the first counts.
        user: the user's id, as text.
        item: the item's id, as text.
        time_ms: milliseconds since 1970 (UTC).
        event: the type of event; None if it has none.
    """

    event_id: str
    user: str
    item: str
    time_ms: int
    event: str | None = None


class Entry(NamedTuple):
    """What the store has of an event or, without an item, of a user's erasure."""

    seq: int
    user: str
    item: str | None
    time_ms: int
    event: str | None


@dataclass(frozen=True)
class News:
    """The entries of a store after some number.

    Attributes:
        store: the store's id.
        last: the number of its last entry.
        events: ``user``, ``item``, ``time`` (milliseconds), ``event``, in their order; without those of erased users.
        erased: users whose earlier interactions are erased.
    """

    store: str
    last: int
    events: pl.DataFrame
    erased: tuple[str, ...]


def hash_of(event_id: str) -> str:
    """Return what the store has of an event's id."""
    return hashlib.sha256(event_id.encode()).hexdigest()[:32]
