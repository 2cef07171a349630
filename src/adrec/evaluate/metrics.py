"""Metrics of ranks, and their intervals over users.

A rank counts from 0: the number of items scored at least as high as the held-out one. Each held-out item is ranked
separately, so hit ratio equals recall, and the ideal DCG is 1. If a user has several held-out items, the user's value
is their mean, so every user has the same weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from adrec.data.spans import Int64s
from adrec.utils.errors import ConfigError, did_you_mean

Float64s = NDArray[np.float64]

KINDS = ("hr", "ndcg", "mrr")
BEHIND = 1_000_000  # the largest cut-off; items that are not ranked get at least this rank


def behind(num_items: int) -> int:
    """Return the rank of a missed item in a catalogue of ``num_items``: behind every cut-off."""
    return max(num_items, BEHIND)


@dataclass(frozen=True)
class Estimate:
    """A mean over users and its 95 % bootstrap interval, in 0..1."""

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return ``{"mean": .., "low": .., "high": ..}``."""
        return asdict(self)


def metric_names(cutoffs: Sequence[int], kinds: Sequence[str] = KINDS) -> tuple[str, ...]:
    """Return names such as ``hr@5``. Raises :class:`ConfigError` unless cut-offs are a list of positive integers."""
    if not isinstance(cutoffs, Iterable) or not list(cutoffs):
        raise ConfigError(f"cut-offs are a list of whole numbers, such as [5, 10]; they are {cutoffs!r}.")
    for k in cutoffs:
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or not 1 <= k <= BEHIND:
            raise ConfigError(f"a metric's cut-off k must be a whole number from 1 to {BEHIND:,}; it is {k!r}.")
    return tuple(f"{kind}@{k}" for kind in kinds for k in cutoffs)


def values(name: str, ranks: Int64s) -> Float64s:
    """Return the metric ``name`` (``hr@k``, ``ndcg@k``, ``mrr@k``) of each rank, [m].

    ``hr`` is 1 within the first k; ``ndcg`` is 1 / log2(rank + 2) there (Järvelin and Kekäläinen 2002); ``mrr`` is
    1 / (rank + 1) there.
    """
    kind, _, cutoff = name.partition("@")
    if kind not in KINDS or not cutoff.isdecimal() or int(cutoff) < 1:
        raise ConfigError(f"there is no metric {name!r}{did_you_mean(kind, KINDS)}; write one such as 'ndcg@20'.")
    hit = ranks < int(cutoff)
    if kind == "hr":
        return hit.astype(np.float64)
    gain = 1 / np.log2(ranks + 2) if kind == "ndcg" else 1 / (ranks + 1)
    return np.where(hit, gain, 0.0)


def user_values(names: Sequence[str], ranks: Int64s, users: Int64s) -> Float64s:
    """Return each user's mean of each metric, [users, metrics]; ``users`` [m] has the user of each rank."""
    _, owner, counts = np.unique(users, return_inverse=True, return_counts=True)
    return np.stack([np.bincount(owner, values(name, ranks)) / counts for name in names], axis=1)


def means(names: Sequence[str], ranks: Int64s, users: Int64s | None = None) -> dict[str, float]:
    """Return each metric's mean over users; ``users`` [m] has the user of each rank, by default one user per rank."""
    if users is not None and _several(users):
        return dict(zip(names, user_values(names, ranks, users).mean(0).tolist(), strict=True))
    return {name: float(values(name, ranks).mean()) for name in names}


def _several(users: Int64s) -> bool:
    return len(np.unique(users)) < len(users)


def batch_means(names: Sequence[str], ranks: Int64s, batch_size: int = 512) -> dict[str, float]:
    """Return the published code's average: the unweighted mean of batch means."""
    batches = [ranks[first : first + batch_size] for first in range(0, len(ranks), batch_size)]
    per_batch = [means(names, batch) for batch in batches]
    return {name: float(np.mean([each[name] for each in per_batch])) for name in names}


def estimates(
    names: Sequence[str],
    ranks: Int64s,
    users: Int64s | None = None,
    *,
    seed: int = 0,
    num_resamples: int = 2000,
) -> dict[str, Estimate]:
    """Return each metric's mean with its 95 % percentile bootstrap interval over users.

    If every user has one held-out item, metrics depend only on the rank. A resample of users is then a multinomial draw
    over the distinct ranks: the same bootstrap, at a cost independent of the number of users.

    Args:
        names: names of the metrics.
        ranks: int64 [m].
        users: the user of each rank, [m]; by default one user per rank. Users are drawn with all their items.
        seed: seed of the bootstrap.
        num_resamples: number of resamples.
    """
    if len(ranks) == 0:
        raise ConfigError("there are no users to evaluate: give the rank of one held-out item at least.")
    if users is not None and _several(users):
        return _clustered(names, user_values(names, ranks, users), np.random.default_rng(seed), num_resamples)
    beyond = max(int(name.partition("@")[2]) for name in names)  # ranks from here on have value 0
    distinct, counts = np.unique(np.minimum(ranks, beyond), return_counts=True)
    table = np.stack([values(name, distinct) for name in names], axis=1)  # [distinct, metrics]
    rng = np.random.default_rng(seed)
    shares = counts / len(ranks)
    resampled = []
    for first in range(0, num_resamples, 100):
        draws = rng.multinomial(len(ranks), shares, size=min(100, num_resamples - first))
        resampled.append(draws @ table / len(ranks))
    low, high = np.quantile(np.concatenate(resampled), [0.025, 0.975], axis=0)  # [metrics] each
    mean = counts @ table / len(ranks)
    return {name: Estimate(float(mean[i]), float(low[i]), float(high[i])) for i, name in enumerate(names)}


def _clustered(
    names: Sequence[str], table: Float64s, rng: np.random.Generator, num_resamples: int
) -> dict[str, Estimate]:
    """Return the means of ``table`` [users, metrics] with intervals by drawing its rows."""
    num_users = len(table)
    resampled = [
        np.bincount(rng.integers(num_users, size=num_users), minlength=num_users) @ table / num_users
        for _ in range(num_resamples)
    ]
    low, high = np.quantile(np.stack(resampled), [0.025, 0.975], axis=0)  # [metrics] each
    mean = table.mean(0)
    return {name: Estimate(float(mean[i]), float(low[i]), float(high[i])) for i, name in enumerate(names)}
