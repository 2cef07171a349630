"""A table of a vector for each item, made of what the items are: their features."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec.data.dataset import Dataset
from adrec.data.lists import read_columns
from adrec.utils.errors import DataError

Float32s: TypeAlias = NDArray[np.float32]


def read_item_vectors(path: Path, dataset: Dataset) -> Float32s:
    """Read a vector for each item of a data set, float32 [V + 1, F]; NaN for items that have none, and the padding.

    The table has a column of items, by its usual or its prepared name. All other columns are numbers, or lists of
    numbers of one length. Items that are not in the catalogue are passed over; an item's first row counts.

    Raises :class:`DataError` for other columns, missing values, or a table without an item of the catalogue.
    """
    ids, columns = read_columns(path, "item", dataset.info.columns)
    parts = [_numbers(column, path) for column in columns]
    if not parts:
        raise DataError(f"{path.name} has no column besides the items; give columns of numbers, or of lists of them.")
    values = np.concatenate(parts, axis=1)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        at = int(bad.argmax())
        raise DataError(f"{path.name}, item {ids[at]!r}: a value is missing or no finite number; mend it.")
    numbers = dataset.catalogue.encode(ids) + 1
    known = np.flatnonzero(numbers > 0)[::-1]  # so that the first row of an item is written last
    if len(known) == 0:
        raise DataError(f"{path.name} names no item of the data set {dataset.info.name}; are these its ids?")
    found: Float32s = np.full((dataset.num_items + 1, values.shape[1]), np.nan, dtype=np.float32)
    found[numbers[known]] = values[known]
    return found


def _numbers(column: pl.Series, path: Path) -> Float32s:
    """Return a column as [rows, 1], or a column of lists as [rows, n]."""
    if isinstance(column.dtype, pl.List | pl.Array):
        if column.null_count():
            raise DataError(f"{path.name}, column {column.name!r}: a list is missing; mend it, or leave the item out.")
        lists = column.cast(pl.List(pl.Float32), strict=False)
        lengths = lists.list.len()
        if lengths.n_unique() != 1 or not lengths[0]:
            raise DataError(f"{path.name}, column {column.name!r}: the lists have different lengths; give one length.")
        return lists.explode().to_numpy().reshape(len(column), -1)
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return column.cast(pl.Float32).to_numpy()[:, None]
    numbers = column.cast(pl.Float32, strict=False) if column.dtype == pl.String else None
    if numbers is None or (numbers.is_null() & column.is_not_null()).any():
        raise DataError(
            f"{path.name}, column {column.name!r} has no numbers; give numbers, such as a column of 0 and 1 for each "
            "category, or leave the column out."
        )
    return numbers.to_numpy()[:, None]
