"""Tables behind a URL: the answer of a database to a query, and Parquet files of an object store."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import polars as pl

from adrec.data.frames import open_frame
from adrec.data.rows import HEAD_ROWS, Opened, Piece, whole_table
from adrec.utils.errors import ConfigError, DataError, needs_extra
from adrec.utils.interrupts import Interrupted

STORES = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "hf")
DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "sqlite", "mssql", "oracle", "redshift", "clickhouse")
SECRETS = r"(?i)([\w-]*(?:password|passwd|pwd|token|secret|key|sig|signature))=[^&;\s]*"


def is_url(source: object) -> bool:
    """Return whether ``source`` is a text such as ``postgresql://host/shop``."""
    return isinstance(source, str) and re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def shown(url: str) -> str:
    """Return a URL, or a message with one, without the passwords in it."""
    return re.sub(SECRETS, r"\1=***", re.sub(r"://\S*@", "://***@", url))


def open_url(url: str, query: str | None) -> Opened:
    """Open the answer of the database at ``url`` to ``query``, or a Parquet file of an object store.

    Raises:
        DataError: if it cannot be read, or is none of them; passwords are not shown.
        ConfigError: for a query to anything but a database, or a database without one.
    """
    kind = url.partition("://")[0].lower().partition("+")[0]
    if query is not None:
        if kind not in DATABASES:
            raise ConfigError(f"--query is for a database; {shown(url)} is the URL of something else.")
        return _database(url, query)
    if kind in DATABASES:
        raise ConfigError(f"{shown(url)} is a database; say with --query what to read from it.")
    if kind in STORES and PurePosixPath(url).suffix in (".parquet", ".pq"):
        return _stored(url)
    what = "no Parquet file, the only kind that is read from there" if kind in STORES else "a URL, not a file"
    raise DataError(f"{shown(url)} is {what}; copy it to this machine and name the copy.")


def _database(url: str, query: str) -> Opened:
    if url.startswith("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        found = next((each for each in (Path(path), Path("/") / path) if each.is_file()), None)
        if found is None:
            raise DataError(f"there is no file {path}; check the path of the database.")  # one would be made
        url = f"sqlite://{found.absolute()}"
    try:
        table = pl.read_database_uri(query, url)
    except ImportError as error:
        raise ConfigError(needs_extra("reading from a database", "database")) from error
    except BaseException as error:  # connectorx raises panics, which are no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | Interrupted):
            raise
        reason = shown((str(error).splitlines() or [type(error).__name__])[0])
        raise DataError(f"{shown(url)} did not answer the query: {reason}.") from None
    opened = open_frame(table)
    return Opened(shown(url), opened.columns, opened.pieces, opened.head, "path")


def _stored(url: str) -> Opened:
    def take(names: Sequence[str], rows: int | None = None) -> pl.DataFrame:
        frame = pl.scan_parquet(url).select(names)
        try:
            return (frame if rows is None else frame.head(rows)).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unread(url, error) from error

    def pieces(wanted: Sequence[str]) -> Iterator[Piece]:
        yield whole_table(take(wanted))

    try:
        columns = pl.scan_parquet(url).collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unread(url, error) from error
    return Opened(shown(url), columns, pieces, lambda wanted: take(wanted, HEAD_ROWS), "path")


def _unread(url: str, error: Exception) -> DataError:
    reason = shown((str(error).splitlines() or [type(error).__name__])[0])
    return DataError(f"{shown(url)} cannot be read: {reason}.")
