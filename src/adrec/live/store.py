"""A store of events in SQLite or PostgreSQL. One process writes to it; others may read it.

Each event has an id of its own, so an event that is sent again counts once; the store has the ids' hashes alone. The
number of an event, ``seq``, gives the order. A user's erasure is an entry too, so that what is older can be told.
Erased events keep their number and the hash of their id, so that a late repetition does not bring them back.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from adrec.live.events import Entry, Event, News, hash_of
from adrec.utils.errors import DataError, needs_extra

try:
    import sqlalchemy as sa
    from sqlalchemy.dialects import postgresql, sqlite
except ImportError as error:
    raise DataError(needs_extra("a store of events", "serve")) from error

AT_ONCE = 10_000  # events read at a time
BUSY = 30_000  # milliseconds that a reader or writer of SQLite waits for another
LOCK = 0x6164726563  # the number of PostgreSQL's advisory lock: one writer
FORMAT = 1

metadata = sa.MetaData()
EVENTS = sa.Table(
    "adrec_events",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("event_hash", sa.Text, nullable=False, unique=True),
    sa.Column("user_id", sa.Text, index=True),  # none: an event of an erased user
    sa.Column("item_id", sa.Text),  # none: the user is erased
    sa.Column("time_ms", sa.BigInteger, nullable=False),
    sa.Column("event", sa.Text),
    sqlite_autoincrement=True,  # numbers of erased events are not used again
)
ENTRY = (EVENTS.c.seq, EVENTS.c.user_id, EVENTS.c.item_id, EVENTS.c.time_ms, EVENTS.c.event)
ABOUT = sa.Table(
    "adrec_store", metadata, sa.Column("id", sa.Text, nullable=False), sa.Column("format", sa.Integer, nullable=False)
)

SLOW = 10  # seconds after which PostgreSQL is taken for dead


def store_url(place: str) -> sa.URL:
    """Return the URL of a store: a path is an SQLite file, ``postgresql://..`` is used with psycopg.

    Raises :class:`DataError` for what is no URL.
    """
    if "://" not in place:
        return sa.URL.create("sqlite", database=str(Path(place).resolve()))  # one file has one name, and one lock
    try:
        url = sa.make_url(place)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise DataError(
            "the store of events is a path, or a URL such as postgresql://user@host/shop; signs such as @ and / in a "
            "password are written as %40 and %2F, or the password is in PGPASSWORD."
        ) from error
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise DataError(f"the store of events is SQLite or PostgreSQL, and {url.drivername} is neither.")
    return url.set(drivername="postgresql+psycopg")


def _shown(url: sa.URL) -> str:
    """Return a store's place without passwords."""
    if url.drivername == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


