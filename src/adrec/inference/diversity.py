"""Diverse lists by maximal marginal relevance (Carbonell and Goldstein 1998).

The next item of a list is the one with the largest ``(1 - d) p / p_max - d max cos``: p is its probability, p_max that
of the most probable item, and ``max cos`` its largest cosine with an item that is in the list already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.inference.scorer import Top
from adrec.nn.diffusion import unit
from adrec.utils.errors import ConfigError

FEWEST, TIMES = 100, 10  # candidates of a list of k: at least FEWEST, and TIMES k
NUMBERS = 1 << 24  # of candidates' vectors in memory: 64 MiB


def check_diversity(diversity: Any, vectors: NDArray[np.float32] | None) -> None:
    """Raise :class:`ConfigError` for a diversity outside [0, 1], or above 0 without item vectors."""
    if isinstance(diversity, bool) or not isinstance(diversity, int | float | np.number) or not 0 <= diversity <= 1:
        raise ConfigError(f"diversity must be a number from 0, the plain list, to 1; it is {diversity!r}.")
    if diversity and vectors is None:
        raise ConfigError("this model has no item vectors, so diversity means nothing to it; leave it out.")


@dataclass(frozen=True)
class Diverse:
    """Chooses items in the order of maximal marginal relevance.

    Attributes:
        vectors: the item embedding, [V + 1, D].
        diversity: d, in 0..1; 0 is the order of the scores.
        temperature: of the softmax of the scores; 1 by default.
    """

    vectors: NDArray[np.float32]
    diversity: float
    temperature: float | None = None

    def candidates(self, k: int) -> int:
        """Return the number of best items from which ``k`` are chosen."""
        return max(FEWEST, TIMES * k)

    def __call__(self, top: Top, k: int) -> Top:
        """Return k of the candidates ``top`` [b, C] of each history, best first, [b, k]; item 0 is no candidate."""
        k, rows = min(k, top.items.shape[1]), max(1, NUMBERS // max(1, top.items.shape[1] * self.vectors.shape[1]))
        parts = [self._chosen(top, slice(start, start + rows), k) for start in range(0, len(top.items), rows)]
        chosen = torch.cat(parts).numpy() if parts else np.empty((0, k), dtype=np.int64)
        users = np.arange(len(chosen))[:, None]
        return Top(top.items[users, chosen], top.scores[users, chosen], top.confidence[users, chosen])

    def _chosen(self, top: Top, some: slice, k: int) -> Tensor:
        """Return the positions of the chosen candidates of some histories, int64 [r, k]; unfilled slots come last."""
        items, scores = torch.from_numpy(top.items[some]), torch.from_numpy(top.scores[some])
        relevance = ((scores - scores[:, :1]) / (self.temperature or 1.0)).exp()  # [r, C]: p / p_max
        relevance = torch.where(items > 0, relevance, 0.0)
        rows, candidates = torch.arange(len(items)), unit(torch.from_numpy(self.vectors[items.numpy()]))  # [r, C, D]
        nearest = torch.zeros_like(relevance)  # [r, C]: nothing is chosen yet
        left = torch.where(items > 0, 0.0, -1e6)  # what was chosen gets -inf, so unfilled slots come before it
        chosen = []
        for position in range(k):
            best = ((1 - self.diversity) * relevance - self.diversity * nearest + left).argmax(1)  # [r]
            chosen.append(best)
            left[rows, best] = -torch.inf
            cosines = torch.einsum("rcd,rd->rc", candidates, candidates[rows, best])
            nearest = cosines if position == 0 else torch.maximum(nearest, cosines)
        return torch.stack(chosen, 1)
