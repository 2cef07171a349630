"""Which model is right for a data set, within a budget of time: the friendly face of the benchmark."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from adrec.bench.grid import Entry
from adrec.bench.ledger import Finished, Ledger
from adrec.bench.schedule import Plan, Series, UnfinishedError, Worker
from adrec.data.dataset import Dataset
from adrec.data.split import Split, make_split
from adrec.errors import DataError, RunError
from adrec.evaluate.metrics import Float64s, user_values
from adrec.evaluate.significance import Difference, holm, paired_difference
from adrec.files import write_json
from adrec.models import NetworkModel
from adrec.settings import DEFAULT_SEED, TrainingConfig
from adrec.train.cost import duration, estimate
from adrec.train.report import Live

CONTENDERS = ("popular", "itemknn", "sasrec+", "adrec")  # simplest first
METRIC = "ndcg@20"
SURE = 0.05
SHARE = {"sasrec+": 0.3, "adrec": 0.7}  # of the budget
MARGIN = 0.75  # of the time left is planned for training: the rest is for testing, and for the error of the estimate


@dataclass(frozen=True)
class Contender:
    """A model that was compared.

    Attributes:
        model: its name.
        values: each test user's METRIC, seen items left out: what a service would show.
        seconds: of training.
        users_per_second: at inference.
        cut: whether the budget, not validation, may have ended its training.
        finished: its job.
    """

    model: str
    values: Float64s
    seconds: float
    users_per_second: float
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
        chosen: the simplest that no other surely beats.
        best: the one of the highest metric.
        differences: each other's model, to the chosen one's metric less theirs; the p-values hold together.
        sentences: the verdict in words.
    """

    chosen: Contender
    best: Contender
    differences: dict[str, Difference]
    sentences: tuple[str, ...]


def compare(
    dataset: Dataset, folder: Path, *, budget: float, seed: int = DEFAULT_SEED, console: Console
) -> tuple[Verdict, list[Contender], list[str]]:
    """Train the contenders within ``budget`` seconds; return the verdict, those that finished, and who did not.

    The runs stay in the ledger below ``folder``. Raises :class:`DataError` where nothing is held out to test on.
    """
    if dataset.path is None:
        raise DataError("a data set is compared on from its folder; write it first.")
    split = make_split(dataset, None)
    ledger = Ledger.create(folder / "ledger")
    ledger.add_dataset(dataset, split)
    began, contenders, unfinished = time.time(), [], []
    live = Live(console)
    with live:
        for name in CONTENDERS:
            left = min(budget - (time.time() - began), budget * SHARE.get(name, 1.0))
            entry = _remembered(folder / "plan.json", budget, seed, name)
            if entry is None:
                if left <= 0:
                    unfinished.append(f"{name} was not tried: the budget of {duration(budget)} was used up.")
                    continue
                entry = fitted(Entry(name, name), dataset, split, MARGIN * left, seed)
                _remember(folder / "plan.json", budget, seed, entry)
            plan = Plan(folder / "ledger", (Series(dataset.path, entry, (seed,)),))
            worker = Worker(plan, began + budget, console.print, live, keep_runs=True)
            try:
                (finished,) = worker.compute(plan.series[0])
            except UnfinishedError:
                unfinished.append(f"{name} did not finish within the budget of {duration(budget)}.")
                continue
            if finished.error:
                unfinished.append(f"{name} failed: {finished.error}")
            else:
                contenders.append(_contender(finished, split, entry))
    if not contenders:
        raise RunError(f"no model finished within {duration(budget)}; give a larger --budget.")
    return verdict(contenders), contenders, unfinished


def _plans(path: Path, budget: float, seed: int) -> dict[str, Any]:
    """Return what was planned with this budget and seed: another one plans anew."""
    plans = json.loads(path.read_bytes()) if path.exists() else {}
    return plans if (plans.get("budget"), plans.get("seed")) == (budget, seed) else {"budget": budget, "seed": seed}


