"""Hyperparameter tuning with Optuna, with pruning; each trial is a job of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from adrec.bench.grid import Entry
from adrec.bench.ledger import Finished, Job
from adrec.bench.series import Series, make_job
from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.utils.errors import ConfigError, UserError, needs_extra

if TYPE_CHECKING:
    import optuna

NEVER_PRUNED = 3  # of an entry's first trials: its own settings, and enough to tell what is usual
METRIC = "ndcg@20"  # of validation: what tuning and early stopping select by

RunTrial = Callable[[Job, Callable[[Mapping[str, Any]], None]], Finished]


class TuningError(UserError):
    """No trial has succeeded."""


class PrunedError(Exception):
    """A trial that is worse, at the same epoch, than half of those before."""


def check_optuna() -> None:
    """Raise :class:`UserError` where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise UserError(needs_extra("tuning, which --trials 0 leaves out,", "benchmark"))


def tune(
    entry: Entry, num_trials: int, seed: int, job_of: Callable[[Mapping[str, Any], int], Job], run: RunTrial
) -> Mapping[str, Any]:
    """Return the changes of ``entry`` that validate best in ``num_trials`` trials, the first of them its own settings.

    Args:
        entry: what is tuned, with its search space.
        num_trials: trials; those that the ledger has already count, and are told to the sampler in the same order.
        seed: of the sampler.
        job_of: the job of some changes and a trial's number.
        run: computes a job, or takes it from the ledger; raises :class:`PrunedError` through what it calls.
    """
    check_optuna()
    import optuna  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(5, num_trials)),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=NEVER_PRUNED, n_warmup_steps=5),
    )
    best: tuple[float, Mapping[str, Any]] | None = None
    misfit = ""  # why proposed settings do not fit each other
    for number in range(num_trials):
        trial = study.ask()
        changes = {} if number == 0 else {key: _suggest(trial, key, entry) for key in entry.search}
        reported: set[int] = set()
        try:
            job = job_of(changes, number)
        except ConfigError as error:
            misfit = f" (settings were proposed that do not fit: {error})"
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        finished = run(job, lambda row, t=trial, r=reported: _watch(t, row, r))  # type: ignore[misc]
        for row in finished.result.get("curve", []):  # of a trial that was there already: later ones are measured by it
            _report(trial, row, reported)
        value = finished.result.get("validation", {}).get(METRIC)
        if finished.result.get("pruned"):
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        if finished.error or value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(trial, value)
        if best is None or value > best[0]:
            best = value, changes
    if best is None:
        raise TuningError(
            f"{entry.label}: no trial of {num_trials} has succeeded; see the errors in the ledger{misfit}."
        )
    return best[1]


def tune_series(series: Series, dataset: Dataset, split: Split, run: RunTrial) -> Mapping[str, Any]:
    """Return what :func:`tune` finds for a series, with its first seed; nothing where it is not tuned."""
    if not series.tuned:
        return {}
    seed = series.seeds[0]
    return tune(
        series.entry,
        series.trials,
        seed,
        lambda changes, number: make_job(series, dataset, split, seed, changes, number),
        run,
    )


def _suggest(trial: optuna.Trial, key: str, entry: Entry) -> Any:
    space = entry.search[key]
    if isinstance(space, list):
        return trial.suggest_categorical(key, space)
    low, high, log = space["low"], space["high"], bool(space.get("log", False))
    if entry.is_whole(key):
        return trial.suggest_int(key, low, high, log=log)
    return trial.suggest_float(key, low, high, log=log)


def _watch(trial: optuna.Trial, row: Mapping[str, Any], reported: set[int]) -> None:
    """Tell a trial's validation to the pruner, and end the trial where that says so."""
    if _report(trial, row, reported) and trial.should_prune():
        raise PrunedError


def _report(trial: optuna.Trial, row: Mapping[str, Any], reported: set[int]) -> bool:
    """Tell an epoch's validation, once, in the last stage: stages are not comparable. Return whether it was told."""
    if row["stage"] not in ("finetune", "train") or "validation" not in row or row["epoch"] in reported:
        return False
    trial.report(row["validation"][METRIC], row["epoch"])
    reported.add(row["epoch"])
    return True
