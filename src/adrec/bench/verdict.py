"""Which of some models to use, and why, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from adrec.bench.ledger import Finished
from adrec.evaluate.metrics import Float64s
from adrec.evaluate.significance import Difference, holm, paired_difference
from adrec.train.cost import duration

METRIC = "ndcg@20"
SURE = 0.05


@dataclass(frozen=True)
class Contender:
    """A model that was compared.

    Attributes:
        model: its name.
        values: each test user's METRIC, seen items left out: what a service would show.
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
class Verdict:
    """Which model to use.

    Attributes:
        chosen: of those that no other surely beats, the best that trains no network, else the simplest network.
        best: the one of the highest metric.
        differences: each other's model, to the chosen one's metric less theirs; the p-values hold together.
        sentences: the verdict in words.
    """

    chosen: Contender
    best: Contender
    differences: dict[str, Difference]
    sentences: tuple[str, ...]


def verdict(contenders: Sequence[Contender]) -> Verdict:
    """Return which contender to use, and why. One family of tests: all pairs (Holm).

    Who is surely beaten by another is out. Of the rest, models that only count cost next to nothing, all of them: the
    best of them is taken, and a network only where there is none of these, the first in the order of ``contenders``.
    """
    best = max(contenders, key=lambda each: each.mean)
    half = {(a.model, b.model): paired_difference(a.values, b.values) for a, b in combinations(contenders, 2)}
    sure = holm({f"{a} {b}": each.p for (a, b), each in half.items()})
    pairs = {**half, **{(b, a): each.reversed() for (a, b), each in half.items()}}
    p = {(a, b): sure.get(f"{a} {b}", sure.get(f"{b} {a}", 1.0)) for a, b in pairs}

    def beaten(each: Contender) -> bool:
        return any(
            p[other.model, each.model] < SURE and other.mean > each.mean for other in contenders if other is not each
        )

    left = [each for each in contenders if not beaten(each)]
    counting = [each for each in left if not each.is_network]
    chosen = max(counting, key=lambda each: each.mean) if counting else left[0]
    differences = {
        other.model: Difference(
            pairs[chosen.model, other.model].estimate, p[chosen.model, other.model], len(chosen.values)
        )
        for other in contenders
        if other is not chosen
    }
    return Verdict(chosen, best, differences, tuple(_sentences(chosen, best, contenders, differences)))


def _sentences(
    chosen: Contender, best: Contender, contenders: Sequence[Contender], differences: dict[str, Difference]
) -> list[str]:
    if len(contenders) == 1:
        said = [f"Use {chosen.model}: nothing else was tested."]
    elif chosen is best:
        said = [
            f"Use {chosen.model}: of the {len(contenders)} that were tested it ranks best, with {METRIC} "
            f"{100 * chosen.mean:.2f} (x 100, items of the history left out)."
        ]
    else:
        most = -100 * differences[best.model].estimate.low
        said = [
            f"{chosen.model} is enough: {best.model} has {100 * best.mean:.2f} to its {100 * chosen.mean:.2f} "
            f"({METRIC} x 100, items of the history left out), which on these {len(best.values):,} users may be "
            f"chance, or a gain of up to {most:.2f} points (in 95 of 100 cases)."
        ]
    for each in contenders:
        found = differences.get(each.model)
        if found is None:
            continue
        gain = 100 * found.estimate.mean / each.mean if each.mean else float("inf")
        low, high = (100 * bound for bound in (found.estimate.low, found.estimate.high))
        certain = "sure" if found.p < SURE else "not sure"
        ended = ", whose training the budget ended" if each.cut else ""
        amount = f"{gain:+.0f} %" if np.isfinite(gain) else "from nothing"
        said.append(
            f"Against {each.model} ({100 * each.mean:.2f}{ended}): {amount}, {low:+.2f} to {high:+.2f} points "
            f"in 95 of 100 cases, {certain} (p = {found.p:.2g})."
        )
    said.append(
        f"It took {duration(chosen.seconds)} to train and answers {chosen.users_per_second:,.0f} users a second here. "
        "Each model was trained once: another seed would move these a little."
    )
    cut = [each.model for each in contenders if each.cut]
    if cut:
        names = " and ".join(cut)
        said.append(f"The budget, not validation, may have ended the training of {names}; a larger one may change it.")
    return said
