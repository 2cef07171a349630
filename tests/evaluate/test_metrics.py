"""Metrics by hand, and the bootstrap against a plain one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adrec.evaluate.metrics import batch_means, estimates, means, metric_names, values
from adrec.utils.errors import ConfigError

RANKS = np.array([0, 1, 4, 5, 20])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hr@1", [1, 0, 0, 0, 0]),
        ("hr@5", [1, 1, 1, 0, 0]),
        ("ndcg@5", [1, 1 / math.log2(3), 1 / math.log2(6), 0, 0]),
        ("ndcg@20", [1, 1 / math.log2(3), 1 / math.log2(6), 1 / math.log2(7), 0]),
        ("mrr@20", [1, 1 / 2, 1 / 5, 1 / 6, 0]),
        ("mrr@21", [1, 1 / 2, 1 / 5, 1 / 6, 1 / 21]),
    ],
)
def test_by_hand(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(values(name, RANKS), expected, rtol=1e-12)
    assert means([name], RANKS)[name] == pytest.approx(np.mean(expected))


def test_batch_means_weigh_a_short_last_batch_like_a_full_one() -> None:
    assert batch_means(["hr@1"], np.array([0, 0, 0, 0, 9]), batch_size=4) == {"hr@1": 0.5}


@pytest.mark.parametrize("name", ["recall@5", "hr", "hr@", "hr@0", "hr@x"])
def test_unknown_metrics_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        values(name, RANKS)


def test_cutoffs_that_count_nothing_are_refused() -> None:
    for k in (0, 1_000_001):
        with pytest.raises(ConfigError, match=f"a whole number from 1 to 1,000,000; it is {k}"):
            metric_names([5, k])


def test_interval_equals_resampling_users_one_by_one() -> None:
    rng = np.random.default_rng(3)
    ranks = rng.geometric(0.05, size=300) - 1
    mine = estimates(["ndcg@20", "hr@5"], ranks, num_resamples=4000)
    for name in ("ndcg@20", "hr@5"):
        per_user = values(name, ranks)
        resampled = np.array([rng.choice(per_user, len(per_user)).mean() for _ in range(4000)])
        low, high = np.quantile(resampled, [0.025, 0.975])
        spread = resampled.std()
        assert mine[name].mean == pytest.approx(per_user.mean(), abs=1e-12)
        # Two Monte Carlo quantiles of 4000 resamples differ by about 0.04 standard deviations.
        assert abs(mine[name].low - low) < 0.25 * spread
        assert abs(mine[name].high - high) < 0.25 * spread


def test_interval_is_deterministic_and_contains_the_mean() -> None:
    first, again = (estimates(["hr@5"], RANKS, seed=7)["hr@5"] for _ in range(2))
    assert first == again
    assert first.low <= first.mean <= first.high


def test_no_users_is_said() -> None:
    with pytest.raises(ConfigError, match="no users"):
        estimates(["hr@5"], np.array([], dtype=np.int64))
