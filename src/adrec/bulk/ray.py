"""Recommendation on Ray Data (extra ``ray``)."""

from __future__ import annotations

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

    def __init__(self, run: str, data: str | None, model: str | None, k: int, rules: dict[str, Any]) -> None:
        self.recommender, self.k, self.rules = open_recommender(run, data, model, threads=1), k, rules

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
    model: str | None = None,
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
        model: ``module:Class``, if the model is your own; every worker imports it.
        workers: the number of actors, each with a copy of the model and one CPU.
        batch_size: histories in a batch.
        **rules: what may be recommended, as in :func:`adrec.bulk.batches.recommend_batches`.
    """
    need_ray()
    given = (str(run), None if data is None else str(data), model, k, dict(rules))
    return histories.map_batches(
        Worker, fn_constructor_args=given, batch_format="pyarrow", batch_size=batch_size, concurrency=workers
    )


def write_all(histories: Path, run: Path, out: Path, k: int, **how: Any) -> None:
    """Recommend for the Parquet files of ``histories`` on all CPUs of the cluster; write such files into ``out``."""
    need_ray()
    import ray

    ray.init(ignore_reinit_error=True)
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)  # type: ignore[no-untyped-call]  # one is for reading and writing
    recommend(ray.data.read_parquet(str(histories)), run, k, workers=workers, **how).write_parquet(str(out))
