"""Significance of differences between models: paired tests over users, and intervals over users and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from adrec.evaluate.metrics import Estimate, Float64s
from adrec.utils.errors import ConfigError

SURE = 0.05  # significance level
AT_ONCE = 1 << 22  # signs or draws held in memory at once


@dataclass(frozen=True)
class Difference:
    """The paired difference of a metric between two models.

    Attributes:
        estimate: the mean difference over users with its 95 % bootstrap interval.
        p: two-sided p-value of the permutation test that exchanges the two models' values within users.
        num_users: number of compared users.
    """

    estimate: Estimate
    p: float
    num_users: int

    def reversed(self) -> Difference:
        """Return the difference with the opposite sign, theirs minus ours."""
        estimate = Estimate(-self.estimate.mean, -self.estimate.high, -self.estimate.low)
        return Difference(estimate, self.p, self.num_users)


def paired_difference(
    ours: Float64s, theirs: Float64s, *, seed: int = 0, num_permutations: int = 10_000, num_resamples: int = 2000
) -> Difference:
    """Compare a metric of the same users under two models.

    The permutation test (Fisher 1935; Smucker, Allan and Carterette 2007) draws signs for the users' differences: under
    the null hypothesis that the models are equal, a user's two values are exchangeable. ``p`` is the share of draws at
    least as far from 0 as the observed sum. The observed signs count as one draw, so ``p`` is never 0.

    Args:
        ours: each user's value, [users].
        theirs: the same users' values, [users].
        seed: of the permutations and of the bootstrap.
        num_permutations: draws of signs.
        num_resamples: draws of users.

    Raises:
        ConfigError: where the users are not the same, or there are none.
    """
    draws = {"seed": seed, "num_permutations": num_permutations, "num_resamples": num_resamples}
    return paired_differences({"": ours}, theirs, **draws)[""]


def paired_differences(
    ours: Mapping[str, Float64s],
    theirs: Float64s,
    *,
    seed: int = 0,
    num_permutations: int = 10_000,
    num_resamples: int = 2000,
) -> dict[str, Difference]:
    """Compare several models with one, like :func:`paired_difference`, with the same draws for all.

    Args:
        ours: each model's values by user, [users] each.
        theirs: the other model's values of the same users, [users].
        seed: of the permutations and of the bootstrap.
        num_permutations: draws of signs.
        num_resamples: draws of users.

    Raises:
        ConfigError: where the users are not the same, or there are none.
    """
    if not ours:
        return {}
    if any(values.shape != theirs.shape for values in ours.values()) or len(theirs) == 0:
        raise ConfigError("two models are compared on the same users; these results have other users, or none.")
    differences = np.stack([values - theirs for values in ours.values()], axis=1)  # [users, models]
    p = _permuted(differences, np.random.default_rng([seed, 0]), num_permutations)
    means = _resampled(differences, np.random.default_rng([seed, 1]), num_resamples)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return {
        name: Difference(Estimate(float(mean), float(low[index]), float(high[index])), float(p[index]), len(theirs))
        for index, (name, mean) in enumerate(zip(ours, differences.mean(0), strict=True))
    }


def unpaired_difference(
    ours: Float64s, theirs: Float64s, *, seed: int = 0, num_permutations: int = 10_000, num_resamples: int = 2000
) -> Difference:
    """Compare a metric of different users, such as those to whom two models answered.

    The permutation test draws which users are ours: under the null hypothesis that the models are equal, and users are
    divided at random, all divisions are equally probable. ``p`` is the share of draws at least as far from 0 as the
    observed difference, which counts as one draw. The interval is that of a bootstrap of both groups.

    Args:
        ours: each user's value, [users].
        theirs: the values of the other users, [others].
        seed: of the permutations and of the bootstrap.
        num_permutations: draws of divisions.
        num_resamples: draws of users.

    Raises:
        ConfigError: where there are no users of one of the two.
    """
    if len(ours) == 0 or len(theirs) == 0:
        raise ConfigError("two models are compared on users of both; one of the two has none.")
    both, observed = np.concatenate([ours, theirs]), float(ours.mean() - theirs.mean())
    rng = np.random.default_rng([seed, 2])
    distinct, counts = np.unique(both, return_counts=True)
    far, chunk = 1, max(1, AT_ONCE // len(distinct))
    for first in range(0, num_permutations, chunk):  # how many of each value are ours in a draw
        size = min(chunk, num_permutations - first)
        drawn = rng.multivariate_hypergeometric(counts, len(ours), size=size, method="marginals")
        means_of_ours = drawn @ distinct / len(ours)
        others = (both.sum() - drawn @ distinct) / len(theirs)
        far += int((np.abs(means_of_ours - others) >= abs(observed) - 1e-12).sum())
    rng = np.random.default_rng([seed, 3])
    means = [_resampled(each[:, None], rng, num_resamples)[:, 0] for each in (ours, theirs)]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    estimate = Estimate(observed, float(low), float(high))
    return Difference(estimate, far / (num_permutations + 1), len(both))


def _permuted(differences: Float64s, rng: np.random.Generator, num_permutations: int) -> Float64s:
    """Return the share of sign draws with sums at least as far from 0 as the observed sums, [models]."""
    changed = differences[(differences != 0).any(1)]  # [c, models]; users without any difference add nothing to a draw
    total = changed.sum(0)
    far, chunk = np.ones(differences.shape[1]), max(1, AT_ONCE // max(len(changed), 1))
    for first in range(0, num_permutations, chunk):
        count = min(chunk, num_permutations - first)
        bits = np.unpackbits(rng.integers(0, 256, (count, -(-len(changed) // 8)), dtype=np.uint8), axis=1)
        sums = 2 * (bits[:, : len(changed)].astype(np.float64) @ changed) - total  # [count, models]
        far += (np.abs(sums) >= np.abs(total) * (1 - 1e-9)).sum(0)
    return np.asarray(far / (num_permutations + 1), dtype=np.float64)


def _resampled(differences: Float64s, rng: np.random.Generator, num_resamples: int) -> Float64s:
    """Return the means of so many draws of users, [draws, models]."""
    num_users = len(differences)
    means, chunk = [], max(1, AT_ONCE // num_users)
    for first in range(0, num_resamples, chunk):
        count = min(chunk, num_resamples - first)
        drawn = rng.integers(num_users, size=(count, num_users)) + num_users * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * num_users).reshape(count, num_users)
        means.append(times.astype(np.float64) @ differences / num_users)
    return np.concatenate(means)


def _resampled_means(values: Float64s, rng: np.random.Generator, num_resamples: int) -> Float64s:
    """Return the means of so many draws of users: multinomial over the distinct values, as those are few."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) > len(values) // 4:
        return np.array([values[rng.integers(len(values), size=len(values))].mean() for _ in range(num_resamples)])
    shares = counts / len(values)
    means: Float64s = rng.multinomial(len(values), shares, size=num_resamples) @ distinct / len(values)
    return means


