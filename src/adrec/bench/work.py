"""Computation of one job: training, evaluation, cost. The test part is used once, by the final model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import polars as pl
import torch

from adrec._version import __version__
from adrec.bench.ledger import Finished, Job, Ledger
from adrec.bench.shared import TAKEN, SharedFirstStage, first_stage_key
from adrec.data.dataset import Dataset
from adrec.data.seen import leaves_out
from adrec.data.spans import Int64s
from adrec.data.split import Split
from adrec.evaluate.metrics import means, metric_names
from adrec.evaluate.protocol import training_popularity
from adrec.evaluate.ranking import Ranking, held_out, ranking
from adrec.models.base import Model
from adrec.models.network import NetworkModel
from adrec.runs.fit import fit
from adrec.runs.folder import Run
from adrec.runs.info import RunInfo, environment
from adrec.train.callbacks import Callback
from adrec.utils.errors import RunError
from adrec.utils.sealed import read_json

METRICS = metric_names((5, 10, 20))
STEPS = (1, 2, 4, 8, 16, 32)  # of denoising, at which a model that denoises is tested
TOP = 20  # of a recommendation, for coverage and its like

COSTS = ("seconds", "core_seconds")


@dataclass
class Clock:
    """The time that a block of code takes.

    Attributes:
        seconds: wall-clock time.
        core_seconds: CPU time over all cores, which other work on the machine does not change.
    """

    seconds: float = 0.0
    core_seconds: float = 0.0

    def __enter__(self) -> Self:
        self.seconds, self.core_seconds = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.core_seconds += time.process_time()

    def speed(self, num_users: int) -> dict[str, float]:
        """Return users a second, and a core-second."""
        least = 1e-6
        return {
            "users_per_second": num_users / max(self.seconds, least),
            "users_per_core_second": num_users / max(self.core_seconds, least),
        }


def do_job(
    job: Job,
    model: Model,
    dataset: Dataset,
    split: Split,
    ledger: Ledger,
    *,
    callbacks: Sequence[Callback] = (),
    wait: Callable[[], None] = lambda: None,
    keep_run: bool = False,
    keep_embedding: bool = False,
) -> Finished:
    """Compute a job and store its result; an interrupted job resumes the next time.

    An exception raised by one of the ``callbacks`` ends the job, and its run is kept. ``wait`` is called repeatedly
    while another process trains a shared first stage. With ``keep_run`` the trained run stays at :meth:`Ledger.work`.
    With ``keep_embedding`` the result contains the item embedding, if the model has one, and that of stage 1.
    """
    run = _run(job, model, dataset, split, ledger)
    cost = _train(job, model, dataset, split, ledger, run, callbacks, wait)
    result = {
        **cost,
        "parameters": model.num_parameters,
        "validation": _validation(model, dataset, split),
        **made_on(run),
    }
    if keep_run and not run.info.finished:  # before the result: what is found in the ledger later has a whole run
        run.finish(model, cost["stages"], run.info.calibrated(model, dataset, split))
    if keep_embedding and model.item_vectors is not None:
        ledger.keep_embedding(job, torch.from_numpy(model.item_vectors), run.stage_1())
    if job.trial is not None:
        finished = ledger.keep(job, result)
    else:
        tested, ranks = _test(model, dataset, split)
        finished = ledger.keep(job, {**result, **tested}, ranks)
    if not keep_run:
        ledger.forget_work(job)
    return finished


def _train(
    job: Job,
    model: Model,
    dataset: Dataset,
    split: Split,
    ledger: Ledger,
    run: Run,
    callbacks: Sequence[Callback],
    wait: Callable[[], None],
) -> dict[str, Any]:
    """Train ``model``; return its stages and the seconds that they took, those of what was taken over apart."""
    device = torch.device(run.info.device)
    if run.info.finished:  # it was interrupted while it was tested
        _take(model, run, device)
        return {**spent(run), "stages": list(run.info.stages)}
    if isinstance(model, NetworkModel):
        key = first_stage_key(model, job.fingerprint, job.split, job.seed, device.type, job.source)
        shared = SharedFirstStage(ledger.path / "shared", key, run.path, lambda: _total(run.rows()), wait)
        callbacks = [shared, *callbacks]
    with Clock() as clock:
        stages = fit(model, dataset, split, run, seed=job.seed, device=device, callbacks=callbacks)
    cost = spent(run) if isinstance(model, NetworkModel) else _cost(asdict(clock), {})
    return {**cost, "stages": list(stages)}


def _take(model: Model, run: Run, device: torch.device) -> None:
    """Load what a finished run has learnt into ``model``."""
    trained = run.model(device)
    if isinstance(model, NetworkModel) and isinstance(trained, NetworkModel):
        model.restore(trained.state(), trained.num_items, device, kind=trained.kind, seed=run.info.seed)
    else:
        model.restore(trained.state(), trained.num_items, device)


def spent(run: Run) -> dict[str, Any]:
    """Return what the epochs of a run have taken so far, what it took over apart, and how it validated."""
    kept, rows = run.path / TAKEN, run.rows()
    shared = read_json(kept, RunError, "remove its folder; the job is computed again") if kept.exists() else {}
    curve = [{key: row[key] for key in ("stage", "epoch", "validation")} for row in rows if "validation" in row]
    return {**_cost(_total(rows), shared), "curve": curve}


def made_on(run: Run) -> dict[str, Any]:
    """Return the versions and the machine of a run that ends here."""
    return {
        "device": run.info.device,
        "threads": torch.get_num_threads(),
        "environment": environment(),
        "adrec": __version__,
    }


def _total(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {kind: float(sum(row[kind] for row in rows)) for kind in COSTS}


def _cost(train: Mapping[str, float], shared: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {kind: {"train": train[kind], "shared": shared.get(kind, 0.0)} for kind in COSTS}


def job_device(model: Model) -> torch.device:
    """Return where a job's model is trained: networks on a GPU where there is one, all others on the CPU."""
    return torch.device("cuda" if isinstance(model, NetworkModel) and torch.cuda.is_available() else "cpu")


