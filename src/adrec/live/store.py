"""A store of events in SQLite or PostgreSQL. One process writes to it; others may read it.

Each event has an id of its own, so an event that is sent again counts once. The number of an event, ``seq``, gives the
order; a user's erasure is an entry too, so that what is older than it can be told.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from filelock import FileLock, Timeout

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
    sa.Column("event_id", sa.Text, nullable=False, unique=True),
    sa.Column("user_id", sa.Text, nullable=False, index=True),
    sa.Column("item_id", sa.Text),  # none: the user is erased
    sa.Column("time_ms", sa.BigInteger, nullable=False),
    sa.Column("event", sa.Text),
    sqlite_autoincrement=True,  # numbers of erased events are not used again
)
ENTRY = (EVENTS.c.seq, EVENTS.c.user_id, EVENTS.c.item_id, EVENTS.c.time_ms, EVENTS.c.event)
ABOUT = sa.Table(
    "adrec_store", metadata, sa.Column("id", sa.Text, nullable=False), sa.Column("format", sa.Integer, nullable=False)
)


class Event(NamedTuple):
    """An event: a user and an item.

    Attributes:
        event_id: its own id; of events with one id, the first counts.
        user: the user's id, as text.
        item: the item's id, as text.
        time_ms: milliseconds since 1970 (UTC).
        event: the type of event; None if it has none.
    """

    event_id: str
    user: str
    item: str
    time_ms: int
    event: str | None = None


class Entry(NamedTuple):
    """What the store has of an event or, without an item, of a user's erasure."""

    seq: int
    user: str
    item: str | None
    time_ms: int
    event: str | None


@dataclass(frozen=True)
class News:
    """The entries of a store after some number.

    Attributes:
        store: the store's id.
        last: the number of its last entry.
        events: ``user``, ``item``, ``time`` (milliseconds), ``event``, in their order; without those of erased users.
        erased: users whose earlier interactions are erased.
    """

    store: str
    last: int
    events: pl.DataFrame
    erased: tuple[str, ...]


def store_url(place: str) -> str:
    """Return the URL of a store: a path is an SQLite file, ``postgresql://..`` is used with psycopg."""
    if "://" not in place:
        return f"sqlite:///{Path(place).absolute()}"
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", place)


class Store:
    """Events in a database.

    Args:
        place: the path of an SQLite file, which is made, or the URL of a PostgreSQL database.
        writes: whether this process writes; only one may.

    Raises:
        DataError: if the database cannot be opened, is of another format, or another process writes to it.
    """

    def __init__(self, place: str, *, writes: bool = False) -> None:
        self.place, self.url = re.sub(r"//[^/@]*@", "//", place), store_url(place)
        self._file = Path(self.url.removeprefix("sqlite:///")) if self.url.startswith("sqlite:") else None
        self._lock: FileLock | None = None
        if not writes and self._file is not None and not self._file.is_file():
            raise DataError(f"{place} is no store of events; give the file or URL of adrec serve --events.")
        with self._told():
            self.engine = sa.create_engine(self.url, connect_args={"timeout": BUSY / 1000} if self._file else {})
            if self._file is not None:
                sa.event.listen(self.engine, "connect", _sqlite_settings)
            if writes:
                self._take()
            self.connection = self.engine.connect()
            if writes:
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
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise DataError(f"the store of events {self.place} cannot be used ({reason}).") from error

    def _take(self) -> None:
        """Become the only writer."""
        taken = DataError(f"another process writes to the store of events {self.place}; only one may.")
        if self._file is not None:
            self._lock = FileLock(f"{self._file}.lock")
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise taken from error
        else:
            self._holder = self.engine.connect()  # the lock lasts as long as this connection
            held = self._holder.scalar(sa.select(sa.func.pg_try_advisory_lock(LOCK)))
            self._holder.commit()
            if not held:
                self._holder.close()
                raise taken

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
        """Store events in one transaction, and return those that are new by id; they are on disk when this returns.

        Raises :class:`DataError` if the database fails; nothing is stored then.
        """
        values = [
            {"event_id": each.event_id, "user_id": each.user, "item_id": each.item, "time_ms": each.time_ms,
             "event": each.event}
            for each in events
        ]  # fmt: skip
        insert = (postgresql if self._file is None else sqlite).insert(EVENTS).on_conflict_do_nothing()
        with self._told(), self._transaction():
            rows = self.connection.execute(insert.returning(EVENTS.c.event_id, *ENTRY), values).all()
        return {row[0]: Entry(*row[1:]) for row in sorted(rows, key=lambda row: row[1])}

    def erase(self, user: str, time_ms: int) -> Entry:
        """Delete a user's events, and note that the user's earlier interactions are erased."""
        with self._told(), self._transaction():
            self.connection.execute(sa.delete(EVENTS).where(EVENTS.c.user_id == user))
            values = {"event_id": f"erased {uuid.uuid4().hex}", "user_id": user, "item_id": None, "time_ms": time_ms}
            seq = self.connection.scalar(sa.insert(EVENTS).values(values).returning(EVENTS.c.seq))
        assert seq is not None
        return Entry(seq, user, None, time_ms, None)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            yield
            self.connection.commit()
        except BaseException:
            if self.connection.invalidated or self.connection.closed:
                self.connection.close()
                self.connection = self.engine.connect()
            else:
                self.connection.rollback()
            raise

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the entries after a number, in their order."""
        while True:
            query = sa.select(*ENTRY).where(EVENTS.c.seq > after).order_by(EVENTS.c.seq).limit(AT_ONCE)
            with self._told():
                rows = self.connection.execute(query).all()
                self.connection.rollback()
            if not rows:
                return
            yield from (Entry(*row) for row in rows)
            after = rows[-1].seq

    def news(self, after: int = 0) -> News:
        """Return the entries after a number as a table, and who is erased."""
        entries = list(self.entries(after))
        events = [(each.user, each.item, each.time_ms, each.event) for each in entries if each.item is not None]
        names = {"user": pl.String, "item": pl.String, "time": pl.Int64, "event": pl.String}
        table = pl.DataFrame(events, schema=names, orient="row")
        erased = tuple(dict.fromkeys(each.user for each in entries if each.item is None))
        return News(self.id, entries[-1].seq if entries else after, table, erased)

    def close(self) -> None:
        """Close the connections, and let another process write."""
        self.connection.close()
        self.engine.dispose()
        if self._lock is not None:
            self._lock.release()


def _sqlite_settings(connection: Any, _: Any) -> None:
    """Set what makes a commit durable: a write-ahead log that is synced at each."""
    for setting in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY}"):
        connection.execute(f"PRAGMA {setting}")
