"""Recommendation on Ray Data (extra ``ray``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adrec.bulk.batches import USERS, output_schema, recommend_batches
from adrec.bulk.worker import open_recommender
from adrec.utils.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset


def need_ray() -> None:
    """Raise :class:`ConfigError` if Ray Data is not installed."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ConfigError("Ray Data is not installed; install adrec[ray].") from error


class Worker:
    """Recommends for one batch of histories after the other, with a model that is loaded once."""

    def __init__(self, run: str, data: str | None, k: int, rules: dict[str, Any]) -> None:
        self.recommender, self.k, self.rules = open_recommender(run, data), k, rules

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the recommendations for a table of histories."""
        import pyarrow as pa

        batches = recommend_batches(self.recommender, table.combine_chunks().to_batches(), self.k, **self.rules)
        return pa.Table.from_batches(batches, output_schema(self.recommender))


def recommend(
    histories: Dataset,
    run: str | Path,
    k: int = 10,
    *,
    data: str | Path | None = None,
    workers: int = 1,
    batch_size: int = USERS,
    **rules: Any,
) -> Dataset:
    """Return the recommendations for a Ray data set of histories, computed by ``workers`` actors.

    Args:
        histories: a column of users, and ``history``: lists of item ids, oldest first.
        run: the run folder, at a path that every worker reads.
        k: the number of items for each history.
        data: the path of its data set, if it was moved.
        workers: the number of actors, each with a copy of the model.
        batch_size: histories in a batch.
        **rules: what may be recommended, as in :func:`adrec.bulk.batches.recommend_batches`.
    """
    need_ray()
    given = (str(run), None if data is None else str(data), k, dict(rules))
    return histories.map_batches(
        Worker, fn_constructor_args=given, batch_format="pyarrow", batch_size=batch_size, concurrency=workers
    )


def write_all(
    batches: Iterator[pa.RecordBatch], run: Path, out: Path, k: int, *, data: str | None, **rules: Any
) -> None:
    """Recommend for the histories of ``batches`` in this process's cluster, and write Parquet files into ``out``."""
    need_ray()
    import pyarrow as pa
    import ray

    table = ray.data.from_arrow([pa.Table.from_batches([batch]) for batch in batches])
    recommend(table, run, k, data=data, **rules).write_parquet(str(out.resolve()))
