"""Diverse lists by maximal marginal relevance (Carbonell and Goldstein 1998).

The next item of a list is the one with the largest ``(1 - d) p / p_max - d max cos``: p is its probability, p_max that
of the most probable item, and ``max cos`` its largest cosine with an item that is in the list already.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from adrec.inference.scorer import BATCH_SIZE, Top
from adrec.nn.diffusion import unit
from adrec.utils.errors import ConfigError

FEWEST, TIMES = 100, 10  # candidates of a list of k: at least FEWEST, and TIMES k


def pool_size(k: int) -> int:
    """Return the number of best items from which a list of ``k`` is chosen."""
    return max(FEWEST, TIMES * k)


def check_diversity(diversity: float, vectors: NDArray[np.float32] | None) -> None:
    """Raise :class:`ConfigError` for a diversity outside [0, 1], or above 0 without item vectors."""
    if not 0 <= diversity <= 1:
        raise ConfigError(f"diversity must be between 0, the plain list, and 1; it is {diversity}.")
    if diversity and vectors is None:
        raise ConfigError("this model has no item vectors, so diversity means nothing to it; leave it out.")


def diversified(
    top: Top, k: int, vectors: NDArray[np.float32], diversity: float, temperature: float | None = None
) -> Top:
    """Return k of the candidates ``top`` [m, C] of each history in the order of maximal marginal relevance, [m, k].

    Args:
        top: the best items, best first; unfilled slots hold item 0.
        k: the number of items.
        vectors: the item embedding, [V + 1, D].
        diversity: d, in 0..1; 0 is the order of ``top``.
        temperature: of the softmax of the scores; 1 by default.
    """
    k = min(k, top.items.shape[1])
    directions, order = unit(torch.from_numpy(vectors)), []
    for start in range(0, len(top.items), BATCH_SIZE):
        some = slice(start, start + BATCH_SIZE)
        items, scores = torch.from_numpy(top.items[some]), torch.from_numpy(top.scores[some])
        relevance = ((scores - scores[:, :1]) / (temperature or 1.0)).exp()  # [b, C]: p / p_max
        relevance = torch.where(items > 0, relevance, 0.0)
        order.append(_chosen(relevance, items, directions, k, diversity).numpy())
    chosen = np.concatenate(order) if order else np.empty((0, k), dtype=np.int64)
    rows = np.arange(len(chosen))[:, None]
    return Top(top.items[rows, chosen], top.scores[rows, chosen], top.confidence[rows, chosen])


def _chosen(
    relevance: torch.Tensor, items: torch.Tensor, directions: torch.Tensor, k: int, diversity: float
) -> torch.Tensor:
    """Return the positions of the chosen candidates, int64 [b, k]; unfilled slots come last."""
    rows = torch.arange(len(items))
    candidates = directions[items]  # [b, C, D]
    nearest = torch.full_like(relevance, -1.0)  # [b, C]: no item is chosen yet
    left = torch.where(items > 0, 0.0, -1e6)  # what was chosen gets -inf, so unfilled slots come before it
    chosen = []
    for position in range(k):
        gain = (1 - diversity) * relevance - (diversity * nearest if position else 0) + left
        best = gain.argmax(1)  # [b]
        chosen.append(best)
        left[rows, best] = -torch.inf
        cosines = torch.einsum("bcd,bd->bc", candidates, candidates[rows, best])
        nearest = torch.maximum(nearest, cosines)
    return torch.stack(chosen, 1)
