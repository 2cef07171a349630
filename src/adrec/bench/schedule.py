"""The benchmark as a list of series, an entry on a data set each: tuned where that is asked for, then seed by seed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from adrec.bench.grid import Entry
from adrec.bench.ledger import Finished, Job, Ledger
from adrec.bench.tuning import PrunedError, TuningError, check_optuna, tune
from adrec.bench.work import cost_so_far, do_job
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.split import Split, make_split
from adrec.errors import ConfigError
from adrec.models import NetworkModel
from adrec.settings import DEFAULT_SEED
from adrec.train.cost import duration, estimate
from adrec.train.report import Live, Reporter
from adrec.train.run import Run


class UnfinishedError(Exception):
    """A job is left for later: the budget is used up, or another process computes it."""


@dataclass(frozen=True)
class Series:
    """An entry on a data set.

    Attributes:
        data: the prepared data set's folder.
        entry: what is trained.
        seeds: of the final models.
        trials: of tuning; 0 takes the entry's own settings.
    """

    data: Path
    entry: Entry
    seeds: tuple[int, ...]
    trials: int = 0

    @property
    def tuned(self) -> bool:
        """Whether its settings are searched for."""
        return self.trials > 0 and bool(self.entry.search)


@dataclass(frozen=True)
class Plan:
    """A whole benchmark.

    Attributes:
        ledger: its folder.
        series: in the order in which they are computed.
        threads: of the processor for each process; None is PyTorch's choice.
        budget: seconds; None has no end.
    """

    ledger: Path
    series: tuple[Series, ...]
    threads: int | None = None
    budget: float | None = None


def make_plan(
    ledger: Path,
    data: Sequence[Path],
    entries: Sequence[Entry],
    *,
    seeds: int,
    trials: int,
    threads: int | None = None,
    budget: float | None = None,
) -> Plan:
    """Return the benchmark of every entry on every data set, cheapest kinds of model first.

    Raises :class:`ConfigError` for numbers below 1, and :class:`UserError` where trials want Optuna and it is missing.
    """
    if seeds < 1 or trials < 0:
        raise ConfigError(f"--seeds must be at least 1 and --trials at least 0; they are {seeds} and {trials}.")
    if trials and any(entry.search for entry in entries):
        check_optuna()
    alike: dict[str, str] = {}
    for entry in entries:
        settings = {key: value for key, value in entry.config().to_dict().items() if key != "preset"}
        other = alike.setdefault(json.dumps([entry.model, settings, dict(entry.search)], sort_keys=True), entry.label)
        if other != entry.label:
            raise ConfigError(f"{other!r} and {entry.label!r} are the same model with the same settings; drop one.")
    quick_first = sorted(entries, key=lambda entry: issubclass(entry.model_class, NetworkModel))
    series = tuple(Series(path, entry, _seeds(entry, seeds), trials) for entry in quick_first for path in data)
    return Plan(ledger, series, threads, budget)


def _seeds(entry: Entry, seeds: int) -> tuple[int, ...]:
    """Return an entry's seeds; one where they make no difference."""
    count = (entry.seeds or seeds) if entry.model_class.uses_seed else 1
    return tuple(DEFAULT_SEED + each for each in range(count))


class Worker:
    """Computes series in this process.

    Args:
        plan: the whole benchmark.
        deadline: on the clock of :func:`time.time`; None has no end.
        say: is told what happens, a line each.
        reporter: is told of each epoch.
        keep_runs: leave trained runs in the ledger's ``work`` folder.
    """

    def __init__(
        self,
        plan: Plan,
        deadline: float | None,
        say: Callable[[str], None],
        reporter: Reporter | None = None,
        *,
        keep_runs: bool = False,
    ) -> None:
        self.ledger, self.deadline = Ledger.open(plan.ledger), deadline
        self.say, self.reporter, self.keep_runs = say, reporter, keep_runs

    def compute(self, series: Series) -> list[Finished]:
        """Compute what is missing of a series; failures are kept, and the rest goes on."""
        dataset = open_dataset(series.data)
        dataset.verify()
        split = make_split(dataset, None)
        self.ledger.add_dataset(dataset, split)
        changes: Mapping[str, Any] = {}
        if series.tuned:
            changes = tune(
                series.entry,
                series.trials,
                series.seeds[0],
                lambda changes, number: make_job(series, dataset, split, series.seeds[0], changes, number),
                lambda job, watch: self._job(job, series, dataset, split, watch),
            )
        jobs = [make_job(series, dataset, split, seed, changes) for seed in series.seeds]
        return [self._job(job, series, dataset, split) for job in jobs]

    def _job(
        self,
        job: Job,
        series: Series,
        dataset: Dataset,
        split: Split,
        watch: Callable[[Mapping[str, Any]], None] = lambda row: None,
    ) -> Finished:
        found = self.ledger.result(job)
        if found is not None:
            return found
        best: dict[str, float] = {}
        stage = ""

        def after_epoch(row: Mapping[str, Any]) -> None:
            nonlocal stage
            if row["stage"] != stage:  # stages are not comparable: a pruned trial is worth what its last one reached
                best.clear()
                stage = row["stage"]
            for name, value in row.get("validation", {}).items():
                best[name] = max(value, best.get(name, 0.0))
            watch(row)
            self._check_time()

        self._check_time()
        began = time.perf_counter()
        model = series.entry.model_class(series.entry.model_class.Config.from_dict(job.config))
        try:
            with self.ledger.claimed(job.key) as ours:
                if not ours:
                    raise UnfinishedError(f"{job.words}: another process computes it.")
                finished = do_job(
                    job,
                    model,
                    dataset,
                    split,
                    self.ledger,
                    reporter=self.reporter,
                    after_epoch=after_epoch,
                    keep_run=self.keep_runs and job.trial is None,
                )
        except PrunedError:
            run = Run.open(self.ledger.work(job), type(model))
            result = {"pruned": True, "validation": best, "device": run.info.device, **cost_so_far(run)}
            finished = self.ledger.keep(job, result)
            self.ledger.forget_work(job)
        except UnfinishedError:
            raise
        except Exception as error:  # whatever a model raises: it is kept, and the rest goes on
            finished = self.ledger.keep(job, {"error": f"{type(error).__name__}: {error}"})
        self.say(f"{job.words}: {_outcome(finished)} ({duration(time.perf_counter() - began)})")
        return finished

    def _check_time(self) -> None:
        if self.deadline is not None and time.time() > self.deadline:
            raise UnfinishedError("the budget is used up; the same command goes on where it stopped.")


