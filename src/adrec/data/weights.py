"""Weights of interactions by the type of their event: how much each counts as a target of training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl

from adrec.data.convert import Converted, Problem, missing, plain_text, without
from adrec.data.report import BAD_EVENT
from adrec.utils.errors import ConfigError


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
        if not equals or not name or not 0 <= weight < math.inf:
            raise ConfigError(
                f"event_weights has {part.strip()!r}, which is no type of event and a weight of 0 or more; write "
                "purchase=1,cart=0.5,view=0.1."
            )
        if name in weights:
            raise ConfigError(f"event_weights names {name!r} twice; give each type of event one weight.")
        weights[name] = weight
    if not any(weights.values()):
        raise ConfigError("event_weights leaves no target: every weight is 0; give one above 0.")
    return weights


def weigh(column: pl.Series, weights: Mapping[str, float]) -> Converted:
    """Return the weight of each event type in ``column``, Float32; a type without a weight is a problem."""
    types = plain_text(column).cast(pl.String).str.strip_chars()
    absent = missing(types)
    values = types.replace_strict(weights, default=None, return_dtype=pl.Float32)
    what = "this type of event has no weight (name it in --event-weights, or leave it out with --where)"
    return without(values, absent, Problem(values.is_null() & ~absent.bad, BAD_EVENT, what))
