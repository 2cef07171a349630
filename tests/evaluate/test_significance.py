"""Paired tests and intervals over seeds, against slow restatements and known answers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test

from adrec.evaluate.significance import holm, over_seeds, paired_difference
from adrec.utils.errors import ConfigError


def test_the_p_value_is_that_of_all_permutations() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.random(9), rng.random(9) - 0.15
    difference = ours - theirs
    sums = np.array([np.dot(signs, difference) for signs in product((-1, 1), repeat=9)])
    exact = (np.abs(sums) >= abs(difference.sum()) - 1e-12).mean()
    found = paired_difference(ours, theirs, num_permutations=20_000)
    assert found.p == pytest.approx(exact, abs=0.015)
    assert found.estimate.mean == pytest.approx(difference.mean())
    scipys = permutation_test(
        (ours, theirs), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", n_resamples=2**9
    )
    assert exact == pytest.approx(scipys.pvalue, abs=1e-9)


def test_equal_models_and_clear_winners() -> None:
    values = np.random.default_rng(0).random(400)
    assert paired_difference(values, values).p == 1
    better = paired_difference(values + 0.1, values)
    assert better.p < 1e-3 and better.estimate.low == pytest.approx(0.1)
    assert paired_difference(values, values + 0.1).p == better.p


def test_one_chance_in_twenty() -> None:
    """Under the hypothesis that models are alike, p is below 0.05 in about 5 % of comparisons."""
    rng, below = np.random.default_rng(1), 0
    for _ in range(300):
        a, b = rng.random((2, 60)) < 0.3
        below += paired_difference(a * 1.0, b * 1.0, num_permutations=500, num_resamples=10).p < 0.05
    assert 4 <= below <= 26  # a binomial of 300 and 0.05 less the ties' caution


def test_other_users_are_refused() -> None:
    with pytest.raises(ConfigError, match="same users"):
        paired_difference(np.zeros(3), np.zeros(4))


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    assert holm({"a": 0.01, "b": 0.02}, family=6) == pytest.approx({"a": 0.06, "b": 0.10})


def test_choosing_the_best_first_does_not_make_it_significant() -> None:
    """Of equal models the best one beats another in at most some 5 of 100 draws, where all pairs are the family."""
    rng, below = np.random.default_rng(2), 0
    for _ in range(60):
        models = [(rng.random(80) < 0.3) * 1.0 for _ in range(6)]
        best = max(range(6), key=lambda each: models[each].mean())
        p = {
            str(other): paired_difference(models[best], models[other], num_permutations=400, num_resamples=5).p
            for other in range(6)
            if other != best
        }
        below += min(holm(p, 15).values()) < 0.05
    assert below <= 7


def test_an_interval_over_seeds_is_wider_where_seeds_differ() -> None:
    rng = np.random.default_rng(5)
    users = rng.random(500)
    alike = over_seeds([users, users, users])
    apart = over_seeds([users - 0.2, users, users + 0.2])
    assert alike.mean == pytest.approx(apart.mean)
    assert apart.high - apart.low > 2 * (alike.high - alike.low)
    single = over_seeds([users])
    spread = users.std() / np.sqrt(500)
    assert single.high - single.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


@pytest.mark.parametrize("spread", [0.005, 0.02, 0.08])  # of seeds; users leave a spread of 0.013 open
@pytest.mark.parametrize("num_seeds", [2, 3])
def test_an_interval_over_a_few_seeds_holds_as_often_as_it_says(num_seeds: int, spread: float) -> None:
    """Of many experiments with known effects of users and seeds, at least 95 of 100 intervals cover the truth."""
    rng, num_users, covered = np.random.default_rng(11), 60, 0
    for _ in range(300):
        of_users = rng.normal(0, 0.1, num_users)
        of_seeds = rng.normal(0, spread, (num_seeds, 1))
        values = 0.5 + of_users + of_seeds + rng.normal(0, 0.02, (num_seeds, num_users))
        found = over_seeds(list(values), num_resamples=200)
        covered += found.low <= 0.5 <= found.high
    assert covered >= 279, covered  # 93 %: three standard errors below 97 %


def test_two_seeds_that_are_far_apart_say_that_nothing_is_known() -> None:
    users = np.full(400, 0.3)
    users[::2] = 0.32
    found = over_seeds([users, users + 0.2])
    assert found.mean == pytest.approx(0.41)
    assert (found.low, found.high) == (0.0, 1.0)  # 12.7 standard errors of 0.1 either way


@pytest.mark.parametrize("num_users", [1, 7, 50, 1000])
def test_users_who_are_all_alike_leave_the_seeds(num_users: int) -> None:
    found = over_seeds([np.full(num_users, value) for value in (0.2, 0.3, 0.4)])
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t of two degrees of freedom
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half), rel=1e-6)
    same = over_seeds([np.full(num_users, 0.2)] * 2)
    assert (same.low, same.high) == pytest.approx((0.2, 0.2))
