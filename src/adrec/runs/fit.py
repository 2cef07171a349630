"""Training of a model: the shared implementation of the command line, the Python interface and the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adrec.augment.model import augmentation_trainer, generate_prefixes, stand_in_prefixes
from adrec.config.base import DEFAULT_SEED
from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.data.vectors import read_item_vectors
from adrec.models.base import Model
from adrec.models.checks import check_fitted
from adrec.models.network import NetworkModel
from adrec.nn.base import SequenceNetwork
from adrec.nn.ranks import Ranks
from adrec.runs.folder import Run
from adrec.runs.recorder import Follower, Recorder
from adrec.runs.warm import Start
from adrec.train.callbacks import Callback
from adrec.train.loop import Trainer
from adrec.train.newcomers import place_new_items, target_counts
from adrec.train.ranked import RankedTrainer
from adrec.utils import interrupts
from adrec.utils.errors import ConfigError, RunError
from adrec.utils.files import sha256


def make_trainers(
    model: NetworkModel,
    dataset: Dataset,
    split: Split,
    *,
    seed: int,
    device: torch.device | None = None,
    callbacks: Sequence[Callback] = (),
    start: Start | None = None,
    recover: bool = True,
    validate_users: int | None = None,
    ranks: Ranks | None = None,
    features: Callable[[], NDArray[np.float32]] | None = None,
) -> list[Trainer]:
    """Return the trainers of ``model``: that of its augmentation, if it has one, then its own.

    With an augmentation, its own trainer has stand-in prefixes until :func:`fit` replaces them by the generated ones.
    """
    config, made, prefixes = model.training, [], None
    if ranks is not None and config.augment is not None:
        raise ConfigError("an augmentation is trained by one process; leave --augment out, or start without torchrun.")
    if config.augment is not None:
        augmenting = augmentation_trainer(
            config, config.augment, dataset, split, seed=seed, device=device, callbacks=callbacks
        )
        made.append(augmenting)
        prefixes = stand_in_prefixes(augmenting)
    kind = Trainer if ranks is None else partial(RankedTrainer, ranks=ranks)
    own = kind(
        config,
        dataset,
        split,
        networks=model.networks,
        seed=seed,
        device=device,
        callbacks=callbacks,
        prefixes=prefixes,
        initial=None if start is None else (start.weights, start.num_items),
        recover=recover,
        validate_users=validate_users,
        features=features,
    )
    return [*made, own]


def _placed(trainer: Trainer, run: Run | None) -> SequenceNetwork:
    """Train, and give the items without interactions the vectors that their features predict, if the run has any."""
    network = trainer.run()
    if run is None or run.info.item_vectors is None:
        return network
    features = _features(run, trainer.dataset, network.num_items)
    counts = target_counts(trainer.last_sequences, network.num_items)
    placed = place_new_items(network.item_embedding.weight.data, features, counts)
    for each in trainer.callbacks:
        each.on_message(placed.sentence())
    return network


def _features(run: Run, dataset: Dataset, num_items: int) -> NDArray[np.float32]:
    """Return the features of the items of a run that has item vectors, [V + 1, F]."""
    assert run.info.item_vectors is not None
    check_same_file(Path(run.info.item_vectors), run.info.item_vectors_digest)
    return read_item_vectors(Path(run.info.item_vectors), dataset)[: num_items + 1]


def check_same_file(path: Path, digest: str | None) -> None:
    """Raise :class:`RunError` unless the table of item vectors is the one that the run was begun with."""
    if not path.is_file() or sha256(path) != digest:
        raise RunError(f"{path}, the item vectors of this run, is missing or another file now; restore it.")


def fit(
    model: Model,
    dataset: Dataset,
    split: Split,
    run: Run | None = None,
    *,
    seed: int = DEFAULT_SEED,
    device: torch.device | None = None,
    callbacks: Sequence[Callback] = (),
    every: float | None = None,
    validate_users: int | None = None,
    recover: bool = True,
    ranks: Ranks | None = None,
) -> tuple[Mapping[str, Any], ...]:
    """Train ``model`` on the training part of ``split``; return a record of each stage.

    Args:
        model: the model; it is trained in place.
        dataset: the prepared data set.
        split: the split; validation selects weights and stops early if it has users.
        run: an unfinished run, which records each epoch. Training resumes from its state, and starts from the weights
            of the run that it names (``started_from``). The caller writes the weights (:meth:`Run.finish`).
        seed: the random seed; :data:`adrec.config.base.DEFAULT_SEED` by default.
        device: the device of training; the CPU by default.
        callbacks: receive each event, after the run has recorded it.
        every: seconds between two snapshots of the run; None lets them take a small share of the time.
        validate_users: the number of validation users to draw, if there is no ``run``, which has its own; None draws
            only if all would cost too much.
        recover: whether a training that diverges goes back to its last snapshot; a ``run`` has its own.
        ranks: the processes that train together; only the first gets the model, and may have a ``run``.

    Raises:
        DataError: if there is no training data.
        RunError: if training diverges before any epoch is validated, or the run's snapshots are damaged.
        ConfigError: if the class of ``model`` violates the interface of a model.
    """
    if dataset.weights is not None and not model.weighs_events:
        for each in callbacks:
            each.on_message(f"{model.name} ignores event weights: every interaction counts the same.", warning=True)
    if not isinstance(model, NetworkModel):
        model.fit(dataset, split, seed=seed, device=device)
        check_fitted(model, dataset, split)
        return ()
    features = None
    if run is not None and run.info.item_vectors is not None:
        check_same_file(Path(run.info.item_vectors), run.info.item_vectors_digest)  # now, not after hours
        features = partial(_features, run, dataset, split.num_items)
    recorder: list[Callback] = [Recorder(run, every)] if run is not None else [Follower()] * (ranks is not None)
    start = None
    if run is not None and run.info.started_from is not None:
        start = Start.of(Run.open(Path(run.info.started_from), type(model)), run.info.started_digest)
    trainers = make_trainers(
        model,
        dataset,
        split,
        seed=seed,
        device=device,
        callbacks=[*recorder, *callbacks],
        start=start,
        recover=recover if run is None else run.info.recover,
        validate_users=validate_users if run is None else run.info.validate_users,
        ranks=ranks,
        features=features,
    )
    with ExitStack() as stack:
        stack.enter_context(interrupts.handled())
        for each in (*recorder, *callbacks):
            stack.enter_context(each.around(trainers))
        rows = [] if run is None else run.rows()
        if rows and any(trainer.left() for trainer in trainers):
            for each in callbacks:
                each.on_resume(rows)
        *augmenting, own = trainers
        for trainer in augmenting:
            prefixes = None if run is None else run.prefixes()
            if prefixes is None:
                trainer.run()
                prefixes = generate_prefixes(trainer)
                if run is not None:
                    run.keep_prefixes(prefixes, trainer.progress)
            own.use_prefixes(prefixes)
        model.adopt(_placed(own, run), seed)
    if ranks is None or ranks.leads:
        check_fitted(model, dataset, split)
    return tuple(stage for trainer in trainers for stage in trainer.progress.ended)
