"""Answers from item ids to item ids, without tables: in any thread, and after a fork.

What is answered is what :class:`~adrec.inference.recommender.Recommender` recommends: the same scores, rules and
confidence.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.data.seen import Seen
from adrec.data.spans import Int64s
from adrec.inference.ids import Id, Ids
from adrec.inference.index import SPARE, ItemIndex
from adrec.inference.scorer import Choice, Histories, Top, best_choice, scored_batches
from adrec.inference.scores import BLOCK, NOTHING, log_total
from adrec.models.dense import DenseScorer
from adrec.models.network import NetworkModel
from adrec.models.onnx import OnnxScorer
from adrec.nn.dense import Dense
from adrec.nn.scores import Table
from adrec.utils.errors import ConfigError, RunError

if TYPE_CHECKING:
    from adrec.inference.recommender import Recommender

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
        choice: chooses k of more items, such as a diverse list; None for the best k.
    """

    history: Int64s
    k: int
    leaves_out: bool
    block: Int64s
    allow: Int64s | None = None
    choice: Choice | None = None


class Recommended(NamedTuple):
    """A recommended item."""

    item: Id
    score: float
    confidence: float | None


class Answer(NamedTuple):
    """The recommended items of a query, best first, and whether the model or popularity chose them."""

    items: list[Recommended]
    source: Source


class Reason(NamedTuple):
    """An item of the history, and how much it raises the score of a recommended item."""

    item: Id
    change: float


AT_ONCE = 32  # histories
TRIED = 100  # items of a history that are left out, one after the other, to explain


