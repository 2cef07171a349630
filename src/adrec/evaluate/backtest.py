"""Backtest: a model on interactions that are later than all data of its run, at once or period by period."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from adrec.data.dataset import Dataset
from adrec.data.extend import in_unit
from adrec.data.moments import PER_SECOND, seconds_of, written
from adrec.data.split import NOBODY, Split, Targets
from adrec.utils.errors import ConfigError, DataError


def moment(time: float, unit: str, dataset: Dataset) -> float:
    """Return a time in the unit of ``dataset``. Raises :class:`DataError` if one of the two only gives an order."""
    converted: float = in_unit(pl.Series([time]), unit, dataset.info.time_unit).item()
    return converted


def later(dataset: Dataset, since: float, num_items: int) -> Split:
    """Return the split whose test part is everything after ``since`` that has a history.

    Args:
        dataset: a data set with later interactions than those of the run.
        since: the time of the latest interaction in the data of the run, in the unit of ``dataset`` (:func:`moment`).
        num_items: V, the items that the model knows; items that are new since then rank last.

    Raises :class:`DataError` if nothing is later.
    """
    offsets, times = np.asarray(dataset.offsets), np.asarray(dataset.times)
    owners = np.repeat(np.arange(dataset.num_users), np.diff(offsets))
    train_ends = offsets[:-1] + np.bincount(owners[times <= since], minlength=dataset.num_users)
    positions = np.flatnonzero((times > since) & (np.arange(len(times)) > offsets[owners]))
    if len(positions) == 0:
        raise DataError(
            f"nothing in {dataset.info.name} is later than the data of the run and has a history; give newer data."
        )
    test = Targets(owners[positions], positions)
    split = Split(f"after:{_moment(since, dataset)}", train_ends, NOBODY, test, num_items)
    return split.counted(dataset.weights)


def periods(dataset: Dataset, split: Split, since: float, every: str) -> Iterator[tuple[str, Split]]:
    """Yield the beginning of each period after ``since`` with test interactions, and the split that tests these alone.

    Raises :class:`ConfigError` for another span than ``1d`` and the like, or times without a unit.
    """
    unit = dataset.info.time_unit
    seconds = seconds_of(every)
    if unit not in PER_SECOND:
        raise ConfigError("the times of these data only give an order, so there are no periods; leave out --every.")
    length = seconds * PER_SECOND[unit]
    number = ((np.asarray(dataset.times)[split.test.positions] - since - 1) // length).astype(np.int64)
    for each in np.unique(number).tolist():
        inside = number == each
        test = Targets(split.test.users[inside], split.test.positions[inside])
        yield _moment(since + each * length, dataset), replace(split, test=test)


def _moment(time: float, dataset: Dataset) -> str:
    unit = dataset.info.time_unit
    return written(int(time) if unit in PER_SECOND else time, unit)
