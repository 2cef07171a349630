"""Recommendation as a function from Arrow batches of histories to Arrow batches of recommended items.

Any engine that maps such batches can run it: :mod:`adrec.bulk.spark` and :mod:`adrec.bulk.ray` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import polars as pl

from adrec.data.dataset import Dataset
from adrec.inference.recommender import Recommender
from adrec.inference.rules import Rules
from adrec.utils.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

HISTORY = "history"
USERS = 8192  # in a batch of :func:`histories`


def need_arrow() -> None:
    """Raise :class:`ConfigError` if PyArrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigError("Arrow batches need PyArrow; install adrec[arrow].") from error


def histories(dataset: Dataset, size: int = USERS) -> Iterator[pa.RecordBatch]:
    """Yield the users of a data set with their histories: a column of users, and ``history``, oldest item first."""
    need_arrow()
    offsets, name = np.asarray(dataset.offsets), dataset.info.named("user")
    users = np.flatnonzero(np.diff(offsets))
    for first in range(0, len(users), size):
        some = users[first : first + size]
        lengths = offsets[some + 1] - offsets[some]
        rows = np.repeat(np.arange(len(some)), lengths)
        places = np.repeat(offsets[some] - (np.cumsum(lengths) - lengths), lengths) + np.arange(len(rows))
        items = dataset.catalogue.decode(dataset.items[places] - 1)
        lists = pl.DataFrame({"row": rows, HISTORY: items}).group_by("row", maintain_order=True).agg(pl.col(HISTORY))
        table = pl.DataFrame({name: dataset.users.decode(some), HISTORY: lists[HISTORY]})
        yield from table.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()


def write_histories(dataset: Dataset, folder: Path, most: int = 1 << 17) -> None:
    """Write :func:`histories` as Parquet files of at most ``most`` users into a new ``folder``, a batch at a time."""
    need_arrow()
    import pyarrow.parquet as pq

    folder.mkdir()
    writer, written = None, 0
    for batch in histories(dataset):
        if writer is None or written >= most:
            if writer is not None:
                writer.close()
            number = len(list(folder.iterdir()))
            writer, written = pq.ParquetWriter(folder / f"histories-{number:05}.parquet", batch.schema), 0
        writer.write_batch(batch)
        written += batch.num_rows
    if writer is not None:
        writer.close()


def output_schema(recommender: Recommender) -> pa.Schema:
    """Return the schema of :func:`recommend_batches`: user, item, score, rank, source and confidence."""
    need_arrow()
    import pyarrow as pa

    dataset = recommender.dataset
    user, item = (
        pa.int64() if each.ids.dtype == pl.Int64 else pa.string() for each in (dataset.users, dataset.catalogue)
    )
    return pa.schema(
        [
            (dataset.info.named("user"), user),
            (dataset.info.named("item"), item),
            ("score", pa.float32()),
            ("rank", pa.int64()),
            ("source", pa.string()),
            ("confidence", pa.float32()),
        ]
    )


def recommend_batches(
    recommender: Recommender, batches: Iterable[pa.RecordBatch], k: int = 10, **rules: Unpack[Rules]
) -> Iterator[pa.RecordBatch]:
    """Yield the recommendations for each batch of histories, as :meth:`Recommender.for_histories` gives them.

    One batch is in memory at a time. Notes are dropped.

    Args:
        recommender: the model with its data set.
        batches: a column ``history`` of lists of item ids, oldest first, and one of users; a null history is empty.
        k: the number of items for each history.
        **rules: what may be recommended (:class:`adrec.inference.rules.Rules`); those about times cannot be applied.

    Raises:
        DataError: if a batch has other columns.
        ConfigError: for a rule that does not fit the model, or without PyArrow.
    """
    need_arrow()
    schema = output_schema(recommender)
    names = schema.names
    for batch in batches:
        people, lists = _read(batch)
        if len(people) == 0:
            continue
        found = recommender.for_histories(lists, k, people=people, **rules).table
        owners = people.cast(recommender.dataset.users.ids.dtype, strict=False)
        if owners.null_count() > people.null_count():
            raise DataError("users are texts here and were integers in the data of the run; give integers.")
        table = found.drop("history").insert_column(0, owners.gather(found["history"]).alias(names[0]))
        yield from table.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema).combine_chunks().to_batches()


def _read(batch: pa.RecordBatch) -> tuple[pl.Series, list[list[object]]]:
    """Return the users and histories of a batch."""
    names = list(batch.schema.names)
    others = [name for name in names if name != HISTORY]
    if HISTORY not in names or len(others) != 1:
        raise DataError(
            f"a batch of histories has a column of users and a column {HISTORY!r} of lists; this one has "
            f"{', '.join(names) or 'none'}."
        )
    table = pl.from_arrow(batch)
    assert isinstance(table, pl.DataFrame)
    if not isinstance(table.schema[HISTORY], pl.List):
        raise DataError(f"the column {HISTORY!r} has {table.schema[HISTORY]}; give lists of item ids, oldest first.")
    return table[others[0]], [list(each) if each is not None else [] for each in table[HISTORY]]
