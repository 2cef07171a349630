"""The confidence of a recommendation: the calibrated probability that the item is the next one.

It is a softmax over the items that may be recommended, of scores divided by a temperature that is fitted on validation
(Guo et al. 2017, "On Calibration of Modern Neural Networks").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adrec.data.spans import Int64s
from adrec.inference.scorer import Histories, Scorer, scored_batches, seen
from adrec.inference.scores import NOTHING, Masked, item_blocks, masked_blocks
from adrec.nn.scores import Scores

MOST_SCORES = 1 << 27  # that the temperature is fitted on: some seconds
STEPS, HALVINGS = 30, 20  # of Newton's method, at most, and of one of its steps
CLOSE = 1e-6


@dataclass(frozen=True)
class Fit:
    """The mean negative log-likelihood of the next items at an inverse temperature, with two derivatives."""

    loss: float
    gradient: float
    curvature: float


def fitted_temperature(
    scorer: Scorer, histories: Histories, items: Int64s, *, filter_seen: bool = True, seed: int = 0
) -> float | None:
    """Return the temperature under which held-out ``items`` [m], after ``histories``, are most likely.

    With ``filter_seen`` the items of the history are left out. Held-out items that cannot be recommended do not count:
    those of their own history, if it is left out, and those unknown to the model. If the scores are too many, histories
    are drawn with ``seed``. Returns None if there is no such item, or no temperature is best.
    """
    usable = _usable(scorer, histories, items, filter_seen)
    most = max(1, MOST_SCORES // scorer.num_items)
    if len(usable) > most:
        usable = np.sort(np.random.default_rng(seed).permutation(usable)[:most])
    if len(usable) == 0:
        return None
    known = histories.known(scorer.num_items)
    some = Histories(known.items, known.starts[usable], known.ends[usable])
    return _newton(lambda beta: _fit(scorer, some, items[usable], filter_seen, beta))


def _usable(scorer: Scorer, histories: Histories, items: Int64s, filter_seen: bool) -> Int64s:
    """Return the indices of histories with a known item whose held-out item can be recommended."""
    known = histories.known(scorer.num_items)
    usable = (known.ends > known.starts) & (items <= scorer.num_items)
    if filter_seen:
        rows, past = seen(known, np.arange(len(known)))
        usable &= np.bincount(rows[past == items[rows]], minlength=len(items)) == 0
    return np.flatnonzero(usable)


def _newton(fit: Callable[[float], Fit]) -> float | None:
    """Minimise a convex loss over the inverse temperature by Newton's method with halved steps; return 1 / beta."""
    beta, at = 1.0, fit(1.0)
    for _ in range(STEPS):
        if at.curvature <= 0 or not np.isfinite(at.loss):
            return None
        step = -at.gradient / at.curvature
        for _ in range(HALVINGS):
            if beta + step > 0 and (found := fit(beta + step)).loss <= at.loss:
                break
            step /= 2
        else:
            return 1 / beta
        beta, at = beta + step, found
        if abs(step) < CLOSE * beta:
            return 1 / beta
    return None


def _fit(scorer: Scorer, histories: Histories, items: Int64s, filter_seen: bool, beta: float) -> Fit:
    loss = gradient = curvature = 0.0
    for chosen, scores in scored_batches(scorer, histories):
        masked = Masked.of(*seen(histories, chosen)) if filter_seen else NOTHING
        log_total, mean, square = _moments(scores, scorer.num_items, masked, beta)
        rows = torch.arange(len(chosen), device=scores.device)
        own = scores.of(rows, torch.from_numpy(items[chosen]).to(scores.device))  # [B]
        loss += float((log_total - beta * own).sum())
        gradient += float((mean - own).sum())
        curvature += float((square - mean.square()).sum())
    count = len(histories)
    return Fit(loss / count, gradient / count, curvature / count)


def _moments(scores: Scores, num_items: int, masked: Masked, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return log of the sum of ``exp(beta score)``, and the mean of the score and of its square under it, [B] each."""
    parts = []
    for _, block in masked_blocks(scores, item_blocks(scores.num_users, 1, num_items), masked):
        largest = block.amax(1, keepdim=True).double()  # [B, 1]
        start = torch.where(largest > -torch.inf, largest, 0.0)
        below = block.double().sub_(start)  # [B, n]: at most 0
        terms = (beta * below).exp_()
        below.clamp_(min=torch.finfo(block.dtype).min)  # what is masked has no share
        total = terms.sum(1)  # [B]; 0 if the block is masked as a whole
        gap = terms.mul_(below).sum(1) / total
        square = terms.mul_(below).sum(1) / total
        start = start[:, 0]
        parts.append((beta * start + total.log(), start + gap, start.square() + 2 * start * gap + square))
    log_totals, means, squares = (torch.stack(each) for each in zip(*parts, strict=True))  # [blocks, B]
    share = log_totals.softmax(0).nan_to_num()  # a block may be masked as a whole
    return log_totals.logsumexp(0), (share * means.nan_to_num()).sum(0), (share * squares.nan_to_num()).sum(0)