def _run(job: Job, model: Model, dataset: Dataset, split: Split, ledger: Ledger) -> Run:
    path = ledger.work(job)
    if (path / "run.json").exists():
        return Run.open(path, type(model))
    device = job_device(model).type
    info = RunInfo.of(dataset, split, out=path, seed=job.seed, model=job.model, device=device)
    return Run.create(path, model, info)


def _validation(model: Model, dataset: Dataset, split: Split) -> dict[str, float]:
    if len(split.validation.users) == 0:
        return {}
    histories, items = held_out(dataset, split.validation)
    return means(METRICS, ranking(model, histories, items).ranks, split.validation.users)


def _test(model: Model, dataset: Dataset, split: Split) -> tuple[dict[str, Any], pl.DataFrame]:
    """Return what the tables show of the test part, and each rank with and without seen items, from 1."""
    histories, items = held_out(dataset, split.test)
    top = min(TOP, model.num_items)
    everything = ranking(model, histories, items, top=top)
    with Clock() as clock:
        unseen = ranking(model, histories, items, filter_seen=True, top=top)
    users, served = split.test.users, unseen if leaves_out("data", dataset) else everything
    result = {
        "test": {"all": means(METRICS, everything.ranks, users), "unseen": means(METRICS, unseen.ranks, users)},
        "recommended": recommended(served, training_popularity(dataset, split), model.num_items),
        **clock.speed(len(histories)),
        "by_steps": _by_steps(model, dataset, split),
    }
    ranks = {"rank": everything.ranks + 1, "rank_unseen": unseen.ranks + 1}
    return result, pl.DataFrame({name: values.astype(np.int32) for name, values in ranks.items()})


def _by_steps(model: Model, dataset: Dataset, split: Split) -> dict[str, dict[str, float]]:
    """Return metrics, seen items ranked too, and users/s at some numbers of denoising steps, where it denoises."""
    network = model.network if isinstance(model, NetworkModel) else None
    longest = getattr(network.config, "num_train_timesteps", 0) if network is not None and network.uses_noise else 0
    histories, items = held_out(dataset, split.test)
    found: dict[str, dict[str, float]] = {}
    steps_before = getattr(network.config, "num_inference_steps", None) if network is not None else None
    for steps in (each for each in STEPS if each <= longest):
        model.with_inference(steps, None)
        with Clock() as clock:
            ranks = ranking(model, histories, items).ranks
        found[str(steps)] = {**means(METRICS, ranks, split.test.users), **clock.speed(len(histories))}
    if found:
        model.with_inference(steps_before, None)
    return found


def recommended(found: Ranking, popularity: Int64s, num_items: int) -> dict[str, float]:
    """Return what the first items of all users are like.

    ``coverage`` is the share of the catalogue that is recommended to anybody; ``gini`` how unequally (0: all items
    alike, 1: one item alone); ``popularity`` their mean training interactions; ``novelty`` the mean of -log2 of their
    share of the training interactions (Vargas and Castells 2011), an item without any counting as one with one.
    """
    shown = found.top[found.top > 0]
    counts = np.sort(np.bincount(shown, minlength=num_items + 1)[1 : num_items + 1])
    positions = np.arange(1, num_items + 1)
    gini = float(((2 * positions - num_items - 1) * counts).sum() / (num_items * counts.sum()))
    shares = np.maximum(popularity[shown], 1) / popularity.sum()
    return {
        "coverage": float((counts > 0).mean()),
        "gini": gini,
        "popularity": float(popularity[shown].mean()),
        "novelty": float(-np.log2(shares).mean()),
    }
