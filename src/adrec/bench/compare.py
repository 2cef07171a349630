"""Which model is right for a data set, within a budget of time: the friendly face of the benchmark."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from adrec.bench.grid import Entry
from adrec.bench.ledger import Finished, Ledger
from adrec.bench.series import Series
from adrec.bench.verdict import METRIC, Contender, ModelChoice, verdict
from adrec.bench.work import job_device
from adrec.bench.worker import UnfinishedError, Worker
from adrec.config.base import DEFAULT_SEED, TrainingConfig
from adrec.data.dataset import Dataset
from adrec.data.split import Split, make_split
from adrec.evaluate.metrics import user_values
from adrec.models.network import NetworkModel
from adrec.runs.fit import make_trainers
from adrec.train.cost import duration, estimate
from adrec.train.loop import Trainer
from adrec.train.progress import Live
from adrec.utils.errors import DataError, RunError
from adrec.utils.files import write_json

CONTENDERS = ("popular", "markov", "itemknn", "sasrec+", "adrec")  # simplest first
SHARE = {"sasrec+": 0.3, "adrec": 0.7}  # of the budget
MARGIN = 0.75  # of the time left is planned for training: the rest is for testing, and for the error of the estimate
LAST = 0.92  # of the budget and each share of it, at which training ends wherever it is: the rest is for testing
STEPS = 10  # an epoch has at least, as long as a batch has ..
FEWEST_USERS = 8
FEW_EPOCHS = 6  # with time for fewer of the default's, the preset ``fast``, where there is one, learns more in it
WORTH = 0.05  # of the budget: less than that, left by others, is no epoch more


def compare(
    dataset: Dataset, folder: Path, *, budget: float, seed: int = DEFAULT_SEED, console: Console
) -> tuple[ModelChoice, list[Contender], list[str]]:
    """Train the contenders within ``budget`` seconds; return the verdict, those that were tested, and notes.

    The notes say who was not tested, and of whom a quicker preset was.

    Each has its share of the budget; whose share is used up goes on with what the others left of theirs. A contender
    whose time is up then is tested with the best that it has. The runs stay in the ledger below ``folder``. Raises
    :class:`DataError` where nothing is held out to test on.
    """
    if dataset.path is None:
        raise DataError("a data set is compared on from its folder; write it first.")
    split = make_split(dataset, None)
    ledger = Ledger.create(folder / "ledger")
    ledger.add_dataset(dataset, split)
    memory = Memory(folder / "plan.json", budget, seed)
    if not memory.kept:  # what another budget cut short is no answer to this one
        if memory.path.exists():
            console.print(
                f"{folder} was compared with another budget or seed: what that cut short is trained again, and its "
                "report is replaced."
            )
        for each in ledger.finished():
            if each.is_cut:
                ledger.forget(each.job)
    with Live(console) as live:
        contest = Contest(ledger.path, dataset.path, seed, console, live)
        entries = _in_turn(contest, memory, dataset, split)
    contenders, notes = [], []
    for name in CONTENDERS:
        label = entries[name].label if name in entries else name
        finished = contest.finished.get(label)
        if finished is None or finished.error:
            notes.append(_why_not(label, finished, contest, budget))
        else:
            contenders.append(_contender(finished, split, entries[name]))
            if entries[name].preset == "fast":
                notes.append(_instead(name, budget))
    if not contenders:
        raise RunError(f"no model finished within {duration(budget)}; give a larger --budget.")
    return verdict(contenders), contenders, notes


def _in_turn(contest: Contest, memory: Memory, dataset: Dataset, split: Split) -> dict[str, Entry]:
    """Train each contender for its share of the budget, then those with more to learn for what is left of it.

    Return those that were begun, by name.
    """
    budget, entries = LAST * memory.budget, {}
    ends = time.time() + budget
    for name in CONTENDERS:
        left = min(ends - time.time(), budget * SHARE.get(name, 1.0))
        entry = memory.entry(name)
        if entry is None and left <= 0:
            continue
        if entry is None:
            entry = fitted(Entry(name, name), dataset, split, MARGIN * left, memory.seed)
            memory.keep(name, entry)
        entries[name] = entry
        contest.train(entry, left, finishes=False)
    waiting = [name for name, entry in entries.items() if entry.label not in contest.finished]
    for place, name in enumerate(waiting):
        share = SHARE.get(name, 1.0) / sum(SHARE.get(other, 1.0) for other in waiting[place:])
        more = share * (ends - time.time())
        contest.train(entries[name], more if more > WORTH * budget else 0.0, finishes=True)
    return entries


def _instead(name: str, budget: float) -> str:
    return (
        f"{name} (fast) is {name}'s preset fast, as {duration(budget)} would be too few epochs for the default, which "
        "ranks better with more time; give a larger --budget to compare that."
    )


def _why_not(name: str, finished: Finished | None, contest: Contest, budget: float) -> str:
    if finished is not None:
        return f"{name} failed: {finished.error}"
    if name in contest.unfinished:
        return f"{name} was not compared: {contest.unfinished[name]}"
    return f"{name} was not tried: the budget of {duration(budget)} was used up."


class Contest:
    """The contenders on their way.

    Args:
        ledger: the ledger's folder.
        data: the data set's folder.
        seed: of every random number.
        console: is told what happens.
        live: shows each epoch.

    Attributes:
        finished: the results of those that have one, by name.
        unfinished: why the others have none yet.
    """

    def __init__(self, ledger: Path, data: Path, seed: int, console: Console, live: Live) -> None:
        self.ledger, self.data, self.seed, self.console, self.live = ledger, data, seed, console, live
        self.finished: dict[str, Finished] = {}
        self.unfinished: dict[str, str] = {}

    def train(self, entry: Entry, seconds: float, *, finishes: bool) -> None:
        """Go on with a contender for ``seconds``; if it ``finishes``, what it has then is tested."""
        ends = time.time() + seconds
        worker = Worker(self.ledger, ends, self.console.print, [self.live], keep_runs=True, finishes=finishes)
        try:
            (self.finished[entry.label],) = worker.compute(Series(self.data, entry, (self.seed,)))
        except UnfinishedError as error:
            self.unfinished[entry.label] = str(error)


@dataclass(frozen=True)
class Memory:
    """How each contender was planned with a budget and a seed, so that a comparison can be gone on with.

    Attributes:
        path: the file.
        budget: in seconds.
        seed: of every random number.
    """

    path: Path
    budget: float
    seed: int

    @property
    def kept(self) -> dict[str, Any]:
        """The changes of each contender's settings, by its name; empty where budget or seed were others."""
        return dict(self._plan().get("changes", {}))

    def _plan(self) -> dict[str, Any]:
        plan: dict[str, Any] = json.loads(self.path.read_bytes()) if self.path.exists() else {}
        return plan if (plan.get("budget"), plan.get("seed")) == (self.budget, self.seed) else {}

    def entry(self, name: str) -> Entry | None:
        """Return how a contender was planned; None where it was not."""
        plan = self._plan()
        changes, preset = plan.get("changes", {}).get(name), plan.get("presets", {}).get(name, "default")
        return None if changes is None else Entry(_label(name, preset), name, preset, changes)

    def keep(self, name: str, entry: Entry) -> None:
        """Note how a contender is planned."""
        plan = self._plan()
        changes = {**plan.get("changes", {}), name: dict(entry.changes)}
        presets = {**plan.get("presets", {}), name: entry.preset}
        write_json(self.path, {"budget": self.budget, "seed": self.seed, "changes": changes, "presets": presets})