class Engine(Ids):
    """Answers queries with a recommender.

    Args:
        recommender: the model with its data set.
    """

    def __init__(self, recommender: Recommender) -> None:
        super().__init__(recommender.dataset, recommender.scorer.num_items)
        self.recommender, self._process = recommender, os.getpid()
        self.dense = dense_scorer(recommender.scorer)
        self.index: ItemIndex | None = None

    def use_onnx(self, folder: Path, digest: str, threads: int = 1) -> None:
        """Let ONNX Runtime compute scores, from an export of the run with this ``digest`` of its weights."""
        if self.dense is None:
            raise ConfigError("only adrec without model.ablation is exported to ONNX; leave out onnx (--onnx).")
        self.dense = OnnxScorer(folder, self.dense, digest, threads)

    @cached_property
    def seen(self) -> Seen:
        """What is done with seen items if a request says nothing."""
        return self.recommender.seen

    @cached_property
    def vectors(self) -> NDArray[np.float32] | None:
        """The item vectors by number, [V + 1, D]; None if the model has none."""
        return getattr(self.recommender.scorer, "item_vectors", None)

    @cached_property
    def _unit_vectors(self) -> NDArray[np.float32] | None:
        if self.vectors is None:
            return None
        lengths = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = self.vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit

    def similar(self, item: Id, k: int) -> list[tuple[Id, float]] | None:
        """Return the k items nearest to one by the cosine of their vectors; None if the item is unknown."""
        number, vectors = self.number_of(item), self._unit_vectors
        if number == 0 or vectors is None:
            return None
        cosines = vectors[1 : self.num_items + 1] @ vectors[number]
        cosines[number - 1] = -np.inf
        k = min(k, self.num_items - 1)
        nearest = np.argpartition(-cosines, k - 1)[:k] if k < self.num_items - 1 else np.arange(self.num_items)
        nearest = nearest[np.argsort(-cosines[nearest], kind="stable")][:k]
        return [(self.item_of(at + 1), float(cosines[at])) for at in nearest.tolist()]

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Return the answer to each query. They are computed together, and do not depend on one another.

        Raises :class:`RunError` if the model's scores are NaN.
        """
        self._after_fork()
        answers: dict[int, Answer] = {}
        if self.index is not None and self.dense is not None:
            answers = {at: self._near(self.index, query) for at, query in enumerate(queries) if _searches(query)}
        spoken = [at for at, query in enumerate(queries) if len(query.history) and at not in answers]
        for some, scores in self._scored([queries[at].history for at in spoken]):
            own = [spoken[at] for at in some]
            tops = self._best(scores, [queries[at] for at in own], self.recommender.temperature)
            answers |= {at: self._answer(top, "model") for at, top in zip(own, tops, strict=True)}
        for at, query in enumerate(queries):
            if at not in answers:
                answers[at] = self._popular(query)
        return [answers[at] for at in range(len(queries))]

    def _after_fork(self) -> None:
        """Do without PyTorch's threads, which are lost in a fork: it would wait for them."""
        if os.getpid() != self._process:
            torch.set_num_threads(1)
            self._process = os.getpid()

    def _scored(self, histories: Sequence[Int64s]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield indices of histories and their scores by item number, [b, V + 1]; no history is empty."""
        at_once = max(1, BLOCK // (self.num_items + 1))
        for first in range(0, len(histories), at_once):
            some = histories[first : first + at_once]
            if self.dense is not None:
                yield list(range(first, first + len(some))), self.dense(some)
                continue
            ends = np.cumsum([len(each) for each in some])
            flat = Histories(np.concatenate(some), ends - [len(each) for each in some], ends)
            for chosen, found in scored_batches(self.recommender.scorer, flat):
                yield (chosen + first).tolist(), found.block(slice(0, self.num_items + 1)).float()

    def _best(self, scores: Tensor, queries: Sequence[Query], temperature: float | None) -> list[Top]:
        """Return the best items of each query, [1, k] each; its ``scores`` [b, V + 1] are changed."""
        for row, query in zip(scores, queries, strict=True):
            _mask(row, query)
        tops = list(_tops(scores, [min(query.k, self.num_items) for query in queries], temperature))
        for at, query in enumerate(queries):
            if query.choice is not None:
                some, k = Table(scores[at : at + 1]), min(query.k, self.num_items)
                tops[at] = best_choice(some, k, self.num_items, NOTHING, temperature, query.choice)
        return tops

    def _near(self, index: ItemIndex, query: Query) -> Answer:
        """Return the best of the items that the index finds, by their exact scores; there is no confidence."""
        assert self.dense is not None
        (vector,) = self.dense.queries([query.history])
        left_out = np.concatenate([query.block, query.history]) if query.leaves_out else query.block
        count = min(self.num_items, query.k + len(left_out) + SPARE)
        found = index.candidates(vector.cpu().numpy(), count)
        numbers = np.setdiff1d(np.concatenate([found, query.history]), left_out)
        scores = self.dense.scores_of(vector, query.history, numbers)
        order = torch.argsort(scores, descending=True, stable=True)[: query.k].cpu()
        rows = zip(numbers[order.numpy()].tolist(), scores.cpu()[order].tolist(), strict=True)
        return Answer([Recommended(self.item_of(number), score, None) for number, score in rows], "model")

    def _popular(self, query: Query) -> Answer:
        """Return the most popular items that a query allows; the scores are their interactions."""
        counts, places = self.recommender.popularity
        (top,) = self._best(torch.from_numpy(places[None].copy()), [query], None)
        scores = np.where(top.items > 0, counts[top.items], -np.inf)
        return self._answer(Top(top.items, scores, np.full_like(scores, np.nan)), "popular")

    def _answer(self, top: Top, source: Source) -> Answer:
        rows = zip(*(part[0].tolist() for part in top), strict=True)
        return Answer(
            [
                Recommended(self.item_of(number), score, None if math.isnan(confidence) else confidence)
                for number, score, confidence in rows
                if number
            ],
            source,
        )

    def _scores_of(self, histories: Sequence[Int64s], numbers: Int64s) -> Tensor:
        """Return the scores of some item numbers, [histories, n]."""
        rows = torch.empty(len(histories), len(numbers))
        if self.dense is not None:
            for first in range(0, len(histories), AT_ONCE):
                some = histories[first : first + AT_ONCE]
                for at, query in enumerate(self.dense.queries(some)):
                    rows[first + at] = self.dense.scores_of(query, some[at], numbers).cpu()
            return rows
        for some_rows, scores in self._scored(histories):
            rows[some_rows] = scores[:, torch.from_numpy(numbers)].cpu()
        return rows

    @torch.inference_mode()
    def reasons(self, history: Int64s, items: Sequence[Id], most: int) -> list[list[Reason]]:
        """Return why each of the ``items`` is recommended: the ``most`` items of the history that raise it most.

        The change of an item's score is the score with the whole history less that without one of its items, wherever
        that stands. The last :data:`TRIED` different items that the model sees are tried. What lowers the score is no
        reason. Of a history of one item nothing remains, so it has no reasons.
        """
        self._after_fork()
        seen = history[-self.recommender.scorer.max_length :]
        tried = list(dict.fromkeys(seen[::-1].tolist()))[:TRIED]  # the latest first
        if most < 1 or not (history != tried[0] if tried else history[:0]).any():
            return [[] for _ in items]
        without = [history[history != each] for each in tried]
        numbers = self.numbers(items)
        rows = self._scores_of([history, *without], numbers)
        changes = (rows[0] - rows[1:]).T  # [items, tried]
        found = []
        for change in changes.tolist():
            order = sorted((at for at in range(len(change)) if change[at] > 0), key=lambda at: -change[at])[:most]
            found.append([Reason(self.item_of(tried[at]), change[at]) for at in order])
        return found


def _searches(query: Query) -> bool:
    """Return whether an index can answer: what is chosen from a list, or by a rule of the list, is ranked exactly."""
    return len(query.history) > 0 and query.allow is None and query.choice is None


def _tops(scores: Tensor, ks: Sequence[int], temperature: float | None) -> Iterator[Top]:
    """Yield the best items of each row of ``scores`` [b, V + 1], [1, k] each, where 0 is no item."""
    best, indices = scores[:, 1:].topk(max(ks))  # [b, k] each
    if best[:, 0].isnan().any():  # NaN is the largest for it
        raise RunError("the model's scores are not numbers: its training has diverged; train it again.")
    p = torch.full_like(best, torch.nan)
    if temperature is not None:
        p = (best / temperature - log_total(scores[:, 1:], temperature, best[:, 0])[:, None]).exp()
    items = torch.where(best > -torch.inf, indices + 1, 0)
    numbers, values, shares = items.cpu().numpy(), best.cpu().numpy(), p.cpu().numpy()
    for row, k in enumerate(ks):
        own = (slice(row, row + 1), slice(k))
        yield Top(numbers[own], values[own], shares[own])


def _mask(scores: Tensor, query: Query) -> None:
    """Set the scores [V + 1] of what a query does not allow to ``-inf``, in place."""
    if query.allow is not None:
        allowed = torch.from_numpy(query.allow).to(scores.device)
        kept = scores[allowed]
        scores.fill_(-torch.inf)
        scores[allowed] = kept
    if len(query.block):
        scores[torch.from_numpy(query.block).to(scores.device)] = -torch.inf
    if query.leaves_out and len(query.history):
        scores[torch.from_numpy(query.history).to(scores.device)] = -torch.inf


def dense_scorer(scorer: object) -> DenseScorer | None:
    """Return a scorer of few histories at a time, if the model has one."""
    if isinstance(scorer, NetworkModel) and scorer.network is not None and Dense.supports(scorer.network):
        return DenseScorer(scorer.network, scorer.seed)
    return None
