"""The inference engine: scores and the best items of histories. All users of a model share it.

A :class:`Scorer` is the interface of a model to evaluation and recommendation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from adrec.data.batch import PackedBatch, history_batch
from adrec.data.spans import Int64s, spans
from adrec.inference.scores import NOTHING, Masked, best_items, probable_items
from adrec.models.base import NO_LIMIT
from adrec.nn.scores import Scores


class Scorer(Protocol):
    """Scores the catalogue for each history of a batch."""

    @property
    def num_items(self) -> int:
        """V, the size of the catalogue."""

    @property
    def max_length(self) -> int:
        """L, the number of last items of a history that the model sees."""

    @property
    def ranks_padding(self) -> bool:
        """Whether the padding row is ranked among the items, as in the published code; it is never recommended."""

    def __call__(self, batch: PackedBatch) -> Scores:
        """Return the scores of the batch's histories for every item number."""


@dataclass(frozen=True)
class Histories:
    """Histories as spans of a flat array of item numbers; a history to be scored must not be empty.

    Attributes:
        items: item numbers, 1..V.
        starts: the start offset of each history, int64 [m].
        ends: the end offset of each history (exclusive), int64 [m].
    """

    items: NDArray[np.integer]
    starts: Int64s
    ends: Int64s

    def __len__(self) -> int:
        return len(self.starts)

    def known(self, num_items: int) -> Histories:
        """Return the histories without items above ``num_items``, unknown to the model; some may be empty."""
        known = self.items <= num_items
        if known.all():
            return self
        before = np.concatenate([[0], np.cumsum(known)])
        return Histories(self.items[known], before[self.starts], before[self.ends])


BATCH_SIZE = 512  # histories at a time
PAIRS = 1 << 25  # maximum number of attention pairs in a batch: bounds the memory for long histories


def scored_batches(
    scorer: Scorer, histories: Histories, batch_size: int = BATCH_SIZE
) -> Iterator[tuple[Int64s, Scores]]:
    """Yield (history indices [B], their scores) for batches of histories of similar length."""
    lengths = np.minimum(histories.ends - histories.starts, scorer.max_length)
    order = np.argsort(lengths, kind="stable")
    first, attends = 0, scorer.max_length < NO_LIMIT  # counting models read whole histories
    while first < len(order):
        chosen = order[first : first + batch_size]
        if attends:  # as many as fit: histories are sorted by length, and attention is padded to the longest
            pairs = np.arange(1, len(chosen) + 1) * (lengths[chosen] + 1) ** 2
            chosen = chosen[: max(1, np.count_nonzero(pairs <= PAIRS))]
        first += len(chosen)
        batch = history_batch(histories.items, histories.starts[chosen], histories.ends[chosen], scorer.max_length)
        yield chosen, scorer(batch)


def seen(histories: Histories, chosen: Int64s) -> tuple[Int64s, Int64s]:
    """Return (row, item number) of every interaction of the ``chosen`` histories, in full length."""
    starts, ends = histories.starts[chosen], histories.ends[chosen]
    rows = np.repeat(np.arange(len(chosen)), ends - starts)
    return rows, histories.items[spans(starts, ends - starts)].astype(np.int64)


class Top(NamedTuple):
    """The best items of each history, best first, [m, k] each.

    If fewer than k items may be recommended, a row is padded with item 0 and score ``-inf``.

    Attributes:
        items: item numbers, int64.
        scores: their scores, float32.
        confidence: their softmax probabilities among the items that may be recommended, float32; NaN without a
            temperature.
    """

    items: Int64s
    scores: NDArray[np.float32]
    confidence: NDArray[np.float32]


class RowLimits(Protocol):
    """What may be recommended in each row."""

    def rows(self, chosen: Int64s) -> RowLimits:
        """Return the limits of some rows, which become rows 0, 1, .."""

    def masked(self, seen: tuple[Int64s, Int64s] | None) -> Masked:
        """Return the mask of the rows, with the (row, item number) of their ``seen`` items if these are left out."""


class _NoLimits:
    def rows(self, chosen: Int64s) -> RowLimits:
        return self

    def masked(self, seen: tuple[Int64s, Int64s] | None) -> Masked:
        return NOTHING if seen is None else Masked.of(*seen)


NO_LIMITS: RowLimits = _NoLimits()
MORE, MOST_CANDIDATES = 4, 10_000  # times as many candidates where a choice cannot fill a list, up to so many


class Choice(Protocol):
    """Chooses k of the best items of each history."""

    def candidates(self, k: int) -> int:
        """Return the number of best items from which k are chosen."""

    def __call__(self, top: Top, k: int) -> Top:
        """Return k of the items ``top`` [b, C], in the order of the list, [b, k]."""


def top_k(
    scorer: Scorer,
    histories: Histories,
    k: int,
    *,
    filter_seen: bool = True,
    limits: RowLimits = NO_LIMITS,
    temperature: float | None = None,
    choice: Choice | None = None,
    batch_size: int = BATCH_SIZE,
    on_batch: Callable[[int], None] = lambda users: None,
) -> Top:
    """Return the best items of each history; k is at most V.

    Args:
        scorer: the model.
        histories: m histories.
        k: the number of items.
        filter_seen: leave out the items of the history.
        limits: what may be recommended in each row; all items by default.
        temperature: of the softmax of the confidence (:mod:`adrec.inference.confidence`).
        choice: chooses k of more items of each history, such as a diverse list.
        batch_size: the number of histories scored at a time.
        on_batch: called after each batch with the number of finished histories.

    Raises:
        RunError: if the model's scores are NaN.
    """
    k = min(k, scorer.num_items)
    items = np.zeros((len(histories), k), dtype=np.int64)
    values = np.full((len(histories), k), -np.inf, dtype=np.float32)
    confidence = np.full_like(values, np.nan)
    for chosen, scores in scored_batches(scorer, histories, batch_size):
        masked = limits.rows(chosen).masked(seen(histories, chosen) if filter_seen else None)
        items[chosen], values[chosen], confidence[chosen] = best_choice(
            scores, k, scorer.num_items, masked, temperature, choice
        )
        on_batch(len(chosen))
    return Top(items, values, confidence)


def best_choice(
    scores: Scores, k: int, num_items: int, masked: Masked, temperature: float | None, choice: Choice | None
) -> Top:
    """Return the best items of one batch, [B, k]; where a ``choice`` cannot fill a list, it gets more candidates.

    It gets at most :data:`MOST_CANDIDATES`, so a list may be short though a worse item would fit.
    """
    pool = k if choice is None else min(choice.candidates(k), num_items)
    while True:
        if temperature is None:
            best, best_scores = best_items(scores, pool, num_items, masked)
            p = torch.full_like(best_scores, torch.nan)
        else:
            best, best_scores, p = probable_items(scores, pool, num_items, masked, temperature)
        top = Top(best.numpy(), best_scores.numpy(), p.numpy())
        if choice is None:
            return top
        found = choice(top, k)
        if pool >= min(num_items, MOST_CANDIDATES) or not ((found.items[:, -1] == 0) & (top.items[:, -1] > 0)).any():
            return found
        pool = min(MORE * pool, num_items)
