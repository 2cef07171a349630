"""Parsing of times: numbers with a unit inferred from their size, dates, and texts in the format of the first rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from adrec.data.convert import NUMBER, Converted, Problem, may_be_number, missing, plain_text, without
from adrec.data.moments import DAY
from adrec.data.preparation import TimeUnit
from adrec.data.report import BAD_TIME
from adrec.utils.errors import DataError

# Numbers from here on identify their unit by size, for the years 1973 to 5138.
SMALLEST_TOLD = 1e8
UNITS: Mapping[TimeUnit, float] = {"s": 1e11, "ms": 1e14, "us": 1e17, "ns": float("inf")}  # and below which they end
UNIT_NAMES: Mapping[TimeUnit, str] = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "none": "numbers that only give an order",
}
SAID = "the time cannot be read (--time-format says how written times are to be read)"
ISO_FORMS = (
    *("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M%#z"),
    *("%Y%m%d %H%M%S%.f", "%Y%m%d %H%M%S%.f%#z", "%Y%m%d %H%M", "%Y%m%d %H%M%#z"),
)  # the usual ones first; %#z is +02:00, +0200 or +02


DAY_FORM = "%Y%m%d"
DAYS = (
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d-%b-%Y"),
    *("%b %d, %Y", "%d %B %Y", "%B %d, %Y", DAY_FORM),
)
HOURS = ("", " %H:%M:%S", " %H:%M", " %H:%M:%S%.f", " %I:%M:%S %p", " %I:%M %p")


@dataclass
class Times:
    """Reads the times of a table, piece after piece.

    Args:
        name: name of the column.
        unit: unit of numbers; inferred from their size by default.
        form: format of written times, as in ``strptime``; numbers or ISO dates by default.

    Attributes:
        written: ``numbers`` or ``dates``, after a piece with times was read.
        seen: for each inferred unit, the count of its numbers and the location of the first.
    """

    name: str
    unit: TimeUnit | None = None
    form: str | None = None
    written: str | None = None
    naive: bool = False
    hint: str | None = None
    seen: dict[TimeUnit, tuple[int, str]] = field(default_factory=dict)

    def read(self, column: pl.Series, source: str, at: Callable[[int], str]) -> Converted:
        """Return times as sortable numbers, Int64 (or Float64), null if unreadable.

        Args:
            column: a column of any type.
            source: name of the source.
            at: returns the location of the row with the given index.

        Raises:
            DataError: for a column of an unsupported type, or of dates after numbers.
        """
        column = plain_text(column)
        dated = column.dtype in (pl.Date, pl.Datetime)
        if dated:
            written = "dates"
        elif not may_be_number(column):
            raise DataError(
                f"{source}, column {column.name!r}: times of type {column.dtype} are not read; give numbers or dates."
            )
        else:
            written = self._written(column)
        if self.written not in (None, written) and column.len() > column.null_count():
            raise DataError(f"{source}, column {column.name!r} has {written} where {self.written} were read before.")
        if not missing(column).bad.all():
            self.written = written
        if dated:
            self.naive = self.naive or getattr(column.dtype, "time_zone", None) is None
            moments = column.cast(pl.Datetime("us")) if column.dtype == pl.Date else column.dt.cast_time_unit("us")
            return without(moments.cast(pl.Int64), missing(column))
        return self._dates(column) if written == "dates" else self._numbers(column, at)

    def _written(self, column: pl.Series) -> str:
        """Return the notation of the times, by majority of the first ones."""
        if self.form is not None:
            return "dates"
        if self.written is not None:
            return self.written
        some = column.filter(~missing(column).bad).head(1000)
        if self.unit is None and _are_days(some):
            self.form = DAY_FORM
            return "dates"
        if column.dtype != pl.String:
            return "numbers"
        _, moments = iso(some)
        return "dates" if moments.count() > some.str.contains(NUMBER).sum() else "numbers"

    def _dates(self, column: pl.Series) -> Converted:
        texts = column.cast(pl.String)
        absent = missing(texts)
        if self.form is not None:
            zoned = texts.str.to_datetime(self.form, time_unit="us", strict=False, exact=True)
            self.naive = self.naive or getattr(zoned.dtype, "time_zone", None) is None
            moments = zoned.cast(pl.Int64)
        else:
            naive, moments = iso(texts)
            self.naive = self.naive or naive
        return without(moments, absent, self._unread(texts, moments.is_null() & ~absent.bad))

    def _numbers(self, column: pl.Series, at: Callable[[int], str]) -> Converted:
        absent = missing(column)
        values = column.cast(pl.Float64, strict=False)
        good = values.is_finite() & (values.abs() < 2.0**63)
        if column.dtype == pl.String:
            good = good & column.str.contains(NUMBER)
        bad = self._unread(column, ~good.fill_null(False) & ~absent.bad)
        integers = column.cast(pl.Int64, strict=False)
        if not column.dtype.is_integer():
            whole = values.cast(pl.Int64, strict=False)
            integers = pl.select(pl.coalesce(integers if column.dtype == pl.String else whole, whole)).to_series()
            if not (integers.cast(pl.Float64) == values).fill_null(True).all():
                converted = without(values, absent, bad)
                self._tell(converted.values, at)
                return converted
        converted = without(integers, absent, bad)
        self._tell(converted.values, at)
        return converted

    def _unread(self, column: pl.Series, bad: pl.Series) -> Problem:
        """Return unreadable times as a problem; if none can be read, the first give the right format."""
        if self.hint is None and bad.any() and (bad | missing(column).bad).all():
            self.hint = hint(column.cast(pl.String).filter(bad).head(100), self.form)
        return Problem(bad, BAD_TIME, self.hint or SAID)

    def _tell(self, values: pl.Series, at: Callable[[int], str]) -> None:
        """Count the inferred units of the numbers."""
        if self.unit is not None:
            return
        sizes, above = values.cast(pl.Float64).abs(), SMALLEST_TOLD
        for unit, below in UNITS.items():
            told = ((sizes >= above) & (sizes < below)).fill_null(False)
            above = below
            index = told.arg_max() if told.any() else None
            if index is not None:
                many, first = self.seen.get(unit, (0, f"{at(index)}: {values[index]}"))
                self.seen[unit] = (many + int(told.sum()), first)

    def end(self, source: str) -> TimeUnit:
        """Return the unit of all times. Raises :class:`DataError` if numbers have several units."""
        if self.written == "dates":
            return "us"
        if self.unit is not None:
            return self.unit
        if len(self.seen) > 1:
            kinds = " and ".join(
                f"{many:,} of {UNIT_NAMES[unit]} ({first})" for unit, (many, first) in self.seen.items()
            )
            raise DataError(
                f"{source}, column {self.name!r} seems to mix times of several units, {kinds}; mend it, or say which "
                "unit it is (--time-unit)."
            )
        return next(iter(self.seen), "none")

    def guesses(self) -> list[str]:
        """Return the guesses about the times, one sentence each."""
        if self.written == "dates":
            if self.form == DAY_FORM and self.unit is None:
                return [f"column {self.name!r}: numbers such as 20220422 are dates, in UTC"]
            said = [f"column {self.name!r}: dates without a zone are read as UTC"] if self.naive else []
            idle = f"column {self.name!r}: dates, not numbers; time_unit {self.unit!r} is not used"
            return said if self.unit is None else [*said, idle]
        if self.unit is not None or self.written is None:
            return []
        unit: TimeUnit = next(iter(self.seen), "none")
        by_size = f"{UNIT_NAMES[unit]} since 1970, by their size" if unit != "none" else UNIT_NAMES[unit]
        return [f"column {self.name!r}: times are {by_size}"]


def _are_days(values: pl.Series) -> bool:
    """Return whether all values are days such as 20220422."""
    if not len(values) or not (values.dtype == pl.String or values.dtype.is_integer()):
        return False
    texts = values.cast(pl.String)
    return bool(texts.str.contains(DAY).all()) and texts.str.to_date(DAY_FORM, strict=False).null_count() == 0


def hint(texts: pl.Series, form: str | None) -> str:
    """Return why times cannot be read: they are not in the format ``form``, or in another that is named if it is known.

    Args:
        texts: some of the times.
        form: the format that was asked for, if any.
    """
    said = SAID if form is None else f"the time is not in the format {form!r}"
    if iso(texts)[1].null_count() == 0:
        return f"{said}; it is an ISO date, which is read without --time-format" if form is not None else said
    fitting = []
    for each in (day + hour for hour in HOURS for day in DAYS):
        try:
            if texts.str.to_datetime(each, strict=False).null_count() == 0:
                fitting.append(each)
        except pl.exceptions.PolarsError:  # polars refuses a format
            continue
    if not fitting:
        return said
    if form is None:
        said = "the time cannot be read as it is"
    return f"{said}; --time-format {' or '.join(map(repr, fitting[:2]))} reads it"


def iso(texts: pl.Series) -> tuple[bool, pl.Series]:
    """Return whether some texts have no time zone, and microseconds since 1970 of ISO dates and times (else null)."""
    text = texts.str.strip_chars().str.replace(r"^(\d{4}-?\d\d-?\d\d)[Tt]", "${1} ")
    text = text.str.replace(r"[Zz]$| UTC$", "+00:00").str.replace(r",(\d)", ".${1}")
    naive, moments = False, pl.Series(texts.name, [None], dtype=pl.Int64).new_from_index(0, len(texts))
    for form in ISO_FORMS:
        if moments.null_count() == texts.null_count():
            break
        found = text.str.to_datetime(form, time_unit="us", strict=False).cast(pl.Int64)
        naive = naive or (not form.endswith("z") and found.count() > 0)
        moments = pl.select(pl.coalesce(moments, found)).to_series()
    return naive, moments
