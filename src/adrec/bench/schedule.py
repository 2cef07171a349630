"""Schedule of a benchmark: a list of series, each one entry on one data set, tuned if requested, then run per seed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread

import torch
from rich.console import Console

from adrec.bench.grid import Entry
from adrec.bench.ledger import Ledger
from adrec.bench.series import Series
from adrec.bench.tuning import TuningError, check_optuna
from adrec.bench.worker import UnfinishedError, Worker
from adrec.config.base import DEFAULT_SEED
from adrec.models.network import NetworkModel
from adrec.train.progress import Live
from adrec.utils import interrupts
from adrec.utils.errors import ConfigError, RunError


@dataclass(frozen=True)
class BenchmarkPlan:
    """A whole benchmark.

    Attributes:
        ledger: the ledger's folder.
        series: the series, in order of computation.
        threads: CPU threads of each process; None is PyTorch's default.
        budget: time budget in seconds; None is unlimited.
        diagnose: whether the item embeddings of final models are kept.
    """

    ledger: Path
    series: tuple[Series, ...]
    threads: int | None = None
    budget: float | None = None
    diagnose: bool = False


def make_plan(
    ledger: Path,
    data: Sequence[Path],
    entries: Sequence[Entry],
    *,
    seeds: int,
    trials: int,
    threads: int | None = None,
    budget: float | None = None,
    diagnose: bool = False,
) -> BenchmarkPlan:
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
        searched = dict(entry.search) if trials else {}
        other = alike.setdefault(json.dumps([entry.model, settings, searched], sort_keys=True), entry.label)
        if other != entry.label:
            why = " without trials" if entry.search and not trials else ""
            raise ConfigError(
                f"{other!r} and {entry.label!r} are the same model with the same settings{why}; drop one."
            )
    quick_first = sorted(entries, key=lambda entry: issubclass(entry.model_class, NetworkModel))
    series = tuple(Series(path, entry, _seeds(entry, seeds), trials) for entry in quick_first for path in data)
    return BenchmarkPlan(ledger, series, threads, budget, diagnose)


def _seeds(entry: Entry, seeds: int) -> tuple[int, ...]:
    """Return an entry's seeds; one where they make no difference."""
    count = (entry.seeds or seeds) if entry.model_class.uses_seed else 1
    return tuple(DEFAULT_SEED + each for each in range(count))


def run_plan(plan: BenchmarkPlan, console: Console, *, processes: int = 1) -> bool:
    """Compute the missing jobs; return whether the ledger is complete. An interrupted plan resumes when run again."""
    Ledger.create(plan.ledger)
    deadline = None if plan.budget is None else time.time() + plan.budget
    if processes > 1:
        return _in_processes(plan, deadline, console, processes)
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    live = Live(console)
    worker = Worker(plan.ledger, deadline, console.print, [live], keep_embeddings=plan.diagnose)
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


def _in_processes(plan: BenchmarkPlan, deadline: float | None, console: Console, processes: int) -> bool:
    complete, said = True, set[str]()
    threads = plan.threads or max(1, torch.get_num_threads() // processes)
    others = {process.pid for process in active_children()}
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin_process, (threads,)) as pool:
        parts = [part for series in plan.series for part in series.apart()]
        try:
            waiting = {pool.submit(_compute_apart, plan, part, deadline) for part in parts}
            while waiting:  # no longer than a moment at a time: Ctrl-C does not wake what waits for a lock
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for lines, good in (each.result() for each in done):
                    complete &= good
                    for line in (each for each in lines if each not in said):  # that time is up is said once
                        console.print(line)
                        said.add(line)
        except BrokenProcessPool as error:
            raise RunError(
                "a process of the benchmark was ended from outside, for want of memory perhaps; the same command goes "
                "on, with fewer --processes where that is why."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():  # in the middle of jobs, which record the step and resume next time
                if process.pid not in others:
                    process.terminate()
            raise
    return complete


def _begin_process(threads: int) -> None:
    """Set up a pool process: it ends with its parent, and only the parent handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.install()
    torch.set_num_threads(threads)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # in the middle of a job, which resumes from its last epoch the next time


def _compute_apart(plan: BenchmarkPlan, series: Series, deadline: float | None) -> tuple[list[str], bool]:
    """Compute a series in a process of a pool; return what is to be told, and whether all is there."""
    lines: list[str] = []
    try:
        worker = Worker(plan.ledger, deadline, lines.append, keep_embeddings=plan.diagnose)
        good = not any(finished.error for finished in worker.compute(series))
    except (UnfinishedError, TuningError) as error:
        return [*lines, str(error)], False
    except interrupts.Interrupted:  # its run has recorded the step
        os._exit(1)
    return lines, good