def _outcome(finished: Finished) -> str:
    if finished.error:
        return f"failed, {finished.error}"
    if finished.result.get("pruned"):
        return "pruned"
    if "test" in finished.result:
        return f"test ndcg@20 {finished.result['test']['all']['ndcg@20']:.4f}"
    return f"validation ndcg@20 {finished.result['validation'].get('ndcg@20', 0.0):.4f}"


def make_job(
    series: Series,
    dataset: Dataset,
    split: Split,
    seed: int,
    changes: Mapping[str, Any] | None = None,
    trial: int | None = None,
) -> Job:
    """Return the job of a series with a seed, and ``changes`` that tuning found or tries."""
    return Job(
        data=dataset.info.name,
        fingerprint=dataset.fingerprint,
        split=split.name,
        label=series.entry.label,
        model=series.entry.model,
        config=series.entry.config(changes).to_dict(),
        seed=seed,
        trial=trial,
    )


def run_plan(plan: Plan, console: Console, *, processes: int = 1) -> bool:
    """Compute what the ledger lacks; return whether all of it is there now. Interrupted, it goes on when run again."""
    Ledger.create(plan.ledger)
    deadline = None if plan.budget is None else time.time() + plan.budget
    if processes > 1:
        return _in_processes(plan, deadline, console, processes)
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    live = Live(console)
    worker = Worker(plan, deadline, console.print, live)
    complete, said = True, ""
    with live:
        for series in plan.series:
            try:
                complete &= not any(finished.error for finished in worker.compute(series))
            except (UnfinishedError, TuningError) as error:
                complete = False
                if str(error) != said:
                    console.print(str(error))
                said = str(error)
    return complete


def _in_processes(plan: Plan, deadline: float | None, console: Console, processes: int) -> bool:
    complete = True
    threads = plan.threads or max(1, torch.get_num_threads() // processes)
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        waiting = [pool.submit(_compute_apart, plan, series, deadline) for series in plan.series]
        try:
            for each in as_completed(waiting):
                lines, good = each.result()
                complete &= good
                for line in lines:
                    console.print(line)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return complete


def _compute_apart(plan: Plan, series: Series, deadline: float | None) -> tuple[list[str], bool]:
    """Compute a series in a process of a pool; return what is to be told, and whether all is there."""
    lines: list[str] = []
    try:
        good = not any(finished.error for finished in Worker(plan, deadline, lines.append).compute(series))
    except (UnfinishedError, TuningError) as error:
        return [*lines, str(error)], False
    return lines, good


def dry_run(plan: Plan) -> Iterator[dict[str, str]]:
    """Yield each final job: its data set, entry, seed, whether it is finished, and the estimated time of the others."""
    ledger = Ledger(plan.ledger)
    for series in plan.series:
        dataset = open_dataset(series.data)
        split = make_split(dataset, None)
        each = "moments"
        model = series.entry.model_class(series.entry.config())
        if isinstance(model, NetworkModel):
            each = f"at most {duration(estimate(model.trainer(dataset, split, seed=series.seeds[0])).total)}"
        trials = f", after {series.trials} trials" if series.tuned else ""
        for seed in series.seeds:
            job = make_job(series, dataset, split, seed)
            done = not series.tuned and ledger.result(job) is not None
            begun = ledger.work(job).exists()
            state = "finished" if done else "begun" if begun else "waiting"
            yield {
                "data": dataset.info.name,
                "entry": series.entry.label,
                "seed": str(seed),
                "state": state,
                "time": "" if done else each + trials,
            }