class Store:
    """Events in a database.

    Args:
        place: the path of an SQLite file, which is made, or the URL of a PostgreSQL database.
        writes: whether this process writes; only one may.

    Raises:
        DataError: if the database cannot be opened, is of another format, or another process writes to it.
    """

    def __init__(self, place: str, *, writes: bool = False) -> None:
        self.url = store_url(place)
        self.place = _shown(self.url)
        self._file = Path(str(self.url.database)) if self.url.drivername == "sqlite" else None
        self._lock: FileLock | None = None
        self._writes = writes
        if self._file is not None and self._file.is_dir():
            raise DataError(f"{self.place} is a folder, and the store of events a file; name a file in it.")
        if writes and self._file is not None and not self._file.parent.is_dir():
            raise DataError(f"there is no folder {self._file.parent} for the events; make it, or name another.")
        if not writes and self._file is not None and not self._file.is_file():
            raise DataError(f"{self.place} is no store of events; give the file or URL of adrec serve --events.")
        with self._told():
            self.engine = sa.create_engine(self.url, connect_args=self._arguments())
            if self._file is not None and writes:
                sa.event.listen(self.engine, "connect", _sqlite_settings)
            self.connection = self._connected()
            if writes:
                self._check_foreign()
                metadata.create_all(self.connection)
                self.connection.commit()
            self.id = self._identify(writes)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what goes wrong into one sentence."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
            if isinstance(error, ImportError):
                raise DataError(needs_extra("a store in PostgreSQL", "postgres")) from error
            if isinstance(error, PermissionError):
                raise DataError(f"the store of events {self.place} cannot be written; name another place.") from error
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise DataError(f"the store of events {self.place} cannot be used ({reason}).") from error

    def _arguments(self) -> dict[str, Any]:
        if self._file is not None:
            return {"timeout": BUSY / 1000}
        limits = (
            f"-c statement_timeout={SLOW}s -c idle_session_timeout=0 -c idle_in_transaction_session_timeout={SLOW}s"
        )
        return {"connect_timeout": SLOW, "tcp_user_timeout": 1000 * SLOW, "options": limits}

    def _connected(self) -> sa.Connection:
        """Return a connection; that of a writer holds the lock, as long as it lasts."""
        taken = DataError(f"another process writes to the store of events {self.place}; only one may.")
        if self._writes and self._file is not None and self._lock is None:
            lock = FileLock(f"{self._file}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise taken from error
            except (OSError, NotImplementedError) as error:
                raise DataError(f"the store of events {self.place} cannot be written here ({error}).") from error
            self._lock = lock
        connection = self.engine.connect()
        if self._writes and self._file is None:
            held = connection.scalar(sa.select(sa.func.pg_try_advisory_lock(LOCK)))
            connection.commit()
            if not held:
                connection.close()
                raise taken
        return connection

    def _check_foreign(self) -> None:
        """Raise :class:`DataError` for an SQLite file of somebody else."""
        tables = set(sa.inspect(self.connection).get_table_names())
        if self._file is not None and tables and ABOUT.name not in tables:
            raise DataError(f"{self.place} is a database with other tables; name a file of its own for the events.")

    def _identify(self, writes: bool) -> str:
        row = self.connection.execute(sa.select(ABOUT.c.id, ABOUT.c.format)).first()
        if row is None and writes:
            own = uuid.uuid4().hex
            self.connection.execute(sa.insert(ABOUT).values(id=own, format=FORMAT))
            self.connection.commit()
            return own
        self.connection.rollback()
        if row is None or row.format != FORMAT:
            raise DataError(f"the store of events {self.place} is of another version of adrec; use that version.")
        return str(row.id)

    def add(self, events: Sequence[Event]) -> dict[str, Entry]:
        """Store events in one transaction, and return those that are new, by the hash of their id.

        They are on disk when this returns.

        Raises :class:`DataError` if the database fails; nothing is stored then.
        """
        values = [
            {"event_hash": hash_of(each.event_id), "user_id": each.user, "item_id": each.item, "time_ms": each.time_ms,
             "event": each.event}
            for each in events
        ]  # fmt: skip
        insert = (postgresql if self._file is None else sqlite).insert(EVENTS).on_conflict_do_nothing()
        with self._told(), self._transaction():
            rows = self.connection.execute(insert.returning(EVENTS.c.event_hash, *ENTRY), values).all()
        return {row[0]: Entry(*row[1:]) for row in sorted(rows, key=lambda row: row[1])}

    def erase(self, user: str, time_ms: int) -> Entry:
        """Delete a user's events, and note that the user's earlier interactions are erased."""
        nothing = {"user_id": None, "item_id": None, "time_ms": 0, "event": None}
        with self._told(), self._transaction():
            self.connection.execute(sa.update(EVENTS).where(EVENTS.c.user_id == user).values(nothing))
            values = {"event_hash": f"erased {uuid.uuid4().hex}", "user_id": user, "item_id": None, "time_ms": time_ms}
            seq = self.connection.scalar(sa.insert(EVENTS).values(values).returning(EVENTS.c.seq))
        if self._file is not None:  # the write-ahead log has what was deleted
            with self._told():
                self.connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                self.connection.rollback()
        assert seq is not None
        return Entry(seq, user, None, time_ms, None)

    @property
    def num_events(self) -> int:
        """The number of events, without those of erased users."""
        with self._told():
            found = self.connection.scalar(sa.select(sa.func.count()).where(EVENTS.c.item_id.is_not(None)))
            self.connection.rollback()
        return int(found or 0)

    @property
    def last(self) -> int:
        """The number of the last entry; 0 if there is none."""
        with self._told():
            found = self.connection.scalar(sa.select(sa.func.max(EVENTS.c.seq)))
            self.connection.rollback()
        return int(found or 0)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._ready()
        try:
            yield
            self.connection.commit()
        except BaseException:
            if self.connection.invalidated or self.connection.closed:
                self._reconnect()
            else:
                self.connection.rollback()
            raise

    def _ready(self) -> None:
        """Connect anew if the connection is lost: SQLAlchemy would, but without the lock."""
        if self.connection.closed or self.connection.invalidated:
            self._reconnect()

    def _reconnect(self) -> None:
        """Connect anew; a writer takes the lock again."""
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            self.connection.close()
        self.connection = self._connected()

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the entries after a number, in their order."""
        while True:
            query = sa.select(*ENTRY).where(EVENTS.c.seq > after).order_by(EVENTS.c.seq).limit(AT_ONCE)
            with self._told():
                self._ready()
                rows = self.connection.execute(query).all()
                self.connection.rollback()
            if not rows:
                return
            yield from (Entry(*row) for row in rows if row.user_id is not None)
            after = rows[-1].seq

    def news(self, after: int = 0) -> News:
        """Return the entries after a number as a table, and who is erased; of an erased user, what came after that.

        An erasure that comes while this reads counts too, and is there again the next time.
        """
        last, events, erased = self.last, list[Entry](), dict[str, int]()
        for entry in self.entries(after):
            if entry.item is None:
                erased[entry.user] = entry.seq
            elif entry.seq <= last:
                events.append(entry)
        kept = [each[1:] for each in events if each.seq > erased.get(each.user, 0)]
        names = {"user": pl.String, "item": pl.String, "time": pl.Int64, "event": pl.String}
        return News(self.id, last, pl.DataFrame(kept, schema=names, orient="row"), tuple(erased))

    def close(self) -> None:
        """Close the connections, and let another process write."""
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            self.connection.close()  # and with it PostgreSQL's lock
        self.engine.dispose()
        if self._lock is not None:
            self._lock.release()


def _sqlite_settings(connection: Any, _: Any) -> None:
    """Set what makes a commit durable: a write-ahead log that is synced at each."""
    for setting in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", f"busy_timeout={BUSY}"):
        connection.execute(f"PRAGMA {setting}")