def _label(name: str, preset: str) -> str:
    return name if preset == "default" else f"{name} ({preset})"


def fitted(entry: Entry, dataset: Dataset, split: Split, seconds: float, seed: int) -> Entry:
    """Return ``entry`` as the data set and the time allow.

    Where few users would make an epoch of a step or two, a batch has fewer: patience, counted in epochs, would end the
    training before anything is learnt. Of several stages each has as many epochs as ``seconds`` allow, by an estimate,
    all where they do; one stage alone keeps its epochs, as validation or the end of the time ends it. Where the time
    is for fewer than :data:`FEW_EPOCHS` of a default of one stage, the entry is of the model's preset ``fast``, if it
    has one.
    """
    asked, trainer = entry, _trainer(entry, dataset, split, seed)
    if trainer is None:
        return entry
    smaller = _smaller_batches(trainer)
    if smaller:
        entry = replace(entry, changes={**entry.changes, **smaller})
        trainer = _trainer(entry, dataset, split, seed)
        assert trainer is not None
    trained = {name: stage.epochs for name, stage in trainer.config.stages.items()}
    fast = entry.preset == "default" and "fast" in trainer.config.presets
    if len(trained) == 1 and not fast:
        return entry
    cost = estimate([trainer])
    if len(trained) == 1:
        (stage,) = cost.stages.values()
        if seconds >= FEW_EPOCHS * (stage.epoch + stage.validation):
            return entry
        return fitted(replace(asked, label=_label(asked.model, "fast"), preset="fast"), dataset, split, seconds, seed)
    share = seconds / max(cost.total, 1e-9)
    if share >= 1:
        return entry
    epochs = {f"{name}.epochs": max(1, int(planned * share)) for name, planned in trained.items()}
    return replace(entry, changes={**entry.changes, **epochs})


def _trainer(entry: Entry, dataset: Dataset, split: Split, seed: int) -> Trainer | None:
    """Return what would train an entry; None for a model that only counts.

    None too where the data set has nothing to train it on: as a job it fails and is told, beside those that can learn
    from so little.
    """
    model = entry.model_class(entry.config())
    if not isinstance(model, NetworkModel) or not isinstance(model.config, TrainingConfig):
        return None
    try:
        return make_trainers(model, dataset, split, seed=seed, device=job_device(model))[-1]
    except DataError:
        return None


def _smaller_batches(trainer: Trainer) -> dict[str, int]:
    """Return the change that gives an epoch :data:`STEPS` steps; none where it has them."""
    users, batch_size = trainer.users_per_step(trainer.last_sequences), trainer.config.batch_size
    while batch_size > FEWEST_USERS and len(trainer.last_sequences) < STEPS * min(batch_size, users):
        batch_size //= 2
    return {"batch_size": batch_size} if batch_size < trainer.config.batch_size else {}


def _contender(finished: Finished, split: Split, entry: Entry) -> Contender:
    ranks = finished.ranks()["rank_unseen"].to_numpy().astype(np.int64) - 1
    stages = finished.result["stages"]
    limits = {key.removesuffix(".epochs"): value for key, value in entry.changes.items() if key.endswith(".epochs")}
    return Contender(
        model=entry.label,
        values=user_values([METRIC], ranks, split.test.users)[:, 0],
        seconds=sum(finished.result["seconds"].values()),
        users_per_second=finished.result["users_per_second"],
        is_network=issubclass(entry.model_class, NetworkModel),
        cut=finished.is_cut or any(limits.get(stage["stage"]) == stage["epochs"] for stage in stages),
        finished=finished,
    )
