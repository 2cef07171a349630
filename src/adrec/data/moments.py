"""Moments of a split: dates, numbers in the data's time unit, or shares of its interactions; parsing and formatting."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adrec.utils.errors import ConfigError, DataError

DAY = r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"  # such as 20240601
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PER_SECOND: Mapping[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
VALIDATION_SHARE = 0.1  # of the interactions before the moment, if only one is given


def two_moments(kind: str, text: str, times: NDArray[Any], unit: str) -> str:
    """Return both moments in full: ``2024-01-01T00:00:00Z,2024-02-01T00:00:00Z``, or numbers."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not 1 <= len(parts) <= 2:
        raise ConfigError(
            f"the split {kind} takes one moment or two, such as {kind}:2024-01-01 or {kind}:0.8,0.9; it "
            f"was given {text!r}."
        )
    ordered = np.sort(times)
    moments = [moment_of(part, ordered, unit) for part in parts]
    if len(moments) == 1:
        before = ordered[ordered < moments[0]]
        if len(before) == 0:
            raise DataError(
                f"no interaction is before {parts[0]}, so there is nothing to train on; choose a later moment."
            )
        moments.insert(0, before[math.floor(len(before) * (1 - VALIDATION_SHARE))].item())
    if moments[0] > moments[1]:
        raise ConfigError(f"the validation of a split begins before its test; {text!r} is the other way round.")
    return ",".join(written(each, unit) for each in moments)


def moment_of(text: str, times: NDArray[Any], unit: str) -> float:
    """Return a moment in the unit of the data, from a share of the interactions, a number or an ISO date."""
    try:
        number = float(text)
    except ValueError:
        return ticks(text, unit)
    if 0 < number < 1:
        return times[math.floor(number * len(times))].item()  # type: ignore[no-any-return]
    return ticks(text, unit)


def ticks(text: str, unit: str) -> float:
    """Read a moment as :func:`written` writes it, a day such as 20240601, or a number in the unit of the data."""
    if unit in PER_SECOND and re.fullmatch(DAY, text):
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no moment: write an ISO date, a number, or a share such as 0.9.") from error
    if unit not in PER_SECOND:
        raise ConfigError(
            f"the times of these data only give an order, so {text!r} is no moment of them; give a share."
        )
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH
    return since // timedelta(microseconds=1) * PER_SECOND[unit] // 10**6


SPANS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds_of(span: str | timedelta) -> int:
    """Return a span such as ``30d`` (``s``, ``m``, ``h``, ``d``, ``w``) in seconds; :class:`ConfigError` for others."""
    if isinstance(span, timedelta):
        seconds = int(span.total_seconds())
    else:
        found = re.fullmatch(r"([0-9]+)\s*([smhdw])", str(span).strip())
        if found is None:
            raise ConfigError(f"{span!r} is no span of time; write a number and s, m, h, d or w, such as 30d.")
        seconds = int(found[1]) * SPANS[found[2]]
    if seconds <= 0:
        raise ConfigError(f"{span!r} is no span of time; give one above 0.")
    return seconds


def written(moment: float, unit: str) -> str:
    """Return a moment as text: a date and time if that is exact to the microsecond, otherwise a number."""
    per_second = PER_SECOND.get(unit)
    if per_second is not None and isinstance(moment, int) and moment * 10**6 % per_second == 0:
        with contextlib.suppress(OverflowError):
            since = timedelta(microseconds=moment * 10**6 // per_second)
            return (EPOCH + since).replace(tzinfo=None).isoformat() + "Z"
    return str(moment)
