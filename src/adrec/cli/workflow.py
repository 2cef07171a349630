"""Implementation of the commands: functions that take and return paths."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from adrec.cli.ranks import agree, follow
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.split import make_split
from adrec.data.vectors import read_item_vectors
from adrec.models.base import Model
from adrec.models.factory import find_device
from adrec.models.network import NetworkModel
from adrec.nn.ranks import Ranks
from adrec.runs.fit import fit, make_trainers
from adrec.runs.folder import Run
from adrec.runs.info import RunInfo
from adrec.runs.refit import refit_config
from adrec.runs.warm import Start, check_digest, check_start, warm_config, weights_digest
from adrec.train.callbacks import Callback
from adrec.train.cost import estimate
from adrec.train.loop import Trainer
from adrec.train.progress import Live
from adrec.utils.errors import ConfigError, RunError
from adrec.utils.files import sha256
from adrec.utils.interrupts import Interrupted
from adrec.utils.text import counted


@dataclass(frozen=True)
class Conduct:
    """How a training is done, other than its configuration.

    Attributes:
        device: ``cpu``, ``cuda`` or ``auto``.
        threads: the number of CPU threads; None is PyTorch's default.
        checkpoint_every: seconds between two snapshots; None lets them take a small share of the time.
        recover: whether a training that diverges goes back to its last snapshot.
        validate_users: the number of validation users to draw; None draws only if all would cost too much.
        ranks: the processes that train together, of which this is the first; None if there is only one.
        item_vectors: the table of item vectors that place items without interactions; None without one.
    """

    device: str = "auto"
    threads: int | None = None
    checkpoint_every: float | None = None
    recover: bool = True
    validate_users: int | None = None
    ranks: Ranks | None = None
    item_vectors: Path | None = None


USUAL = Conduct()


class Announcement(Callback):
    """Prints what is about to be trained, and its estimated cost."""

    def __init__(self, console: Console, run: Run, ranks: Ranks | None = None) -> None:
        self.console, self.run, self.ranks = console, run, ranks

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
        if self.ranks is None:
            say(f"Estimate for {path}: {estimate(trainers).sentence()}")
        else:
            say(f"{self.ranks.size} processes train {path}; adrec plan estimates the time of one.")
        if len(own.split.validation.users) == 0 and own.split.name != "none":
            reason = own.split.nobody("validation")
            say(f"Every epoch is trained and nothing is validated: {reason}.", markup=False)


def _train(run: Run, dataset: Dataset, console: Console, every: float | None = None, ranks: Ranks | None = None) -> Run:
    model, split = run.model_class(run.config), run.split(dataset)
    live = Live(console)
    if not isinstance(model, NetworkModel):
        console.print(f"{dataset.info.name}: {run.info.model} learns without epochs.")
    device = torch.device(run.info.device) if ranks is None else ranks.device
    try:
        with run.locked(), live:
            callbacks = [Announcement(console, run, ranks), live]
            how: dict[str, Any] = {"device": device, "callbacks": callbacks, "every": every, "ranks": ranks}
            stages = fit(model, dataset, split, run, seed=run.info.seed, **how)
            if isinstance(model, NetworkModel) and len(split.validation.users):
                console.print("Fits the confidence of recommendations on validation: some seconds, up to a minute.")
            return run.finish(model, stages, run.info.calibrated(model, dataset, split))
    except (KeyboardInterrupt, Interrupted):
        if isinstance(model, NetworkModel):
            console.print(f"\nInterrupted. Resume with: adrec train --resume {run.path}")
        raise


def train_dataset(
    data: Path,
    out: Path,
    model: Model,
    split: str | None,
    seed: int,
    console: Console,
    *,
    conduct: Conduct = USUAL,
    refit_of: Run | None = None,
    start: Run | None = None,
    name: str | None = None,
) -> Run:
    """Train ``model`` as a run in the folder ``out`` on the prepared data set ``data``, with its own split by default.

    Raises :class:`UserError` before anything is written where the two do not go together.
    """
    dataset = open_dataset(data)
    if conduct.threads is not None:
        torch.set_num_threads(conduct.threads)
    dataset.verify()
    parts, vectors = make_split(dataset, split), conduct.item_vectors
    if vectors is not None:
        parts = parts.knowing_all(dataset)
        check_vectors(model, vectors, dataset)
    not_evaluated: tuple[int, ...] = ()
    if start is not None:
        if start.path.resolve() == out.resolve().with_name(out.name.removesuffix(".new")):
            raise ConfigError(f"{start.path} cannot be replaced by a run that starts from it; choose another --out.")
        not_evaluated = check_start(start, dataset, parts)
        if not_evaluated:
            console.print(
                f"note: of {counted(len(not_evaluated), 'user')} nothing is held out: {start.path} was trained on it, "
                "when they had too few interactions."
            )
    parts = parts.without(not_evaluated)
    if conduct.ranks is not None:
        agree(conduct.ranks, model, dataset, parts, seed)
        if not conduct.ranks.leads:
            follow(conduct.ranks, model, dataset, parts, seed, conduct.validate_users, conduct.recover)
    if isinstance(model, NetworkModel):
        weights = None if start is None else Start.of(start)
        make_trainers(model, dataset, parts, seed=seed, start=weights)[-1].check_initial()
    info = RunInfo.of(
        dataset,
        parts,
        out=out,
        seed=seed,
        model=name or model.name,
        device=str(find_device(conduct.device)),
        recover=conduct.recover,
        validate_users=conduct.validate_users,
        item_vectors=None if vectors is None else str(vectors.resolve()),
        item_vectors_digest=None if vectors is None else sha256(vectors),
        refit_of=str(refit_of.path.resolve()) if refit_of else None,
        started_from=str(start.path.resolve()) if start else None,
        started_digest=weights_digest(start) if start else None,
        not_evaluated=not_evaluated,
        temperature=refit_of.info.temperature if refit_of else None,
    )
    run = Run.create(out, model, info)
    try:
        return _train(run, dataset, console, conduct.checkpoint_every, conduct.ranks)
    except BaseException:
        # A model without epochs has no progress to resume: its run is removed, so the same command can be repeated.
        if not isinstance(model, NetworkModel):
            shutil.rmtree(out, ignore_errors=True)
        raise


def train_from(
    data: Path,
    out: Path,
    start: Path,
    changes: Mapping[str, Any],
    max_epochs: int | None,
    seed: int,
    console: Console,
    conduct: Conduct,
) -> Run:
    """Train the last stage of the run at ``start`` on newer data, from its weights and with its settings."""
    older = Run.open(start)
    older.require_finished()
    config = warm_config(older.config)
    config = config.changed(changes) if changes else config
    config = config.with_max_epochs(max_epochs) if max_epochs is not None else config
    model = older.model_class(config)
    if conduct.item_vectors is None and older.info.item_vectors is not None:
        conduct = replace(conduct, item_vectors=Path(older.info.item_vectors))
    return train_dataset(data, out, model, None, seed, console, conduct=conduct, start=older, name=older.info.model)


def check_vectors(model: Model, path: Path, dataset: Dataset) -> None:
    """Raise :class:`UserError` if ``model`` has no item vectors, or the table at ``path`` cannot be read."""
    if not isinstance(model, NetworkModel):
        raise ConfigError(f"{model.name} has no item vectors, so --item-vectors means nothing; leave it out.")
    read_item_vectors(path, dataset)


def refit(
    path: Path,
    out: Path,
    *,
    data: Path | None,
    start: Path | None,
    conduct: Conduct,
    console: Console,
) -> Run:
    """Train with the settings and chosen epochs of the run at ``path`` on all interactions.

    It starts from the weights of the run ``start``; by default from those that the run at ``path`` started from.
    """
    run = Run.open(path)
    run.require_finished()
    if start is not None and run.info.started_from is None:
        raise ConfigError(
            f"{path} was not trained with --from, so its epochs are those of a training from nothing; leave out --from."
        )
    older = start or (Path(run.info.started_from) if run.info.started_from else None)
    if older is not None and start is None and run.info.started_digest is not None:
        check_digest(Run.open(older), run.info.started_digest)
    dataset = run.dataset(data, newer=True)
    config = refit_config(run.config, run.info.stages)
    source = data or dataset.path or Path(run.info.data)
    seed = run.info.seed
    model = run.model_class(config)
    if run.info.item_vectors is not None:
        conduct = replace(conduct, item_vectors=Path(run.info.item_vectors))
    return train_dataset(
        source,
        out,
        model,
        "none",
        seed,
        console,
        conduct=conduct,
        refit_of=run,
        start=None if older is None else Run.open(older),
        name=run.info.model,
    )


def resume(
    path: Path,
    *,
    data: Path | None,
    threads: int | None,
    console: Console,
    every: float | None = None,
    ranks: Ranks | None = None,
) -> Run:
    """Resume an interrupted run with its own number of threads. Another number changes results by rounding only.

    ``data`` is the path of its data set, if it was moved.
    """
    run = Run.open(path)
    if run.info.finished:
        raise RunError(f"the run {path} is finished already; there is nothing to resume.")
    torch.set_num_threads(threads or run.info.threads)
    find_device(run.info.device)
    dataset = run.dataset(data)
    if ranks is not None:
        split, model = run.split(dataset), run.model_class(run.config)
        agree(ranks, model, dataset, split, run.info.seed)
        if not ranks.leads:
            follow(ranks, model, dataset, split, run.info.seed, run.info.validate_users, run.info.recover)
    return _train(run, dataset, console, every, ranks)
