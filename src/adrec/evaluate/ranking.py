"""The rank of each held-out item among the whole catalogue, found by counting: nothing is sorted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s
from adrec.data.split import Targets
from adrec.evaluate.metrics import behind
from adrec.inference.scorer import BATCH_SIZE, Histories, Scorer, scored_batches, seen
from adrec.inference.scores import NOTHING, Masked, count_above
from adrec.nn.ranks import Ranks

Count = Callable[..., tuple[Tensor, Tensor]]  # with the arguments of :func:`count_above`


@dataclass(frozen=True)
class Ranking:
    """The ranks of the held-out items.

    Attributes:
        ranks: the number of other items that score at least as high as the held-out one, int64 [m]; if it is not
            ranked, :func:`adrec.evaluate.metrics.behind`.
        top: the first items of each ranking, int64 [m, top]; padded with 0.
        num_repeats: number of held-out items that are not ranked because they are in their own history.
    """

    ranks: Int64s
    top: Int64s
    num_repeats: int = 0


def held_out(dataset: Dataset, targets: Targets) -> tuple[Histories, Int64s]:
    """Return the history before each held-out interaction, and its item number, [m]."""
    histories = Histories(dataset.items, np.asarray(dataset.offsets)[targets.users], targets.ends)
    return histories, dataset.items[targets.positions].astype(np.int64)


def ranking(
    scorer: Scorer,
    histories: Histories,
    items: Int64s,
    *,
    filter_seen: bool = False,
    top: int = 0,
    batch_size: int = BATCH_SIZE,
    on_batch: Callable[[int], None] = lambda users: None,
    count: Count = count_above,
) -> Ranking:
    """Rank each held-out item; ties count against the model.

    Three kinds of items rank last, as no service would show them: items unknown to the model, items after a history
    without known items, and items left out because they are in their own history.

    Args:
        scorer: the model.
        histories: m histories.
        items: the held-out item number that followed each, [m].
        filter_seen: leave the items of the history out of the ranking.
        top: how many first items to return with the ranks.
        batch_size: histories scored at a time.
        on_batch: called with the number of histories done after each batch.
        count: counts the items that score at least as high.

    Raises:
        RunError: if the model's scores contain NaN.
    """
    num_items = scorer.num_items
    ranks = np.full(len(histories), behind(num_items), dtype=np.int64)
    top = min(top, num_items)
    first = np.zeros((len(histories), top), dtype=np.int64)
    known = histories.known(num_items)
    spoken = np.flatnonzero(known.ends > known.starts)
    spans = Histories(known.items, known.starts[spoken], known.ends[spoken])
    repeats = 0
    for some, scores in scored_batches(scorer, spans, batch_size):
        chosen = spoken[some]
        is_known = items[chosen] <= num_items
        target = np.where(is_known, items[chosen], 1)
        rows, past = seen(spans, some) if filter_seen else (target[:0], target[:0])
        masked = Masked.of(rows, past) if filter_seen else NOTHING
        is_left_out = np.bincount(rows[past == target[rows]], minlength=len(target)) > 0
        begin = 0 if scorer.ranks_padding else 1
        targets = torch.from_numpy(target).to(scores.device, non_blocking=True)
        above, best = count(scores, targets, num_items, masked, first=begin, top=top)
        ranks[chosen] = np.where(is_known & ~is_left_out, above.numpy(), behind(num_items))
        repeats += int((is_known & is_left_out).sum())
        first[chosen] = best.numpy()
        on_batch(len(chosen))
    return Ranking(ranks, first, repeats)


def ranking_by(ranks: Ranks, scorer: Scorer, histories: Histories, items: Int64s, **how: Any) -> Ranking:
    """Return :func:`ranking` by several processes, each of which ranks every N-th history with the whole catalogue.

    All processes call it with the same arguments, and get the same result.
    """
    own = np.arange(ranks.rank, len(histories), ranks.size)
    some = Histories(histories.items, histories.starts[own], histories.ends[own])
    part = ranking(scorer, some, items[own], **how)

    def together(values: Int64s) -> Int64s:
        whole = torch.zeros(len(histories), *values.shape[1:], dtype=torch.int64)
        whole[torch.from_numpy(own)] = torch.from_numpy(values)
        found: Int64s = ranks.total(whole.to(ranks.device)).cpu().numpy()
        return found

    repeats = int(ranks.total(torch.tensor([part.num_repeats], device=ranks.device)))
    return Ranking(together(part.ranks), together(part.top), repeats)
