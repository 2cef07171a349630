"""Requests and responses of the service."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Id = int | str
Seen = Literal["data", "keep", "leave-out"]


class RecommendRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Who to recommend to, and what may be recommended.

    Attributes:
        user: a user of the data set; their history comes first.
        history: items, oldest first, that come after it.
        k: the number of items.
        seen: whether the items of the history are recommended; by default as the data set says.
        allow: recommend only these.
        block: never recommend these.
    """

    user: Id | None = None
    history: list[Id] = []
    k: Annotated[int, msgspec.Meta(ge=1)] = 10
    seen: Seen = "data"
    allow: list[Id] | None = None
    block: list[Id] = []


class SimilarRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The item whose nearest items are asked for, and how many."""

    item: Id
    k: Annotated[int, msgspec.Meta(ge=1)] = 10


class RecommendedItem(msgspec.Struct):
    """A recommended item; it comes from the ``model``, or is ``popular`` if nothing of the history is known."""

    item: Id
    score: float
    confidence: float | None
    source: Literal["model", "popular"]


class History(msgspec.Struct):
    """How much of the history was known: interactions, and those with items that the model knows."""

    interactions: int
    known: int


class RecommendResponse(msgspec.Struct):
    """The recommended items, best first, and by which model on which data."""

    items: list[RecommendedItem]
    history: History
    model: str
    data: str


class SimilarItem(msgspec.Struct):
    """An item and the cosine of its vector with that of the item that was asked for."""

    item: Id
    score: float


class SimilarResponse(msgspec.Struct):
    """The nearest items, nearest first."""

    items: list[SimilarItem]
    model: str


class ModelResponse(msgspec.Struct):
    """The model that answers."""

    model: str
    name: str
    run: str
    data: str
    data_name: str
    items: int
    users: int
    seen: str
    split: str


class ItemsResponse(msgspec.Struct):
    """Items whose id contains a text."""

    items: list[Id]


class UserResponse(msgspec.Struct):
    """A user's history, oldest first."""

    user: Id
    history: list[Id]


class Problem(msgspec.Struct, omit_defaults=True):
    """What is wrong with a request (RFC 9457)."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    field: str | None = None
