"""The training sequences of each stage, and the number of them in a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from adrec.config.base import TrainingConfig
from adrec.data.dataset import Dataset
from adrec.data.sequences import Sequences
from adrec.data.split import LAST_BASKET, Split, basket_begins
from adrec.utils.errors import DataError


def training_histories(dataset: Dataset, split: Split, max_length: int) -> Sequences:
    """Return the training part of each user with a non-empty one; with whole baskets if the split has them."""
    starts, ends = np.asarray(dataset.offsets[:-1]), np.asarray(split.train_ends)
    begins = basket_begins(dataset) if split.name == LAST_BASKET else None
    return Sequences(dataset.items, starts, ends, max_length, dataset.weights, begins).at_least(1)


def stage_sequences(
    config: TrainingConfig, histories: Sequences, prefixes: Tensor | None = None
) -> Mapping[str, Sequences]:
    """Return the training sequences of each stage: the ``histories`` that are long enough for its network.

    Args:
        config: the configuration of the networks and stages.
        histories: U training histories.
        prefixes: generated items before each history, int64 [U, M]; None without augmentation.

    Raises:
        DataError: if there is not enough training data.
    """
    if len(histories.at_least(2)) == 0:
        raise DataError(
            "no user has two interactions left for training, so there is no next item to learn; "
            "give more interactions or weaker filters."
        )
    whole = histories if prefixes is None else histories.behind(prefixes.numpy())
    found = {}
    for name, stage in config.stages.items():
        network = config.network_of(stage.network)
        found[name] = replace(whole, max_length=network.max_length).at_least(network.shortest)
        if len(found[name]) == 0:
            raise DataError(
                f"{name} learns from users with {network.shortest} training interactions or more, and there is none; "
                "give longer histories."
            )
    return found


def users_per_step(config: TrainingConfig, sequences: Sequences) -> int:
    """Return the users in one optimizer step: the minimum of ``batch_size`` and what ``tokens_per_step`` allows."""
    most, tokens = min(config.batch_size, len(sequences)), config.tokens_per_step
    return max(1, min(most, tokens * len(sequences) // sequences.num_tokens)) if tokens else most
