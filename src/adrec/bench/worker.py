"""Computation of a series in the current process: tuning if requested, then one job per seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adrec.bench.ledger import Finished, Job, Ledger
from adrec.bench.series import Series, make_job
from adrec.bench.tuning import NEVER_PRUNED, PrunedError, TuningError, tune_series
from adrec.bench.work import do_job, made_on, spent
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.split import Split, make_split
from adrec.models.network import NetworkModel
from adrec.runs.folder import Run
from adrec.train.callbacks import Callback
from adrec.train.cost import duration

Watch = Callable[[Mapping[str, Any]], None]


POLL = 1.0  # seconds between checks of a trial that another process computes


class UnfinishedError(Exception):
    """Raised if a job is postponed: the budget is used up, or another process computes it."""


class Worker:
    """Computes series in this process.

    Args:
        ledger: the ledger's folder.
        deadline: on the clock of :func:`time.time`; None has no end.
        say: is told what happens, a line each.
        callbacks: are told of each event of a training.
        keep_runs: leave trained runs in the ledger's ``work`` folder.
        keep_embeddings: of final models, in the ledger.
        finishes: at the deadline, end training and test what there is, instead of leaving the job for later; also what
            there is of a job that was begun before.
    """

    def __init__(
        self,
        ledger: Path,
        deadline: float | None,
        say: Callable[[str], None],
        callbacks: Sequence[Callback] = (),
        *,
        keep_runs: bool = False,
        keep_embeddings: bool = False,
        finishes: bool = False,
    ) -> None:
        self.ledger, self.deadline = Ledger.open(ledger), deadline
        self.say, self.callbacks = say, callbacks
        self.keep_runs, self.keep_embeddings, self.finishes = keep_runs, keep_embeddings, finishes

    def compute(self, series: Series) -> list[Finished]:
        """Compute the missing jobs of a series. Failures are recorded, and the other jobs continue."""
        dataset = open_dataset(series.data)
        dataset.verify()
        split = make_split(dataset, None)
        self.ledger.add_dataset(dataset, split)
        if series.tuned and len(split.validation.users) == 0:
            raise TuningError(
                f"{dataset.info.name}: {series.entry.label} cannot be tuned, as the split {split.name} has no "
                "validation part; prepare the data with one that has, or give --trials 0."
            )
        changes = tune_series(series, dataset, split, lambda job, watch: self._job(job, series, dataset, split, watch))
        finished, unfinished = [], None
        for seed in series.seeds:
            try:
                finished.append(self._job(make_job(series, dataset, split, seed, changes), series, dataset, split))
            except UnfinishedError as error:  # another seed's job may be free
                unfinished = unfinished or error
        if unfinished is not None:
            raise unfinished
        return finished

    def _job(
        self, job: Job, series: Series, dataset: Dataset, split: Split, watch: Watch = lambda row: None
    ) -> Finished:
        found = self._found(job, series)
        if found is not None:
            if not self.keep_runs:  # a process that was killed as it finished the job left its run
                self.ledger.forget_work(job)
            return found
        if not (self.finishes and self.ledger.work(job).exists()):
            self.check_time()
        while True:
            with self.ledger.claimed(job.key) as ours:
                if ours:
                    found = self._found(job, series)  # another process may just have finished it
                    return found or self._computed(job, series, dataset, split, watch)
            if job.trial is None:
                raise UnfinishedError(f"{job.words}: another process computes it.")
            self.check_time()  # a trial is waited for: the next one depends on it
            time.sleep(POLL)

    def _found(self, job: Job, series: Series) -> Finished | None:
        return found_of(self.ledger, job, series, self.keep_embeddings)

    def _computed(self, job: Job, series: Series, dataset: Dataset, split: Split, watch: Watch) -> Finished:
        """Compute a job that is ours; what it raises is kept as its result, but for what leaves it for later."""
        try:
            model = series.entry.model_class(series.entry.model_class.Config.from_dict(job.config))
            finished = do_job(
                job,
                model,
                dataset,
                split,
                self.ledger,
                callbacks=[*self.callbacks, _Budget(self, watch)],
                wait=self.check_time,
                keep_run=self.keep_runs and job.trial is None,
                keep_embedding=self.keep_embeddings and job.trial is None,
            )
        except PrunedError:
            run = Run.open(self.ledger.work(job), series.entry.model_class)
            finished = self.ledger.keep(job, {"pruned": True, **made_on(run), **spent(run)})
            self.ledger.forget_work(job)
        except UnfinishedError:
            raise
        except Exception as error:  # whatever a model raises: it is recorded, and the other jobs continue
            finished = self.ledger.fail(job, f"{type(error).__name__}: {error}")
        took = sum(finished.result.get("seconds", {}).values())
        self.say(f"{job.words}: {_outcome(finished)}" + (f" ({duration(took)} of training)" if took else ""))
        return finished

    def is_late(self) -> bool:
        """Return whether the deadline is past."""
        return self.deadline is not None and time.time() > self.deadline

    def check_time(self) -> None:
        """Raise :class:`UnfinishedError` where the deadline is past."""
        if self.is_late():
            raise UnfinishedError("the budget is used up; the same command resumes.")


class _Budget(Callback):
    """Ends a job when the time of its worker is up, or lets it finish with what it has; lets a search watch it."""

    def __init__(self, worker: Worker, watch: Watch) -> None:
        self.worker, self.watch = worker, watch

    def on_resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:  # another process may have computed them
            self.watch(row)

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        self.watch(row)
        if not self.worker.finishes:
            self.worker.check_time()

    def should_stop(self) -> bool:
        return self.worker.finishes and self.worker.is_late()


def found_of(ledger: Ledger, job: Job, series: Series, keep_embeddings: bool) -> Finished | None:
    """Return the stored result of a job, or None.

    A result without a requested embedding does not count. Neither does a trial pruned by another entry's search, if it
    is among this entry's first trials, which are never pruned.
    """
    found = ledger.result(job)
    if found is None:
        return None
    asked = keep_embeddings and job.trial is None and issubclass(series.entry.model_class, NetworkModel)
    given_up = job.trial is not None and job.trial < NEVER_PRUNED and bool(found.result.get("pruned"))
    return None if given_up or (asked and not found.has_embeddings) else found


def _outcome(finished: Finished) -> str:
    if finished.error:
        return f"failed, {finished.error}"
    if finished.result.get("pruned"):
        return "pruned"
    if "test" in finished.result:
        test = finished.result["test"]
        return f"test ndcg@20 {test['all']['ndcg@20']:.4f}, without seen items {test['unseen']['ndcg@20']:.4f}"
    return f"validation ndcg@20 {finished.result['validation'].get('ndcg@20', 0.0):.4f}"
