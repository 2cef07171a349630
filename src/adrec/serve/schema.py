"""Requests and responses of the service."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

TEXT = 512  # characters of an id
LATEST = 253_402_300_800_000  # the year 10000, in milliseconds since 1970

Text = Annotated[str, Meta(min_length=1, max_length=TEXT, pattern=r"^[^\x00]*$")]  # databases refuse NUL
Id = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | Text
Seen = Literal["data", "keep", "leave-out"]
Count = Annotated[int, Meta(ge=1)]
Millis = Annotated[int, Meta(ge=0, lt=LATEST)]
Value = str | int | float | bool


class Slate(Struct, forbid_unknown_fields=True):
    """What the list as a whole must be.

    Attributes:
        diversity: how much an item loses for resembling items above it, 0..1.
        per_category: the largest number of items of one category.
        category: the attribute that is the category; by default the one of --category.
    """

    diversity: Annotated[float, Meta(ge=0, le=1)] = 0.0
    per_category: Count | None = None
    category: Text | None = None


class RecommendRequest(Struct, forbid_unknown_fields=True):
    """Who to recommend to, and what may be recommended.

    Attributes:
        user: a user of the data set, or of whom there are events; their history comes first.
        history: items, oldest first, that come after it.
        k: the number of items.
        seen: whether the items of the history are recommended; by default as the data set says.
        seen_within: leave out the user's items of the last days alone, such as ``30d``.
        allow: recommend only these.
        block: never recommend these.
        filter: recommend only items with these attributes; of a list of values, any.
        slate: what the list as a whole must be.
        explain: the number of items of the history that are named for each recommended item.
        deadline_ms: milliseconds in which the answer is of use; after them it is 503.
    """

    user: Id | None = None
    history: list[Id] = []
    k: Count = 10
    seen: Seen = "data"
    seen_within: Text | None = None
    allow: list[Id] | None = None
    block: list[Id] = []
    filter: dict[Text, Value | list[Value]] = {}
    slate: Slate | None = None
    explain: Annotated[int, Meta(ge=0)] = 0
    deadline_ms: Annotated[int, Meta(ge=1, le=600_000)] | None = None


class Reason(Struct):
    """An item of the history, and how much it raises the score of the recommended item."""

    item: Id
    change: float
    title: str | UnsetType = UNSET


class RecommendedItem(Struct):
    """A recommended item; it comes from the ``model``, or is ``popular`` if nothing of the history is known."""

    item: Id
    score: float
    confidence: float | None
    source: Literal["model", "popular"]
    title: str | UnsetType = UNSET
    why: list[Reason] | UnsetType = UNSET


class History(Struct):
    """How much of the history was known: interactions, and those with items that the model knows."""

    interactions: int
    known: int


class RecommendResponse(Struct):
    """The recommended items, best first, and by which model on which data."""

    items: list[RecommendedItem]
    history: History
    model: str
    data: str


class SimilarRequest(Struct, forbid_unknown_fields=True):
    """The item whose nearest items are asked for, and how many."""

    item: Id
    k: Count = 10


class SimilarItem(Struct):
    """An item and the cosine of its vector with that of the item that was asked for."""

    item: Id
    score: float
    title: str | UnsetType = UNSET


class SimilarResponse(Struct):
    """The nearest items, nearest first."""

    items: list[SimilarItem]
    model: str


class EventRequest(Struct, forbid_unknown_fields=True):
    """An event: a user and an item.

    Attributes:
        event_id: the event's own id; of events with one id, the first counts, so it can be sent again.
        user: the user.
        item: the item.
        time: milliseconds since 1970, or a date and time with its zone; now by default.
        event: the type of event, as in the data set's event weights.
    """

    event_id: Text
    user: Id
    item: Id
    time: Millis | Annotated[datetime, Meta(tz=True)] | None = None
    event: Text | None = None


class EventsResponse(Struct):
    """How many events are stored: those that are new, and those whose id was known."""

    stored: int
    repeated: int


class ModelResponse(Struct):
    """The model that answers.

    Attributes:
        model: the digest of its weights.
        name: its kind.
        run: the run's folder.
        data: the fingerprint of its data set.
        data_name: the data set's name.
        items: the number of items that it recommends.
        users: the number of users of the data set.
        seen: what is done with seen items.
        split: the split that it was trained on.
        category: the attribute that is the category of an item by default.
        previous: the digest of the model that a rollback brings back.
        accuracy: metrics of its test part, as ``adrec evaluate`` wrote them beside the run.
        protocol: how they were measured.
        index: the index of the nearest items and its recall; null if the whole catalogue is ranked.
    """

    model: str
    name: str
    run: str
    data: str
    data_name: str
    items: int
    users: int
    seen: str
    split: str
    category: str | None = None
    previous: str | None = None
    accuracy: dict[str, float] | None = None
    protocol: str | None = None
    index: dict[str, float] | None = None


class FoundItem(Struct):
    """An item of a search."""

    item: Id
    title: str | UnsetType = UNSET


class ItemsResponse(Struct):
    """Items whose id or title contains a text."""

    items: list[FoundItem]


class UserResponse(Struct):
    """A user's history, oldest first; with the titles of its items if there are any."""

    user: Id
    history: list[Id]
    titles: list[str | None] | UnsetType = UNSET


class Problem(Struct, omit_defaults=True):
    """What is wrong with a request (RFC 9457)."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    field: str | None = None


RECOMMEND = msgspec.json.Decoder(RecommendRequest | list[RecommendRequest])
SIMILAR = msgspec.json.Decoder(SimilarRequest)
EVENTS = msgspec.json.Decoder(EventRequest | list[EventRequest])
