"""Answers from item ids to item ids, without tables: in any thread, and after a fork.

What is answered is what :class:`~adrec.inference.recommender.Recommender` recommends: the same scores, rules and
confidence.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from adrec.data.seen import Seen
from adrec.data.spans import Int64s
from adrec.inference.rules import Limits, by_row
from adrec.inference.scorer import Histories, Top, top_k

if TYPE_CHECKING:
    from adrec.inference.recommender import Recommender

Id = int | str
Source = Literal["model", "popular"]


@dataclass(frozen=True)
class Query:
    """What is asked for one history.

    Attributes:
        history: known item numbers, oldest first, int64.
        k: the number of items.
        leaves_out: whether the items of the history are left out.
        block: item numbers that may not be recommended, int64.
        allow: the only item numbers that may be recommended, int64; None for all.
    """

    history: Int64s
    k: int
    leaves_out: bool
    block: Int64s
    allow: Int64s | None = None


class Recommended(NamedTuple):
    """A recommended item."""

    item: Id
    score: float
    confidence: float | None


class Answer(NamedTuple):
    """The recommended items of a query, best first, and whether the model or popularity chose them."""

    items: list[Recommended]
    source: Source


class Engine:
    """Answers queries with a recommender.

    Args:
        recommender: the model with its data set.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender, self.dataset = recommender, recommender.dataset
        self.num_items = recommender.scorer.num_items
        self._all_items: list[Id] = self.dataset.catalogue.ids.to_list()
        self._numbers = {each: number for number, each in enumerate(self._all_items[: self.num_items], start=1)}
        self._users = {each: index for index, each in enumerate(self.dataset.users.ids.to_list())}
        vocabularies = {"item": self.dataset.catalogue, "user": self.dataset.users}
        self._process = os.getpid()
        self._texts = {role: known.ids.dtype == pl.String for role, known in vocabularies.items()}

    @cached_property
    def seen(self) -> Seen:
        """What is done with seen items if a request says nothing."""
        return self.recommender.seen

    def _own_type(self, role: str, value: Id) -> Id:
        """Return an id as the data set has it: ``12`` means ``"12"`` where ids are texts, and the other way round."""
        if self._texts[role]:
            return str(value)
        if isinstance(value, str) and (value == "0" or (value.isdecimal() and value.isascii() and value[0] != "0")):
            return int(value)
        return value

    def numbers(self, items: Sequence[Id]) -> Int64s:
        """Return the numbers of the known ones of some items, in their order."""
        found = (self._numbers.get(self._own_type("item", each)) for each in items)
        return np.array([number for number in found if number is not None], dtype=np.int64)

    def history_of(self, user: Id) -> Int64s | None:
        """Return the item numbers of a user's history, oldest first, those that the model knows; None if unknown."""
        index = self._users.get(self._own_type("user", user))
        if index is None:
            return None
        history = self.dataset.history(index)
        return history[history <= self.num_items].astype(np.int64)

    def interactions_of(self, user: Id) -> int | None:
        """Return the length of a user's history; None if the user is unknown."""
        index = self._users.get(self._own_type("user", user))
        return None if index is None else len(self.dataset.history(index))

    def joined(self, before: Int64s, after: Int64s) -> Int64s:
        """Return a history with later items behind it."""
        return np.concatenate([before, after])

    def user(self, user: Id) -> tuple[Id, list[Id]] | None:
        """Return a user's id as the data set has it, and the history, oldest first; None if unknown."""
        own = self._own_type("user", user)
        index = self._users.get(own)
        if index is None:
            return None
        return own, [self._all_items[number - 1] for number in self.dataset.history(index).tolist()]

    def items_with(self, text: str, most: int) -> list[Id]:
        """Return at most ``most`` items that the model knows whose id contains a text, whatever its case."""
        wanted, found = text.lower(), list[Id]()
        for each in self._numbers:
            if wanted in str(each).lower():
                found.append(each)
                if len(found) == most:
                    break
        return found

    @cached_property
    def _unit_vectors(self) -> NDArray[np.float32] | None:
        vectors: NDArray[np.float32] | None = getattr(self.recommender.scorer, "item_vectors", None)
        if vectors is None:
            return None
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit

    @property
    def has_vectors(self) -> bool:
        """Whether items have vectors, whose cosine says how alike they are."""
        return self._unit_vectors is not None

    def similar(self, item: Id, k: int) -> list[tuple[Id, float]] | None:
        """Return the k items nearest to one by the cosine of their vectors; None if the item is unknown."""
        number, vectors = self._numbers.get(self._own_type("item", item)), self._unit_vectors
        if number is None or vectors is None:
            return None
        cosines = vectors[1 : self.num_items + 1] @ vectors[number]
        cosines[number - 1] = -np.inf
        k = min(k, self.num_items - 1)
        nearest = np.argpartition(-cosines, k - 1)[:k] if k < self.num_items - 1 else np.arange(self.num_items)
        nearest = nearest[np.argsort(-cosines[nearest], kind="stable")][:k]
        return [(self._all_items[at], float(cosines[at])) for at in nearest.tolist()]

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answer to each query. They are computed together, and do not depend on one another."""
        if os.getpid() != self._process:  # PyTorch's threads are lost in a fork, and it would wait for them
            torch.set_num_threads(1)
            self._process = os.getpid()
        spoken = [at for at, query in enumerate(queries) if len(query.history)]
        silent = [at for at, query in enumerate(queries) if not len(query.history)]
        answers: dict[int, Answer] = {}
        if spoken:
            some = [queries[at] for at in spoken]
            ends = np.cumsum([len(query.history) for query in some])
            starts = ends - [len(query.history) for query in some]
            found = top_k(
                self.recommender.scorer,
                Histories(np.concatenate([query.history for query in some]), starts, ends),
                max(query.k for query in some),
                filter_seen=False,  # the limits of each query say it
                limits=limits_of(some),
                temperature=self.recommender.temperature,
            )
            answers |= {at: self._answer(found, row, queries[at].k, "model") for row, at in enumerate(spoken)}
        if silent:
            some = [queries[at] for at in silent]
            k = min(max(query.k for query in some), self.num_items)
            found = self.recommender.popular(limits_of(some), len(some), k)
            answers |= {at: self._answer(found, row, queries[at].k, "popular") for row, at in enumerate(silent)}
        return [answers[at] for at in range(len(queries))]

    def _answer(self, found: Top, row: int, k: int, source: Source) -> Answer:
        confidences = found.confidence[row, :k].tolist()
        items = [
            Recommended(self._all_items[number - 1], score, None if math.isnan(confidence) else confidence)
            for number, score, confidence in zip(
                found.items[row, :k].tolist(), found.scores[row, :k].tolist(), confidences, strict=True
            )
            if number
        ]
        return Answer(items, source)


def limits_of(queries: Sequence[Query]) -> Limits:
    """Return what may be recommended to each of some queries."""
    left_out = [
        _pairs(row, each)
        for row, query in enumerate(queries)
        for each in ([query.block, np.unique(query.history)] if query.leaves_out else [query.block])
        if len(each)
    ]
    own = [_pairs(row, query.allow) for row, query in enumerate(queries) if query.allow is not None]
    limited = np.array([row for row, query in enumerate(queries) if query.allow is not None], dtype=np.int64)
    nothing = np.empty((2, 0), dtype=np.int64)
    return Limits(
        None,
        limited,
        by_row(np.concatenate(own, axis=1)) if own else nothing,
        by_row(np.concatenate(left_out, axis=1)) if left_out else nothing,
    )


def _pairs(row: int, items: Int64s) -> Int64s:
    """Return (row, item number) of some items of a row, [2, n]."""
    return np.stack([np.full(len(items), row, dtype=np.int64), items])
