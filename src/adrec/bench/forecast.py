"""Dry run of a benchmark: each final job with its state and its estimated time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from adrec.bench.ledger import Finished, Job, Ledger
from adrec.bench.series import Series, make_job
from adrec.bench.tuning import TuningError, tune_series
from adrec.bench.work import job_device
from adrec.bench.worker import found_of
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.split import Split, make_split
from adrec.models.network import NetworkModel
from adrec.runs.fit import make_trainers
from adrec.runs.folder import Run
from adrec.train.cost import duration, estimate
from adrec.utils.text import counted


class _MissingError(Exception):
    """A trial that is still to be computed."""


def forecast(series: Series, ledger: Ledger, *, keep_embeddings: bool = False) -> Iterator[dict[str, str]]:
    """Yield each final job of a series: its data set, entry, seed, state, and the estimated time of what is left.

    With ``keep_embeddings`` a job whose embedding is not in the ledger is still to be computed.
    """
    dataset = open_dataset(series.data)
    dataset.verify()
    split = make_split(dataset, None)
    changes, missing = _tuned(series, dataset, split, ledger)
    jobs = [make_job(series, dataset, split, seed, changes) for seed in series.seeds]
    waiting = ""  # the time of a job that has not started: equal for all seeds, so measured once
    for job in jobs:
        state, time = "finished", ""
        if missing:
            state, time = "begun" if missing < series.trials else "waiting", f", after {counted(missing, 'trial')}"
        elif found_of(ledger, job, series, keep_embeddings) is None:
            state = "begun" if ledger.work(job).exists() else "waiting"
        if state == "begun" and not missing:
            time = _time(series, dataset, split, job, ledger)
        elif state != "finished":
            waiting = waiting or _time(series, dataset, split, job)
            time = waiting + time
        yield {"data": job.data, "entry": job.label, "seed": str(job.seed), "state": state, "time": time}


def _tuned(series: Series, dataset: Dataset, split: Split, ledger: Ledger) -> tuple[Mapping[str, Any], int]:
    """Return the changes found by the ledger's trials, and the number of missing trials."""
    known = 0

    def look(job: Job, watch: Callable[[Mapping[str, Any]], None]) -> Finished:
        nonlocal known
        found = ledger.result(job)
        if found is None:
            raise _MissingError
        known += 1
        return found

    try:
        return tune_series(series, dataset, split, look), 0
    except (_MissingError, TuningError):
        return {}, series.trials - known


def _time(series: Series, dataset: Dataset, split: Split, job: Job, begun_in: Ledger | None = None) -> str:
    """Return the longest time of a job, or the remaining time of a started one."""
    model = series.entry.model_class(series.entry.model_class.Config.from_dict(job.config))
    if not isinstance(model, NetworkModel):
        return "moments"
    device = job_device(model)
    trainers = make_trainers(model, dataset, split, seed=job.seed, device=device)
    work = None if begun_in is None else begun_in.work(job)
    if work is not None and (work / "run.json").exists():
        run = Run.open(work, type(model))
        if torch.device(run.info.device).type == device.type:  # else its generators' state is of no use here
            run.restore(trainers)
    return f"at most {duration(estimate(trainers).total)}"
