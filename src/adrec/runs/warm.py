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
from adrec.data.extend import in_unit
from adrec.data.split import Split
from adrec.runs.folder import Run
from adrec.train.checkpoint import read_snapshot
from adrec.utils.errors import ConfigError, DataError, RunError
from adrec.utils.files import sha256
from adrec.utils.text import counted

MOST = 0.2  # a share of the held-out users


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
    def of(cls, run: Run, digest: str | None = None) -> Start:
        """Read the weights of a finished run. Raises :class:`RunError` if there are none, or none of this digest."""
        run.require_finished()
        if digest is not None:
            check_digest(run, digest)
        snapshot = read_snapshot(run.path / "weights.safetensors")
        return cls(run.path, snapshot.tensors, snapshot.values["num_items"])


def check_digest(run: Run, digest: str) -> None:
    """Raise :class:`RunError` if a run is not finished, or has other weights than those of this digest."""
    run.require_finished()
    if weights_digest(run) != digest:
        raise RunError(
            f"{run.path} is not the run any more whose weights were to be started from: it was replaced; name another "
            "with --from."
        )


def weights_digest(run: Run) -> str:
    """Return the SHA-256 of a run's weights."""
    return sha256(run.path / "weights.safetensors")


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


def check_start(run: Run, dataset: Dataset, split: Split) -> tuple[int, ...]:
    """Check that a training on ``dataset`` can start from a run; return the users of whom nothing may be held out.

    These are users of whom the run was trained on what is held out now: those who had too few interactions to be held
    out when it was trained.

    Raises :class:`DataError` if the data set does not have the run's items under their numbers, or if there are many
    such users, as of a refit.
    """
    if not dataset.catalogue.starts_with(run.info.catalogue, run.info.num_items):
        raise DataError(
            f"{run.path} was trained on other items than {dataset.info.name} begins with; prepare the data with "
            "--extend or --vocabulary of the data set that it was trained on."
        )
    if split.num_items < run.info.num_items:
        raise DataError(f"the split {split.name!r} knows fewer items than {run.path}; choose later moments.")
    held_out = np.unique(np.concatenate([split.validation.positions, split.test.positions]))
    if len(held_out) == 0:
        return ()
    older = run.dataset()
    trained = _rows(older, np.flatnonzero(_in_training(older, run.split(older))))
    trained = trained.with_columns(in_unit(trained["time"], older.info.time_unit, dataset.info.time_unit))
    rows = _rows(dataset, held_out).with_columns(number=np.searchsorted(dataset.offsets, held_out, side="right") - 1)
    leaked = rows.join(trained, on=["user", "item", "time"], how="semi")
    users = leaked["number"].unique().sort()
    if len(users) > MOST * rows["number"].n_unique():
        raise DataError(
            f"{run.path} was trained on {counted(leaked.height, 'interaction')} that {dataset.info.name} holds out, so "
            "its metrics would be too high; start from a run whose training part is older (not from its refit)."
        )
    return tuple(users.to_list())


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
    return pl.DataFrame({"user": ids[0], "item": ids[1], "time": np.asarray(dataset.times)[positions]})
