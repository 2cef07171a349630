"""Comparison of the main models on a data set within a time budget, on top of the benchmark."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
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
from adrec.data.seen import leaves_out
from adrec.data.split import Split, make_split
from adrec.evaluate.metrics import user_values
from adrec.models.network import NetworkModel
from adrec.runs.fit import make_trainers
from adrec.train.cost import duration, estimate
from adrec.train.loop import Trainer
from adrec.train.progress import Live
from adrec.utils.errors import DataError, RunError
from adrec.utils.sealed import read_sealed, write_sealed

RETURNING = "personal"  # tried only where seen items are kept: where they are left out, it is popular
CONTENDERS: Mapping[str, tuple[str, str]] = MappingProxyType(  # name: model and preset; simplest first
    {
        **{name: (name, "default") for name in ("popular", RETURNING, "markov", "itemknn", "sasrec+")},
        "cam": ("adrec", "cam"),
        "adrec": ("adrec", "default"),
    }
)
SHARE = {"sasrec+": 0.2, "cam": 0.35, "adrec": 0.45}  # of the budget
FAST = {"cam": "fast"}  # the preset that learns more than a contender's own in little time
MARGIN = 0.75  # share of the time left planned for training; the rest is for testing and estimation error
LAST = 0.92  # share of the budget, and of each model's part, at which training is stopped; the rest is for testing
STEPS = 10  # the fewest steps of an epoch, as long as a batch has ..
FEWEST_USERS = 8
FEW_EPOCHS = 6  # with time for fewer epochs, the preset of :data:`FAST`, if any, learns more
WORTH = 0.05  # the smallest share of the budget worth redistributing


def compare(
    dataset: Dataset, folder: Path, *, budget: float, seed: int = DEFAULT_SEED, console: Console
) -> tuple[ModelChoice, list[Contender], list[str]]:
    """Train the contenders within ``budget`` seconds; return the verdict, those that were tested, and notes.

    The notes name contenders that were not tested, and those tested with a faster preset.

    Each contender has a share of the budget. A contender that uses up its share resumes with time that others left
    over. When that time is up too, its best weights are tested. The runs stay in the ledger below ``folder``. Raises
    :class:`DataError` if nothing is held out for testing.
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
    for name in names_for(dataset):
        label = entries[name].label if name in entries else name
        finished = contest.finished.get(label)
        if finished is None or finished.error:
            notes.append(_why_not(label, finished, contest, budget))
        else:
            contenders.append(_contender(finished, split, entries[name], dataset))
            if entries[name].preset == FAST.get(name):
                notes.append(_instead(name, budget))
    if not contenders:
        raise RunError(f"no model finished within {duration(budget)}; give a larger --budget.")
    return verdict(contenders, leaves_out("data", dataset)), contenders, notes


def names_for(dataset: Dataset) -> list[str]:
    """Return the names of the contenders on ``dataset``, simplest first."""
    return [name for name in CONTENDERS if name != RETURNING or not leaves_out("data", dataset)]


def _in_turn(contest: Contest, memory: Memory, dataset: Dataset, split: Split) -> dict[str, Entry]:
    """Train each contender for its share of the budget, then the unfinished ones for the remaining time.

    Return the started entries, by name.
    """
    budget, entries = LAST * memory.budget, {}
    ends = time.time() + budget
    for name in names_for(dataset):
        left = min(ends - time.time(), budget * SHARE.get(name, 1.0))
        entry = memory.entry(name)
        if entry is None and left <= 0:
            continue
        if entry is None:
            entry = fitted(Entry(name, *CONTENDERS[name]), dataset, split, MARGIN * left, memory.seed)
            memory.keep(name, entry)
        entries[name] = entry
        contest.train(entry, left, finishes=False)
    waiting = [name for name, entry in entries.items() if entry.label not in contest.finished]
    for index, name in enumerate(waiting):
        share = SHARE.get(name, 1.0) / sum(SHARE.get(other, 1.0) for other in waiting[index:])
        more = share * (ends - time.time())
        contest.train(entries[name], more if more > WORTH * budget else 0.0, finishes=True)
    return entries


def _instead(name: str, budget: float) -> str:
    return (
        f"{_label(name, FAST[name])} is the preset {FAST[name]}, a narrower {name}, as {duration(budget)} would be "
        f"too few epochs for {name}, which ranks better with more time; give a larger --budget to compare that."
    )


def _why_not(name: str, finished: Finished | None, contest: Contest, budget: float) -> str:
    if finished is not None:
        return f"{name} failed: {finished.error}"
    if name in contest.unfinished:
        return f"{name} was not compared: {contest.unfinished[name]}"
    return f"{name} was not tried: the budget of {duration(budget)} was used up."


