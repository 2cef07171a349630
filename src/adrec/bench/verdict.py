"""Model choice of a comparison, with its reasons in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from adrec.bench.ledger import Finished
from adrec.evaluate.metrics import Float64s
from adrec.evaluate.significance import SURE, Difference, holm, paired_difference
from adrec.train.cost import duration

WITH, WITHOUT = "adrec", "cam"  # contenders: ADRec, and its causal attention alone
METRIC = "ndcg@20"


@dataclass(frozen=True)
class Contender:
    """A model that was compared.

    Attributes:
        model: its name.
        values: each test user's METRIC, with seen items kept or left out as in recommendations.
        seconds: of training.
        users_per_second: at inference.
        is_network: whether it is trained in epochs, at a cost.
        cut: whether the budget, not validation, may have ended its training.
        finished: its job.
    """

    model: str
    values: Float64s
    seconds: float
    users_per_second: float
    is_network: bool
    cut: bool
    finished: Finished

    @property
    def mean(self) -> float:
        """The metric's mean over users."""
        return float(self.values.mean())


@dataclass(frozen=True)
class ModelChoice:
    """Which model to use.

    Attributes:
        chosen: of those that no other beats, the best that trains no network, else the simplest network.
        best: the one of the highest metric.
        differences: each other's model, to the chosen one's metric less theirs; each of a comparison alone.
        together: each other's model, to that p-value adjusted for all pairs (Holm): they hold together.
        contenders: all that were compared.
        filter_seen: whether seen items are left out.
        diffusion: ADRec's metric less that of its causal attention alone, with the adjusted p-value; None if one was
            not compared.
    """

    chosen: Contender
    best: Contender
    differences: dict[str, Difference]
    together: dict[str, float]
    contenders: tuple[Contender, ...]
    filter_seen: bool = True
    diffusion: tuple[Difference, float] | None = None

    @property
    def protocol(self) -> str:
        """What is done with the items of the history."""
        return f"items of the history {'left out' if self.filter_seen else 'ranked too'}"

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in words."""
        number = len(self.contenders) * (len(self.contenders) - 1) // 2
        others = [each for each in self.contenders if each is not self.chosen]
        said = [
            _first(self),
            *(_against(each, self.differences[each.model], self.together[each.model], number) for each in others),
            *_diffusion(self),
            f"It took {duration(self.chosen.seconds)} to train, by the clock, and answers "
            f"{self.chosen.users_per_second:,.0f} users a second here. Each model was trained once: another seed would "
            "move these.",
        ]
        names = " and ".join(each.model for each in self.contenders if each.cut)
        if names:
            said.append(
                f"The budget, not validation, may have ended the training of {names}; a larger one may change it."
            )
        return tuple(said)


def verdict(contenders: Sequence[Contender], filter_seen: bool = True) -> ModelChoice:
    """Return which contender to use, and why.

    A contender that loses to another in an unadjusted paired test is excluded. Of the rest, the best model without a
    network is chosen, as such models cost next to nothing. If there is none, the first network in the order of
    ``contenders`` is chosen. For the reported p-values, all pairs are one family of tests (Holm).
    """
    best = max(contenders, key=lambda each: each.mean)
    half = {(a.model, b.model): paired_difference(a.values, b.values) for a, b in combinations(contenders, 2)}
    adjusted = holm({f"{a} {b}": each.p for (a, b), each in half.items()})
    pairs = {**half, **{(b, a): each.reversed() for (a, b), each in half.items()}}

    def adjusted_p(one: str, other: str) -> float:
        return next(adjusted[pair] for pair in (f"{one} {other}", f"{other} {one}") if pair in adjusted)

    def beaten(each: Contender) -> bool:
        others = (other for other in contenders if other.mean > each.mean)
        return any(pairs[other.model, each.model].p < SURE for other in others)

    left = [each for each in contenders if not beaten(each)]
    counting = [each for each in left if not each.is_network]
    chosen = max(counting, key=lambda each: each.mean) if counting else left[0]
    others = [each.model for each in contenders if each is not chosen]
    differences = {name: pairs[chosen.model, name] for name in others}
    together = {name: adjusted_p(chosen.model, name) for name in others}
    both = pairs.get((WITH, WITHOUT))
    diffusion = None if both is None else (both, adjusted_p(WITH, WITHOUT))
    return ModelChoice(chosen, best, differences, together, tuple(contenders), filter_seen, diffusion)


def _first(found: ModelChoice) -> str:
    """Return which to use, in a sentence that claims no more than the tests do."""
    chosen, best, differences = found.chosen, found.best, found.differences
    if len(found.contenders) == 1:
        return f"Use {chosen.model}: nothing else was tested."
    unsure = [name for name, p in found.together.items() if p >= SURE and differences[name].estimate.mean >= 0]
    doubt = f" That it beats {' and '.join(unsure)} is not sure on these {len(best.values):,} users." if unsure else ""
    if chosen is not best:
        counting = [each.mean for each in found.contenders if not each.is_network]
        simpler = (
            f" Of the {len(counting)} that only count, which cost next to nothing, it ranks best."
            if len(counting) > 1 and not chosen.is_network and chosen.mean == max(counting)
            else ""
        )
        most = -100 * differences[best.model].estimate.low
        return (
            f"{chosen.model} is enough: {best.model} has {100 * best.mean:.2f} to its {100 * chosen.mean:.2f} "
            f"({METRIC} x 100, {found.protocol}), which on these {len(best.values):,} users may be "
            f"chance, or a gain of up to {most:.2f} points (in 95 of 100 cases).{simpler}{doubt}"
        )
    return (
        f"Use {chosen.model}: of the {len(found.contenders)} that were tested it ranks best, with {METRIC} "
        f"{100 * chosen.mean:.2f} (x 100, {found.protocol}).{doubt}"
    )


def _diffusion(found: ModelChoice) -> Iterator[str]:
    """Yield how ADRec with diffusion compares with its causal attention alone, if both were compared."""
    if found.diffusion is None:
        return
    difference, together = found.diffusion
    by_name = {each.model: each for each in found.contenders}
    with_it, without = by_name[WITH], by_name[WITHOUT]
    low, high = points(difference)
    better = "better" if difference.estimate.mean > 0 else "worse"
    how = better if together < SURE else "neither surely better nor surely worse"
    cut = " and ".join(each.model for each in (with_it, without) if each.cut)
    yield (
        f"Diffusion: {WITH} (denoiser and stages, {100 * with_it.mean:.2f}) ranks {how} than {WITHOUT} (its causal "
        f"attention alone, {100 * without.mean:.2f}): {low:+.2f} to {high:+.2f} points in 95 of 100 cases, for "
        f"{with_it.seconds / max(without.seconds, 1e-9):.1f} times the training time."
        + (f" Time ended the training of {cut}." if cut else "")
    )


def points(found: Difference) -> tuple[float, float]:
    """Return the interval of a difference x 100, without a negative zero."""
    low, high = (round(100 * bound, 2) + 0.0 for bound in (found.estimate.low, found.estimate.high))
    return low, high


def _against(each: Contender, found: Difference, together: float, number: int) -> str:
    """Return how the chosen model compares with another: alone, and among a ``number`` of comparisons."""
    gain = 100 * found.estimate.mean / each.mean if each.mean else float("inf")
    low, high = points(found)
    amount = f"{gain:+.0f} %" if np.isfinite(gain) else "from nothing" if found.estimate.mean else "as little"
    ended = ", whose training the budget ended" if each.cut else ""
    alone = f"p = {found.p:.2g}"
    if together < SURE:
        certain = f"sure ({alone})" if number == 1 else f"sure (p = {together:.2g} among {number} comparisons)"
    elif found.p < SURE:
        certain = f"likely, not sure ({alone} alone, {together:.2g} among {number} comparisons)"
    else:
        certain = f"not sure: it may be chance ({alone})"
    return (
        f"Against {each.model} ({100 * each.mean:.2f}{ended}): {amount}, {low:+.2f} to {high:+.2f} points "
        f"in 95 of 100 cases, {certain}."
    )
