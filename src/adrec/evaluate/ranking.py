"""The rank of each held-out item among the whole catalogue, found by counting: nothing is sorted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s
from adrec.data.split import Targets
from adrec.recommend import Histories, Scorer, best_items, mask_seen, scored_batches


@dataclass(frozen=True)
class Ranking:
    """Where the held-out items stand.

    Attributes:
        ranks: how many other items score at least as high as the held-out one, int64 [m].
        top: the first items of each ranking, int64 [m, top]; 0 where there are fewer.
    """

    ranks: Int64s
    top: Int64s


def held_out(dataset: Dataset, targets: Targets) -> tuple[Histories, Int64s]:
    """Return the history before each held-out interaction, and its item number, [m]."""
    histories = Histories(dataset.items, np.asarray(dataset.offsets)[targets.users], targets.positions)
    return histories, dataset.items[targets.positions].astype(np.int64)


def ranking(
    scorer: Scorer,
    histories: Histories,
    items: Int64s,
    *,
    filter_seen: bool = False,
    top: int = 0,
    batch_size: int | None = None,
    on_batch: Callable[[int], None] = lambda users: None,
) -> Ranking:
    """Rank each held-out item; ties count against the model.

    An item that the model does not know, and one after a history of which it knows nothing, ranks behind all.

    Args:
        scorer: the model.
        histories: m histories.
        items: the held-out item number that followed each, [m].
        filter_seen: leave the items of the history out of the ranking (the held-out item stays in it).
        top: how many first items to return with the ranks.
        batch_size: histories scored at a time; by default as many as their scores have room for.
        on_batch: called with the number of histories done after each batch.

    Raises:
        RunError: where the model's scores are not numbers.
    """
    ranks = np.full(len(histories), scorer.num_items, dtype=np.int64)
    top = min(top, scorer.num_items)
    first = np.zeros((len(histories), top), dtype=np.int64)
    known = histories.known(scorer.num_items)
    spoken = np.flatnonzero(known.ends > known.starts)
    spans = Histories(known.items, known.starts[spoken], known.ends[spoken])
    for some, scores in scored_batches(scorer, spans, batch_size):
        chosen = spoken[some]
        is_known = items[chosen] <= scorer.num_items
        target = torch.from_numpy(np.where(is_known, items[chosen], 0))[:, None]  # [B, 1]
        own = scores.gather(1, target)  # [B, 1]
        if filter_seen:
            mask_seen(scores, spans, some)
            scores.scatter_(1, target, own)
        ranks[chosen] = np.where(is_known, ((scores >= own).sum(1) - 1).numpy(), scorer.num_items)
        if top:
            first[chosen], _ = best_items(scores, top)
        on_batch(len(chosen))
    return Ranking(ranks, first)
