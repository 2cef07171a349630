"""Weights of interactions by the type of their event: how much each counts as a target of training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl

from adrec.data.convert import Converted, Problem, ids, without
from adrec.data.report import BAD_EVENT
from adrec.utils.errors import ConfigError

LEAST, MOST = 1e-3, 1e3  # of the weights above 0


def parse_weights(text: str) -> dict[str, float]:
    """Return the weight of each type of event in a text such as ``purchase=1,cart=0.5,view=0``.

    Raises :class:`ConfigError` for anything else, a type named twice, a negative weight, or none above 0.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (each.strip() for each in part.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not equals or not name or not (weight == 0 or LEAST <= weight <= MOST):
            raise ConfigError(
                f"event_weights has {part.strip()!r}, which is no type of event and a weight, 0 or from "
                f"{LEAST:g} to {MOST:,.0f}; write purchase=1,cart=0.5,view=0.1."
            )
        if name in weights:
            raise ConfigError(f"event_weights names {name!r} twice; give each type of event one weight.")
        weights[name] = weight
    if not any(weights.values()):
        raise ConfigError("event_weights leaves no target: every weight is 0; give one above 0.")
    return weights


def weigh(column: pl.Series, weights: Mapping[str, float], source: str) -> Converted:
    """Return the weight of each event type in ``column``, Float32; a type without a weight is a problem.

    Raises :class:`DataError` for a column of lists or objects.
    """
    read = ids(column, source)
    types = read.values.cast(pl.String).str.strip_chars()
    values = types.replace_strict(weights, default=None, return_dtype=pl.Float32)
    unusable = pl.Series([False]).new_from_index(0, len(column))
    for problem in read.problems:
        unusable |= problem.bad
    what = "this type of event has no weight (name it in --event-weights, or leave it out with --where)"
    return without(values, *read.problems, Problem(values.is_null() & ~unusable, BAD_EVENT, what))
