"""Recommendation and preparation on Apache Spark (extra ``spark``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adrec.bulk.batches import output_schema, recommend_batches
from adrec.bulk.worker import open_recommender
from adrec.utils.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


def need_spark() -> None:
    """Raise :class:`ConfigError` if PySpark is not installed."""
    try:
        import pyspark  # noqa: F401
    except ImportError as error:
        raise ConfigError("Spark is not installed; install adrec[spark], and Java 17 or later.") from error


def session() -> SparkSession:
    """Return the Spark session of this process: that of ``spark-submit``, or a local one."""
    need_spark()
    from pyspark.sql import SparkSession

    try:
        return SparkSession.builder.appName("adrec").getOrCreate()
    except Exception as error:  # PySpark raises its own classes for a missing Java
        raise ConfigError(
            f"Spark does not start ({str(error).splitlines()[0]}); is Java 17 or later installed?"
        ) from error


def recommend(
    histories: DataFrame, run: str | Path, k: int = 10, *, data: str | Path | None = None, **rules: Any
) -> DataFrame:
    """Return the recommendations for a Spark table of histories, computed by its executors.

    Args:
        histories: a column of users, and ``history``: lists of item ids, oldest first.
        run: the run folder, at a path that every executor reads.
        k: the number of items for each history.
        data: the path of its data set, if it was moved.
        **rules: what may be recommended, as in :func:`adrec.bulk.batches.recommend_batches`.
    """
    need_spark()
    from pyspark.sql.pandas.types import from_arrow_schema

    path, place = str(run), None if data is None else str(data)

    def mapped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return recommend_batches(open_recommender(path, place), batches, k, **rules)

    schema = from_arrow_schema(output_schema(open_recommender(path, place)))
    return histories.mapInArrow(mapped, schema)


def write_all(
    batches: Iterator[pa.RecordBatch], run: Path, out: Path, k: int, *, data: str | None, **rules: Any
) -> None:
    """Recommend for the histories of ``batches`` in this process's session, and write Parquet files into ``out``."""
    import pyarrow as pa

    spark = session()
    table = spark.createDataFrame(pa.Table.from_batches(batches))
    recommend(table, run, k, data=data, **rules).write.parquet(str(out.resolve()))
