"""Aggregation of a ledger: means over seeds with intervals, significance, costs, and accuracy by user group."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from adrec.bench import cost
from adrec.bench.grid import Entry
from adrec.bench.groups import COLUMNS, METRICS, Group, grouped, selected, trials_of
from adrec.bench.ledger import Finished, Ledger
from adrec.data.spans import Int64s
from adrec.evaluate.metrics import Estimate, Float64s
from adrec.evaluate.significance import Difference, holm_adjusted, over_seeds, paired_differences
from adrec.utils.errors import ConfigError, RunError, did_you_mean

PERMUTATIONS = 40_000  # so that the smallest p-value is small beside the number of pairs that it is adjusted for
LENGTHS = (5, 10, 20)  # upper ends of groups of history lengths; the last group is beyond


@dataclass(frozen=True)
class Row:
    """An entry on a data set.

    Attributes:
        label: the entry's name.
        model: its model.
        seeds: number of seeds.
        cut: number of seeds whose training the time limit ended before validation stopped improving.
        trials: number of tuning trials that chose its settings.
        validation: the chosen metric on the validation part, mean over seeds; None where there is no such part.
        metrics: ``all`` (seen items are ranked too) and ``unseen``: each metric's mean over seeds and its interval.
        against: ``all`` and ``unseen``: of another entry, the difference of the chosen metric (ours less theirs).
        recommended: coverage, gini, popularity and novelty of the first 20 unseen items, means over seeds.
        parameters: number of learned parameters.
        device: device of the costs: a processor's or a GPU's name.
        timed: number of seeds that ran on that device; only these count for the costs.
        core_time: whether costs are in CPU core time, not wall-clock time.
        seconds: of training, mean over seeds, what was shared included: core-seconds on a CPU, the clock's elsewhere.
        users_per_second: at inference, mean over seeds: of one core on a CPU.
        by_steps: of a model that denoises: the metric, and users/s, at some numbers of steps, means over seeds.
        by_length: the chosen metric of users by history length.
        by_popularity: the chosen metric of users by the popularity quartile of the held-out item, rarest first.
    """

    label: str
    model: str
    seeds: int
    cut: int
    trials: int
    validation: float | None
    metrics: Mapping[str, Mapping[str, Estimate]]
    against: Mapping[str, Mapping[str, Difference]]
    recommended: Mapping[str, float]
    parameters: int
    device: str
    timed: int
    core_time: bool
    seconds: float
    users_per_second: float
    by_steps: Mapping[str, tuple[float, float]]
    by_length: Mapping[str, float]
    by_popularity: Mapping[str, float]


@dataclass(frozen=True)
class Results:
    """Everything that the tables show.

    Attributes:
        metric: what entries are sorted and compared by, seen items ranked too.
        data: each data set's sizes.
        rows: each data set's entries, best first.
        failed: jobs without a result, and why.
        machine: what the jobs ran on: environments and threads.
        hours: of training in all, by what they are of, such as ``core-hours of`` a CPU: trials included, pruned ones
            too; what was shared counts once.
    """

    metric: str
    data: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, Sequence[Row]]
    failed: Mapping[str, str]
    machine: Sequence[str]
    hours: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


def results(
    ledger: Ledger,
    metric: str = "ndcg@20",
    reference: str | None = None,
    entries: Sequence[Entry] | None = None,
    data: Collection[str] | None = None,
) -> Results:
    """Read a ledger.

    Args:
        ledger: of a benchmark.
        metric: what entries are sorted and compared by.
        reference: the entry that every other is compared with, beside the best; ADRec's best by default.
        entries: show only these entries, under their names; by default all.
        data: show only these data sets; by default all.

    Raises:
        ConfigError: for an unknown metric or reference.
        RunError: if no job, or no job of ``entries``, has finished.
    """
    if metric not in METRICS:
        raise ConfigError(f"there is no metric {metric!r}{did_you_mean(metric, METRICS)}; write one such as ndcg@20.")
    finished = [each for each in ledger.finished() if data is None or each.job.data in data]
    if entries is not None:
        finished = selected(finished, entries)
    finals = [each for each in finished if each.job.trial is None and not each.error]
    if not finals:
        which = "" if entries is None else "the grid in "
        raise RunError(f"no job of {which}{ledger.path} has finished yet.")
    users = {name: ledger.test_users(name) for name in sorted({each.job.data for each in finals})}
    groups = {name: grouped([each for each in finals if each.job.data == name], users[name]) for name in users}
    labels = sorted({label for found in groups.values() for label in found})
    if reference is not None and reference not in labels:
        raise ConfigError(f"no entry is called {reference!r}{did_you_mean(reference, labels)}.")
    rows = {name: _rows(groups[name], users[name], finished, metric, reference) for name in users}
    return Results(
        metric=metric,
        data={name: about for name, about in ledger.datasets().items() if name in rows},
        rows=rows,
        failed={
            **{each.job.words: each.error for each in finished if each.error},
            **{f"damaged result {number}": each for number, each in enumerate(ledger.damaged(), start=1)},
        },
        machine=sorted({cost.machine_of(each) for each in finals}),
        hours=cost.hours_of_training(each for each in finished if not each.error),
    )


def _rows(
    groups: Mapping[str, Group],
    users: pl.DataFrame,
    finished: Sequence[Finished],
    metric: str,
    reference: str | None,
) -> list[Row]:
    order = sorted(groups, key=lambda label: -groups[label].mean(metric).mean())
    against = {}
    for kind in COLUMNS:
        means = {label: group.mean(metric, kind).mean() for label, group in groups.items()}
        ranked = sorted(groups, key=lambda label: -means[label])
        ours = reference or next((label for label in ranked if groups[label].jobs[0].job.model == "adrec"), None)
        others = [ranked[0], *([ours] if ours is not None and ours in groups and ours != ranked[0] else [])]
        several = sum(group.jobs[0].job.model == "adrec" for group in groups.values()) > 1
        found_here = set(others) if reference is None and several else {ranked[0]}
        against[kind] = _compared(groups, metric, others, found_here, kind)
    return [
        _row(
            label,
            groups[label],
            users,
            metric,
            {
                kind: {other: found[label] for other, found in compared.items() if label in found}
                for kind, compared in against.items()
            },
            trials_of(groups[label].jobs[0].job, finished),
        )
        for label in order
    ]


def _compared(
    groups: Mapping[str, Group], metric: str, others: Sequence[str], found_here: Collection[str], kind: str
) -> dict[str, dict[str, Difference]]:
    """Compare every entry with each of ``others``; p-values hold together for the comparisons with one of them.

    Those in ``found_here`` were found on these users: each of all pairs might have been the one that is compared.
    """
    found, means = {}, {label: group.mean(metric, kind) for label, group in groups.items()}
    for other in others:
        differences = paired_differences(
            {label: values for label, values in means.items() if label != other},
            means[other],
            num_permutations=PERMUTATIONS,
        )
        pairs = len(groups) * (len(groups) - 1) // 2 if other in found_here else None
        found[other] = holm_adjusted(differences, pairs)
    return found


def _row(
    label: str,
    group: Group,
    users: pl.DataFrame,
    metric: str,
    against: Mapping[str, Mapping[str, Difference]],
    trials: int,
) -> Row:
    job, found = group.jobs[0].job, [each.result for each in group.jobs]
    metrics = {
        kind: {name: over_seeds([table[:, column] for table in tables]) for column, name in enumerate(METRICS)}
        for kind, tables in group.values.items()
    }
    values = group.mean(metric)
    device, timed = cost.comparable(group.jobs)
    return Row(
        label=label,
        model=job.model,
        seeds=len(group.jobs),
        cut=sum(each.is_cut for each in group.jobs),
        trials=trials,
        validation=_mean(each["validation"][metric] for each in found) if found[0]["validation"] else None,
        metrics=metrics,
        against=against,
        recommended={name: _mean(each["recommended"][name] for each in found) for name in found[0]["recommended"]},
        parameters=found[0]["parameters"],
        device=device,
        timed=len(timed),
        core_time=timed[0].result["device"] == "cpu",
        seconds=_mean(sum(cost.training(each).values()) for each in timed),
        users_per_second=_mean(cost.speed(each) for each in timed),
        by_steps={
            steps: (
                _mean(each["by_steps"][steps][metric] for each in found),
                _mean(cost.speed(each, each.result["by_steps"][steps]) for each in timed),
            )
            for steps in found[0].get("by_steps", {})
        },
        by_length=_by_length(_first_of_each(users)["length"].to_numpy(), values),
        by_popularity=_by_popularity(_first_of_each(users)["popularity"].to_numpy(), values),
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _first_of_each(users: pl.DataFrame) -> pl.DataFrame:
    """Return one row a user, of the first held-out interaction, users as :func:`user_values` has them."""
    return users.unique("user", keep="first").sort("user")


def _by_length(lengths: Int64s, values: Float64s) -> dict[str, float]:
    groups, low = {}, 0
    for high in (*LENGTHS, None):
        inside = (lengths > low) & (lengths <= high) if high else lengths > low
        name = f"{low + 1} to {high}" if high else f"more than {low}"
        if inside.any():
            groups[name] = float(values[inside].mean())
        low = high or low
    return groups


def _by_popularity(popularity: Int64s, values: Float64s) -> dict[str, float]:
    """Return the values by quartile of the held-out item's training interactions, rarest first."""
    bounds = np.quantile(popularity, [0.25, 0.5, 0.75])
    quartile = np.searchsorted(bounds, popularity, side="left")  # 0 .. 3
    return {str(each + 1): float(values[quartile == each].mean()) for each in range(4) if (quartile == each).any()}