def holm(p_values: Mapping[str, float], family: int | None = None) -> dict[str, float]:
    """Return p-values adjusted for multiple comparisons (Holm 1979).

    ``family`` is the number of possible comparisons, if the given ones were selected by their outcome.
    """
    family = max(family or 0, len(p_values))
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted: dict[str, float] = {}
    least = 0.0
    for index, name in enumerate(ordered):
        least = max(least, min(1.0, (family - index) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}


def over_seeds(values: Sequence[Float64s], *, seed: int = 0, num_resamples: int = 2000) -> Estimate:
    """Return a metric's mean over seeds and users with a 95 % interval that holds for other users and other seeds.

    Two half-widths are added in quadrature: that of the bootstrap over users (of their means over seeds), and that of
    Student's t over the seeds' means. The interval is conservative. Two seeds that differ widely give a wide interval;
    if seeds agree, the spread over users dominates. With one seed, it is only the bootstrap over users, which does not
    cover other seeds.

    Args:
        values: for each seed, each user's value, in [0, 1], [users]; the same users for each seed.
        seed: seed of the bootstrap.
        num_resamples: number of resamples of users.
    """
    table = np.stack(values)  # [seeds, users]
    mean, of_seeds = float(table.mean()), table.mean(1)
    means = _resampled_means(table.mean(0), np.random.default_rng(seed), num_resamples)
    low, high = np.quantile(means, [0.025, 0.975])
    number = len(of_seeds)
    of_others = float(stdtrit(number - 1, 0.975) * of_seeds.std(ddof=1)) / math.sqrt(number) if number > 1 else 0.0
    below, above = math.hypot(low - mean, of_others), math.hypot(high - mean, of_others)
    return Estimate(mean, max(0.0, mean - below), min(1.0, mean + above))


def holm_adjusted(differences: Mapping[str, Difference], family: int | None = None) -> dict[str, Difference]:
    """Return differences with their p-values adjusted (:func:`holm`)."""
    adjusted = holm({name: each.p for name, each in differences.items()}, family)
    return {name: Difference(each.estimate, adjusted[name], each.num_users) for name, each in differences.items()}