def _remembered(path: Path, budget: float, seed: int, name: str) -> Entry | None:
    """Return how a contender was planned before, so that a comparison can be gone on with; None where it was not."""
    changes = _plans(path, budget, seed).get(name)
    return None if changes is None else Entry(name, name, changes=changes)


def _remember(path: Path, budget: float, seed: int, entry: Entry) -> None:
    write_json(path, {**_plans(path, budget, seed), entry.label: dict(entry.changes)})


def fitted(entry: Entry, dataset: Dataset, split: Split, seconds: float, seed: int) -> Entry:
    """Return ``entry`` with as many epochs in each stage as ``seconds`` allow, by an estimate; all where they do."""
    config = entry.config()
    model = entry.model_class(config)
    if not isinstance(model, NetworkModel) or not isinstance(config, TrainingConfig):
        return entry
    cost = estimate(model.trainer(dataset, split, seed=seed))
    share = seconds / max(cost.total, 1e-9)
    if share >= 1:
        return entry
    epochs = {f"{name}.epochs": max(1, int(stage.epochs * share)) for name, stage in config.all_stages.items()}
    return Entry(entry.label, entry.model, entry.preset, {**entry.changes, **epochs})


def _contender(finished: Finished, split: Split, entry: Entry) -> Contender:
    ranks = finished.ranks()["rank_unseen"].to_numpy().astype(np.int64) - 1
    stages = finished.result["stages"]
    limits = {key.removesuffix(".epochs"): value for key, value in entry.changes.items() if key.endswith(".epochs")}
    return Contender(
        model=finished.job.model,
        values=user_values([METRIC], ranks, split.test.users)[:, 0],
        seconds=sum(finished.result["seconds"].values()),
        users_per_second=finished.result["users_per_second"],
        cut=any(limits.get(stage["stage"]) == stage["epochs"] for stage in stages),
        finished=finished,
    )


def verdict(contenders: Sequence[Contender]) -> Verdict:
    """Return the simplest contender that no other surely beats, and why. One family of tests: all pairs (Holm)."""
    best = max(contenders, key=lambda each: each.mean)
    pairs = {(a.model, b.model): paired_difference(a.values, b.values) for a, b in permutations(contenders, 2)}
    half = {" ".join(names): each.p for names, each in pairs.items() if names[0] < names[1]}
    sure = holm(half)
    p = {names: sure[" ".join(sorted(names))] for names in pairs}

    def beaten(each: Contender) -> bool:
        return any(
            p[other.model, each.model] < SURE and other.mean > each.mean for other in contenders if other is not each
        )

    chosen = next((each for each in contenders if not beaten(each)), best)
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
    if chosen is best:
        said = [f"Use {chosen.model}: it ranks best, with {METRIC} {100 * chosen.mean:.2f} (x 100)."]
    else:
        said = [
            f"{chosen.model} is enough: {best.model} has {100 * best.mean:.2f} to its {100 * chosen.mean:.2f} "
            f"({METRIC} x 100), which on these {len(best.values):,} users may be chance."
        ]
    for each in contenders:
        found = differences.get(each.model)
        if found is None:
            continue
        gain = 100 * found.estimate.mean / each.mean if each.mean else float("inf")
        low, high = (100 * bound for bound in (found.estimate.low, found.estimate.high))
        certain = "sure" if found.p < SURE else "not sure"
        amount = f"{gain:+.0f} %" if np.isfinite(gain) else "from nothing"
        said.append(
            f"Against {each.model} ({100 * each.mean:.2f}): {amount}, {low:+.2f} to {high:+.2f} points in 95 of 100 "
            f"cases, {certain} (p = {found.p:.2g})."
        )
    said.append(
        f"It took {duration(chosen.seconds)} to train and answers {chosen.users_per_second:,.0f} users a second here."
    )
    cut = [each.model for each in contenders if each.cut]
    if cut:
        names = " and ".join(cut)
        said.append(f"The budget, not validation, may have ended the training of {names}; a larger one may change it.")
    return said
