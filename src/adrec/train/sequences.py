"""Which sequences each stage trains on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from adrec.config.base import StageConfig, TrainingConfig
from adrec.data.dataset import Dataset
from adrec.data.sequences import Sequences
from adrec.data.split import Split
from adrec.utils.errors import DataError


def training_histories(dataset: Dataset, split: Split, max_length: int) -> Sequences:
    """Return the training part of each user who has one."""
    starts, ends = np.asarray(dataset.offsets[:-1]), np.asarray(split.train_ends)
    return Sequences(dataset.items, starts, ends, max_length).at_least(1)


def sequences_of_stages(
    config: TrainingConfig, stages: Iterable[tuple[str, StageConfig]], histories: Sequences, prefixes: Tensor | None
) -> dict[str, Sequences]:
    """Return what each stage trains on: the ``histories`` that are long enough for its network.

    The model's own stages train on the histories behind their ``prefixes``, [U, M], where there are any.

    Raises:
        DataError: where there is too little to learn from.
    """
    whole = histories if prefixes is None else histories.behind(prefixes.numpy())
    found = {}
    for name, stage in stages:
        network = config.network_of(stage.network_kind)
        source = histories if name in config.augment.stages else whole
        found[name] = replace(source, max_length=network.max_length).at_least(network.shortest)
    _check(config, found, histories)
    return found


def _check(config: TrainingConfig, sequences: Mapping[str, Sequences], histories: Sequences) -> None:
    if len(histories.at_least(2)) == 0:
        raise DataError(
            "no user has two interactions left for training, so there is no next item to learn; "
            "give more interactions or weaker filters."
        )
    for name in config.augment.stages:
        shortest = config.network_of(name).shortest
        if len(sequences[name]) < 2:
            raise DataError(
                f"{name} learns from users with {shortest} training interactions or more, and there are "
                f"{len(sequences[name])}; set augment.num_items, now {config.augment.num_items}, lower."
            )
