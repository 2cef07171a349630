"""Implementation of the commands: functions that take and return paths."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from rich.console import Console

from adrec.api.model import ADRec
from adrec.config.diffusion import Sampler
from adrec.config.stage import SeenOrData
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.lists import read_histories, read_ids
from adrec.data.split import make_split
from adrec.evaluate.protocol import Evaluation, evaluate
from adrec.evaluate.tables import evaluate_table
from adrec.inference.recommender import Recommendations
from adrec.models.base import Model
from adrec.models.factory import find_device
from adrec.models.network import NetworkModel
from adrec.runs.fit import fit, make_trainers
from adrec.runs.folder import Run
from adrec.runs.info import RunInfo
from adrec.runs.refit import refit_config
from adrec.train.callbacks import Callback
from adrec.train.cost import estimate
from adrec.train.loop import Trainer
from adrec.train.plan import TrainingPlan, make_plan
from adrec.train.progress import Live
from adrec.utils.errors import ConfigError, RunError
from adrec.utils.text import counted

Frame = pl.DataFrame


class Announcement(Callback):
    """Prints what is about to be trained, and its estimated cost."""

    def __init__(self, console: Console, run: Run) -> None:
        self.console, self.run = console, run

    @contextmanager
    def around(self, trainers: Sequence[Trainer]) -> Iterator[None]:
        """Print the announcement before training starts."""
        self._say(trainers)
        yield

    def _say(self, trainers: Sequence[Trainer]) -> None:
        say, path, own = self.console.print, self.run.path, trainers[-1]
        dataset, sequences = own.dataset, own.last_sequences
        size = f"{counted(dataset.num_users, 'user')}, {counted(dataset.num_items, 'item')}"
        epoch = f"{counted(sequences.num_tokens, 'token')} an epoch in {counted(own.steps(sequences), 'step')}"
        say(f"{dataset.info.name}: {size}; {epoch}. Split: {own.split.name}.")
        left = [stage for trainer in trainers for stage in trainer.left()]
        if not left:
            say(f"Nothing of {path} is left to train: its weights are written.")
            return
        say(f"Estimate for {path}: {estimate(trainers).sentence()}")
        if len(own.split.validation.users) == 0 and own.split.name != "none":
            reason = own.split.nobody("validation")
            say(f"Every epoch is trained and nothing is validated: {reason}.", markup=False)


def _train(run: Run, dataset: Dataset, console: Console) -> Run:
    model, split = run.model_class(run.config), run.split(dataset)
    live = Live(console)
    if not isinstance(model, NetworkModel):
        console.print(f"{dataset.info.name}: {run.info.model} learns without epochs.")
    device = torch.device(run.info.device)
    try:
        with run.locked(), live:
            callbacks = [Announcement(console, run), live]
            stages = fit(model, dataset, split, run, seed=run.info.seed, device=device, callbacks=callbacks)
            return run.finish(model, stages, run.info.calibrated(model, dataset, split))
    except KeyboardInterrupt:
        if isinstance(model, NetworkModel):
            kept = "everything up to the last epoch is kept" if run.rows() else "no epoch was finished"
            console.print(f"\nInterrupted; {kept}. Resume with: adrec train --resume {run.path}")
        raise


def train_dataset(
    data: Path,
    out: Path,
    model: Model,
    split: str | None,
    seed: int,
    console: Console,
    *,
    device: str = "auto",
    threads: int | None = None,
    refit_of: Run | None = None,
    name: str | None = None,
) -> Run:
    """Train ``model`` as a run in the folder ``out`` on the prepared data set ``data``, with its own split by default.

    Raises :class:`UserError` before anything is written where the two do not go together.
    """
    dataset = open_dataset(data)
    if threads is not None:
        torch.set_num_threads(threads)
    dataset.verify()
    parts = make_split(dataset, split)
    if isinstance(model, NetworkModel):
        make_trainers(model, dataset, parts, seed=seed)
    info = RunInfo.of(
        dataset,
        parts,
        out=out,
        seed=seed,
        model=name or model.name,
        device=str(find_device(device)),
        refit_of=str(refit_of.path.resolve()) if refit_of else None,
        temperature=refit_of.info.temperature if refit_of else None,
    )
    run = Run.create(out, model, info)
    try:
        return _train(run, dataset, console)
    except BaseException:
        # A model without epochs has no progress to resume: its run is removed, so the same command can be repeated.
        if not isinstance(model, NetworkModel):
            shutil.rmtree(out, ignore_errors=True)
        raise


def plan(data: Path, model: Model, *, device: str) -> TrainingPlan:
    """Return the estimated cost of training on the prepared data set ``data``, with its own split.

    Raises :class:`ConfigError` for a model without epochs.
    """
    if not isinstance(model, NetworkModel):
        raise ConfigError(f"{model.name} learns without epochs, in moments; there is nothing to plan.")
    dataset = open_dataset(data)
    dataset.verify()
    split = make_split(dataset, None)
    return make_plan(make_trainers(model, dataset, split, seed=0, device=find_device(device)))


def refit(path: Path, out: Path, *, data: Path | None, device: str, threads: int | None, console: Console) -> Run:
    """Train with the settings and chosen epochs of the run at ``path`` on all interactions."""
    run = Run.open(path)
    run.require_finished()
    dataset = run.dataset(data, newer=True)
    config = refit_config(run.config, run.info.stages)
    source = data or dataset.path or Path(run.info.data)
    seed = run.info.seed
    model = run.model_class(config)
    return train_dataset(
        source,
        out,
        model,
        "none",
        seed,
        console,
        device=device,
        threads=threads,
        refit_of=run,
        name=run.info.model,
    )


def resume(path: Path, *, data: Path | None, threads: int | None, console: Console) -> Run:
    """Resume an interrupted run with its own number of threads. Another number changes results by rounding only.

    ``data`` is the path of its data set, if it was moved.
    """
    run = Run.open(path)
    if run.info.finished:
        raise RunError(f"the run {path} is finished already; there is nothing to resume.")
    torch.set_num_threads(threads or run.info.threads)
    find_device(run.info.device)
    return _train(run, run.dataset(data), console)


def evaluate_run(
    path: Path,
    part: str,
    *,
    cutoffs: Sequence[int],
    seen: SeenOrData,
    with_batch_means: bool,
    steps: int | None,
    sampler: Sampler | None,
    data: Path | None,
    device: str,
    on_batch: Callable[[int], None],
) -> Evaluation:
    """Evaluate a run."""
    run = Run.open(path)
    if run.info.split == "none":
        raise RunError(f"{path} was trained on all interactions: nothing was held out to evaluate it on.")
    model = run.model(find_device(device))
    model.with_inference(steps, sampler)
    dataset = run.dataset(data)
    return evaluate(
        model,
        dataset,
        run.split(dataset),
        part,
        cutoffs=cutoffs,
        seen=seen,
        with_batch_means=with_batch_means,
        on_batch=on_batch,
    )


def evaluate_recommendations(
    path: Path, table: Path, part: str, *, cutoffs: Sequence[int], data: Path | None = None
) -> tuple[Evaluation, tuple[str, ...]]:
    """Evaluate another program's recommendations on a prepared data set or on a run's data set; also return notes.

    ``data`` is the path of the run's data set, if it was moved.
    """
    if (path / "run.json").is_file():
        run = Run.open(path)
        dataset = run.dataset(data)
        return evaluate_table(table, dataset, run.split(dataset), part, cutoffs=cutoffs)
    if data is not None:
        raise ConfigError(f"{path} is a data set, so --data means nothing here; leave it out, or name a run.")
    dataset = open_dataset(path)
    dataset.verify()
    return evaluate_table(table, dataset, make_split(dataset, None), part, cutoffs=cutoffs)


@dataclass(frozen=True)
class Audience:
    """The recipients of recommendations: users of the data set (table, ids or all), or histories (table, or one)."""

    users: Path | None = None
    user: Sequence[str] | None = None
    history: Path | None = None
    given: Sequence[str] | None = None

    def __post_init__(self) -> None:
        named = [name for name in ("users", "user", "history", "given") if getattr(self, name)]
        if len(named) > 1:
            raise ConfigError(f"--{named[0]} and --{named[1]} exclude each other; give one.")


def recommend(
    path: Path,
    audience: Audience,
    *,
    k: int,
    seen: SeenOrData,
    diversity: float,
    allow: Path | None,
    block: Path | None,
    on_unknown: Literal["error", "skip"],
    steps: int | None,
    sampler: Sampler | None,
    data: Path | None,
    device: str,
    on_batch: Callable[[int], None],
) -> Recommendations:
    """Recommend with the run at ``path``."""
    recommender = ADRec.load(path, data=data, device=device, num_inference_steps=steps, sampler=sampler).recommender()
    names = recommender.dataset.info.columns
    limits: dict[str, Any] = {
        "seen": seen,
        "diversity": diversity,
        "items": read_ids(allow, "item", names) if allow else None,
        "exclude": read_ids(block, "item", names) if block else None,
        "on_batch": on_batch,
    }
    if audience.given:
        return recommender.for_histories([audience.given], k, **limits)
    if audience.history:
        people, histories = read_histories(audience.history, names)
        result = recommender.for_histories(histories, k, **limits)
        owner = pl.Series("user", people).gather(result.table["history"])
        return Recommendations(result.table.drop("history").insert_column(0, owner), result.notes)
    users: Any = list(audience.user) if audience.user else None
    if audience.users:
        users = read_ids(audience.users, "user", names)
    return recommender.for_users(users, k, on_unknown=on_unknown, **limits)


def similar(path: Path, items: Sequence[str], k: int, *, data: Path | None) -> Frame:
    """Return the items nearest to each of ``items``."""
    table: Frame = ADRec.load(path, data=data).similar_items(list(items), k)
    return table
