"""Account of the rows left out: counts, reasons and first examples. Unusable rows are written to a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from adrec.utils.errors import DataError
from adrec.utils.files import atomic_file, discard
from adrec.utils.text import counted

Kind = Literal["rejected", "left out"]

MALFORMED, MISSING, BAD_ID, BAD_TIME, BAD_RATING, BAD_EVENT = (
    "malformed row",
    "missing value",
    "unreadable id",
    "unreadable time",
    "unreadable rating",
    "unknown event",
)
DUPLICATE, RATED_BELOW, RARE_ITEM, TOO_SHORT = "duplicate", "rating below", "rare item", "too short"
NOT_WHERE, OUTSIDE = "not where", "outside since .. until"
REASONS: Mapping[str, Kind] = {
    **dict.fromkeys((MALFORMED, MISSING, BAD_ID, BAD_TIME, BAD_RATING, BAD_EVENT), "rejected"),
    **dict.fromkeys((NOT_WHERE, OUTSIDE, DUPLICATE, RATED_BELOW, RARE_ITEM, TOO_SHORT), "left out"),
}
NUM_EXAMPLES = 3
HOPELESS = 100_000  # rejected rows after which reading stops, if their share is already too large
LONGEST_SHOWN = 40


def abridged(value: Any) -> str:
    """Return a value as text, shortened for a message."""
    shown = repr(value)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used.

    Attributes:
        location: the file and line, or the frame and row.
        source: the file, or the frame.
        number: the number of the line or row.
        reason: one of :data:`REASONS` that are ``rejected``.
        what: the full reason.
        column: the column with the wrong value; None if the whole row is malformed.
        value: the wrong value; None if it is missing.
        text: the row's text in the source.
    """

    location: str
    source: str
    number: int
    reason: str
    what: str
    column: str | None
    value: Any
    text: str

    def sentence(self) -> str:
        """Return location and reason: ``r.csv line 3, column 'time': the time cannot be read: 'soon'``."""
        where = f"{self.location}, column {self.column!r}" if self.column is not None else self.location
        value = "" if self.value is None else f": {abridged(self.value)}"
        return f"{where}: {self.what}{value}"


@dataclass(frozen=True)
class LeftOut:
    """The rows that were left out for one reason.

    Attributes:
        reason: one of :data:`REASONS`.
        kind: ``rejected`` if they are unusable, ``left out`` if a filter removes them.
        rows: the number of rows.
        examples: the first rows, one sentence each.
    """

    reason: str
    kind: Kind
    rows: int
    examples: tuple[str, ...]


@dataclass
class RowAccount:
    """Counts the rows read and the rows left out. As a context manager, it writes the quarantine file.

    Args:
        max_rejected: the share of the rows read that may be rejected.
        strict: fail at the first rejected row.
        quarantine: a file of the rejected rows, one JSON object per line. It is kept if preparation fails. Without
            rejected rows no file is written, and an earlier one is removed.
    """

    max_rejected: float = 0.0
    strict: bool = False
    quarantine: Path | None = None
    num_read: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    _file: IO[str] | None = field(default=None, repr=False)
    _open: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> RowAccount:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        elif kind is None and self.quarantine is not None:
            discard(self.quarantine)  # a leftover of an earlier run
        self._open.close()

    @property
    def num_rejected(self) -> int:
        """The number of unusable rows."""
        return sum(rows for reason, rows in self.counts.items() if REASONS[reason] == "rejected")

    def read(self, rows: int, rejected: Sequence[Rejected]) -> None:
        """Record ``rows`` more rows, and the unusable ones among them.

        Raises:
            DataError: for the first unusable row if ``strict``, or if unusable rows are far too many.
        """
        self.num_read += rows
        for row in rejected:
            self._note(row.reason, 1, [row.sentence()])
            if self.strict:
                raise DataError(f"{row.sentence()}; mend it, or allow some rows to be rejected (not --strict).")
        self._write(rejected)
        if self.num_rejected > HOPELESS:
            self.check()

    def leave_out(self, reason: str, rows: int, examples: Iterable[str]) -> None:
        """Record rows that a filter removes."""
        if rows:
            self._note(reason, rows, examples)

    def _note(self, reason: str, rows: int, examples: Iterable[str]) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + rows
        kept = self.examples.setdefault(reason, [])
        if len(kept) < NUM_EXAMPLES:
            kept += list(examples)[: NUM_EXAMPLES - len(kept)]

    def _write(self, rejected: Sequence[Rejected]) -> None:
        if self.quarantine is None or not rejected:
            return
        if self._file is None:
            self._file = self._open.enter_context(atomic_file(self.quarantine)).open("w", encoding="utf-8")
        for row in rejected:
            values = {"file": row.source, "row": row.number, "reason": row.reason, "column": row.column}
            values |= {"what": row.what, "value": None if row.value is None else str(row.value), "text": row.text}
            self._file.write(json.dumps(values, ensure_ascii=False) + "\n")

    def check(self) -> None:
        """Raise :class:`DataError` if too many rows are rejected."""
        rejected = self.num_rejected
        considered = self.num_read - self.counts.get(NOT_WHERE, 0)
        if rejected <= self.max_rejected * considered:
            return
        first = next(self.examples[reason][0] for reason in self.examples if REASONS[reason] == "rejected")
        kinds = ", ".join(f"{rows:,} {reason}" for reason, rows in self.counts.items() if REASONS[reason] == "rejected")
        where = f" (all are in {self.quarantine})" if self.quarantine is not None else ""
        raise DataError(
            f"{first}; {rejected:,} of {counted(considered, 'row')} cannot be used ({kinds}) and at most "
            f"{self.max_rejected * 100:.4g} % may be: mend them{where}, or allow more (--max-rejected)."
        )

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return what was left out, in the order of :data:`REASONS`."""
        return tuple(
            LeftOut(reason, kind, self.counts[reason], tuple(self.examples[reason]))
            for reason, kind in REASONS.items()
            if reason in self.counts
        )


def to_dicts(left_out: Iterable[LeftOut]) -> list[dict[str, Any]]:
    """Return plain JSON values."""
    return [asdict(each) for each in left_out]