class Contest:
    """The state of a comparison in progress.

    Args:
        ledger: the ledger's folder.
        data: the data set's folder.
        seed: the random seed.
        console: receives progress messages.
        live: shows each epoch.

    Attributes:
        finished: the finished results, by name.
        unfinished: the reason why each other contender is unfinished, by name.
    """

    def __init__(self, ledger: Path, data: Path, seed: int, console: Console, live: Live) -> None:
        self.ledger, self.data, self.seed, self.console, self.live = ledger, data, seed, console, live
        self.finished: dict[str, Finished] = {}
        self.unfinished: dict[str, str] = {}

    def train(self, entry: Entry, seconds: float, *, finishes: bool) -> None:
        """Start or resume a contender for ``seconds``; if ``finishes``, test the weights it has then."""
        ends = time.time() + seconds
        worker = Worker(self.ledger, ends, self.console.print, [self.live], keep_runs=True, finishes=finishes)
        try:
            (self.finished[entry.label],) = worker.compute(Series(self.data, entry, (self.seed,)))
        except UnfinishedError as error:
            self.unfinished[entry.label] = str(error)


@dataclass(frozen=True)
class Memory:
    """The planned settings of each contender for a budget and a seed, saved so that a comparison can resume.

    Attributes:
        path: the file.
        budget: time budget in seconds.
        seed: the random seed.
    """

    path: Path
    budget: float
    seed: int

    @property
    def kept(self) -> dict[str, Any]:
        """The changes of each contender's settings, by name; empty if budget or seed differ."""
        return dict(self._plan().get("changes", {}))

    def _plan(self) -> dict[str, Any]:
        try:
            plan = read_sealed(self.path, RunError, "") if self.path.exists() else {}
        except RunError:  # what cannot be read is no plan to go on with
            plan = {}
        return plan if (plan.get("budget"), plan.get("seed")) == (self.budget, self.seed) else {}

    def entry(self, name: str) -> Entry | None:
        """Return the planned entry of a contender; None if it was not planned."""
        plan = self._plan()
        model, own = CONTENDERS[name]
        changes, preset = plan.get("changes", {}).get(name), plan.get("presets", {}).get(name, own)
        return None if changes is None else Entry(_label(name, preset), model, preset, changes)

    def keep(self, name: str, entry: Entry) -> None:
        """Save the planned entry of a contender."""
        plan = self._plan()
        changes = {**plan.get("changes", {}), name: dict(entry.changes)}
        presets = {**plan.get("presets", {}), name: entry.preset}
        write_sealed(self.path, {"budget": self.budget, "seed": self.seed, "changes": changes, "presets": presets})


def _label(name: str, preset: str) -> str:
    return f"{name} ({preset})" if preset == FAST.get(name) else name


def fitted(entry: Entry, dataset: Dataset, split: Split, seconds: float, seed: int) -> Entry:
    """Return ``entry``, named as its contender, adapted to the data set and the available time.

    With few users, the batch is made smaller: epochs of a step or two would let patience, which is counted in epochs,
    stop the training too early. The last stage keeps its epochs, as validation or the deadline ends it. If there is
    time for fewer than :data:`FEW_EPOCHS` of it, the contender's preset of :data:`FAST` is used, if any; without one,
    each stage before the last has as few epochs as it may.
    """
    asked, trainer = entry, _trainer(entry, dataset, split, seed)
    if trainer is None:
        return entry
    smaller = _smaller_batches(trainer)
    if smaller:
        entry = replace(entry, changes={**entry.changes, **smaller})
        trainer = _trainer(entry, dataset, split, seed)
        assert trainer is not None
    fast, before = FAST.get(entry.label), list(trainer.config.stages.items())[:-1]
    if fast is None and not before:
        return entry
    cost = estimate([trainer])
    *first, last = cost.stages.values()
    if seconds >= sum(stage.total for stage in first) + FEW_EPOCHS * (last.epoch + last.validation):
        return entry
    if fast is not None:
        label = _label(entry.label, fast)
        return fitted(replace(asked, label=label, preset=fast), dataset, split, seconds, seed)
    fewest = {f"{name}.epochs": stage.fewest_epochs for name, stage in before}
    return replace(entry, changes={**entry.changes, **fewest})


def _trainer(entry: Entry, dataset: Dataset, split: Split, seed: int) -> Trainer | None:
    """Return the trainer of an entry; None for a model without epochs.

    Also None if the data set has nothing to train it on. The entry's job then fails and is reported, and the other
    models continue.
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


def _contender(finished: Finished, split: Split, entry: Entry, dataset: Dataset) -> Contender:
    column = "rank_unseen" if leaves_out("data", dataset) else "rank"
    ranks = finished.ranks()[column].to_numpy().astype(np.int64) - 1
    return Contender(
        model=entry.label,
        values=user_values([METRIC], ranks, split.test.users)[:, 0],
        seconds=sum(finished.result["seconds"].values()),
        users_per_second=finished.result["users_per_second"],
        is_network=issubclass(entry.model_class, NetworkModel),
        cut=finished.is_cut,
        finished=finished,
    )
