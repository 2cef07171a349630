"""Recommendation and preparation on Apache Spark (extra ``spark``)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adrec.bulk.batches import output_schema, recommend_batches
from adrec.bulk.worker import open_recommender
from adrec.data.columns import usual_column
from adrec.utils.errors import ConfigError, DataError, RunError

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

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # what the workers of a local session run
    try:
        return SparkSession.builder.appName("adrec").getOrCreate()
    except Exception as error:  # PySpark raises its own classes for a missing Java
        raise ConfigError(
            f"Spark does not start ({str(error).splitlines()[0]}); is Java 17 or later installed?"
        ) from error


def recommend(
    histories: DataFrame,
    run: str | Path,
    k: int = 10,
    *,
    data: str | Path | None = None,
    model: str | None = None,
    **rules: Any,
) -> DataFrame:
    """Return the recommendations for a Spark table of histories, computed by its executors.

    Args:
        histories: a column of users, and ``history``: lists of item ids, oldest first.
        run: the run folder, at a path that every executor reads.
        k: the number of items for each history.
        data: the path of its data set, if it was moved.
        model: ``module:Class``, if the model is your own; every executor imports it.
        **rules: what may be recommended, as in :func:`adrec.bulk.batches.recommend_batches`.
    """
    need_spark()
    from pyspark.sql.pandas.types import from_arrow_schema

    path, place = str(run), None if data is None else str(data)

    def mapped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return recommend_batches(open_recommender(path, place, model, threads=1), batches, k, **rules)

    schema = from_arrow_schema(output_schema(open_recommender(path, place, model)))
    return histories.mapInArrow(mapped, schema)


def write_all(histories: Path, run: Path, out: Path, k: int, **how: Any) -> None:
    """Recommend for the Parquet files of ``histories`` in this process's session, and write such files into ``out``."""
    table = session().read.parquet(str(histories))
    try:
        recommend(table, run, k, **how).write.mode("append").parquet(str(out))  # the folder is empty
    except Exception as error:  # PySpark raises its own classes, and Java's
        raise RunError(
            f"Spark could not compute the recommendations: {_last(error)}; mend that and start again."
        ) from error


READERS = {".parquet": "parquet", ".orc": "orc", ".csv": "csv", ".json": "json", ".jsonl": "json"}
NEEDED = ("user", "item", "time", "rating", "event")


def read_table(sources: Sequence[str], options: Mapping[str, Any]) -> pa.Table:
    """Return the columns that ``prepare`` needs of a Spark table, or of files that Spark reads, as an Arrow table.

    Rows with the same user and time are in the order in which Spark gives them.

    Args:
        sources: the name of a table of the session's catalogue, or the paths of files or folders of one format.
        options: the options of ``prepare``, which may name columns.

    Raises:
        ConfigError: without PySpark, or if Spark does not start.
        DataError: if Spark cannot read the table.
    """
    missing = [each for each in sources if _is_path(each) and "://" not in each and not Path(each).exists()]
    if missing:
        raise DataError(f"{missing[0]} does not exist; give files, a folder of them, or the name of a table.")
    spark = session()
    try:
        kind = _format_of(sources[0])
        if not _is_path(sources[0]) and not Path(sources[0]).exists() and len(sources) == 1:
            frame = spark.table(sources[0])
        else:
            header = {"header": True} if kind == "csv" else {}
            frame = spark.read.format(kind or "parquet").options(**header).load(list(sources))
        if options.get("where") is None:
            named = (options.get(role) or usual_column(frame.columns, role) for role in NEEDED)
            frame = frame.select(*dict.fromkeys(name for name in named if name is not None and name != "none"))
        return frame.toArrow()
    except Exception as error:  # PySpark raises its own classes, and Java's
        raise DataError(f"Spark cannot read {sources[0]}: {str(error).splitlines()[0]}; mend that.") from error


def _is_path(source: str) -> bool:
    """Return whether a source is a path and not the name of a table."""
    return "/" in source or Path(source).suffix in READERS


def _last(error: Exception) -> str:
    """Return the last line of an error that has words: that of the worker, not of Java."""
    lines = [line.strip() for line in str(error).splitlines() if re.match(r"\s*\w*(Error|Exception): ", line)]
    return (lines or [str(error).splitlines()[0]])[-1]


def _format_of(source: str) -> str | None:
    """Return the format that the ending of a file names, or of the first file of a folder that is not hidden."""
    path = Path(source)
    inside = sorted(path.rglob("*.*")) if path.is_dir() else []
    files = [path, *(each for each in inside if each.name[0] not in "._")]
    return next((READERS[each.suffix] for each in files if each.suffix in READERS), None)
