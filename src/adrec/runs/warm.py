"""Warm start of a run from an earlier one: its configuration, its weights, and the check that nothing leaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from adrec.config.base import Settings, TrainingConfig
from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.runs.folder import Run
from adrec.train.checkpoint import read_snapshot
from adrec.utils.errors import ConfigError, DataError
from adrec.utils.text import counted


@dataclass(frozen=True)
class Start:
    """The weights that a training starts from.

    Attributes:
        path: the earlier run.
        weights: its weights, by name.
        num_items: V, the items that it knows.
    """

    path: Path
    weights: Mapping[str, Tensor]
    num_items: int

    @classmethod
    def of(cls, run: Run) -> Start:
        """Read the weights of a finished run. Raises :class:`RunError` if there are none."""
        run.require_finished()
        snapshot = read_snapshot(run.path / "weights.safetensors")
        return cls(run.path, snapshot.tensors, snapshot.values["num_items"])


def warm_config(config: Settings) -> TrainingConfig:
    """Return a configuration of its last stage alone, which starts from given weights.

    Raises :class:`ConfigError` for a model without epochs.
    """
    if not isinstance(config, TrainingConfig):
        raise ConfigError("this model learns without epochs, in moments: train it anew.")
    *earlier, name = config.stages
    values = {key: value for key, value in config.to_dict().items() if key not in earlier}
    if "start" in values[name]:
        values[name] = {**values[name], "start": "scratch"}
    warm = type(config).from_dict(values)
    assert isinstance(warm, TrainingConfig)
    return warm


def check_start(run: Run, dataset: Dataset, split: Split) -> None:
    """Check that a training on ``dataset`` can start from a run.

    Raises :class:`DataError` if the data set does not have the run's items under their numbers, or holds out what the
    run was trained on.
    """
    if not dataset.catalogue.starts_with(run.info.catalogue, run.info.num_items):
        raise DataError(
            f"{run.path} was trained on other items than {dataset.info.name} begins with; prepare the data with "
            "--extend or --vocabulary of the data set that it was trained on."
        )
    if split.num_items < run.info.num_items:
        raise DataError(f"the split {split.name!r} knows fewer items than {run.path}; choose later moments.")
    held_out = pl.concat([_rows(dataset, part.positions) for part in (split.validation, split.test)])
    if held_out.height == 0:
        return
    older = run.dataset()
    trained = np.flatnonzero(_in_training(older, run.split(older)))
    leaked = held_out.join(_rows(older, trained), on=["user", "item", "time"], how="semi").height
    if leaked:
        raise DataError(
            f"{run.path} was trained on {counted(leaked, 'interaction')} that {dataset.info.name} holds out, so its "
            "metrics would be too high; start from a run whose training part is older (not from its refit)."
        )


def _in_training(dataset: Dataset, split: Split) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    ends = np.repeat(split.train_ends, np.diff(dataset.offsets))
    inside: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.arange(dataset.num_interactions) < ends
    return inside


def _rows(dataset: Dataset, positions: np.ndarray[Any, Any]) -> pl.DataFrame:
    """Return user, item and time of some interactions."""
    owners = np.searchsorted(dataset.offsets, positions, side="right") - 1
    ids = (
        dataset.users.decode(owners).cast(pl.String),
        dataset.catalogue.decode(np.asarray(dataset.items)[positions].astype(np.int64) - 1).cast(pl.String),
    )
    return pl.DataFrame({"user": ids[0], "item": ids[1], "time": np.asarray(dataset.times)[positions].astype(float)})
