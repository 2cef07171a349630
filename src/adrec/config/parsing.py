"""Strict reading of plain values into dataclasses: nothing unknown, nothing of another type."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from adrec.utils.errors import ConfigError, did_you_mean


def require(condition: bool, sentence: str) -> None:
    """Raise :class:`ConfigError` with ``sentence`` where ``condition`` is false."""
    if not condition:
        raise ConfigError(sentence)


def leaves(value: Any, prefix: str = "") -> Iterable[str]:
    """Yield the full key, such as ``model.hidden_size``, of every field that is not a dataclass itself."""
    for item in fields(value):
        inner = getattr(value, item.name)
        if hasattr(inner, "__dataclass_fields__"):
            yield from leaves(inner, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


def read_dataclass(cls: type, default: Any, values: Any, where: str = "", noun: str = "configuration key") -> Any:
    """Build the dataclass ``cls`` from ``values`` over ``default``; ``where`` is the key above it, with its dot.

    ``noun`` is what a key is called where one is unknown.

    Raises :class:`ConfigError` on an unknown key, which names the near one, and on a value of another type.
    """
    require(isinstance(values, Mapping), f"{where or 'the configuration'} must be an object of keys and values.")
    hints = _type_hints(cls)
    unknown = [key for key in values if key not in hints]
    if unknown:
        near = did_you_mean(unknown[0], hints)
        raise ConfigError(f"there is no {noun} {where + unknown[0]!r}{near}.")
    built = {}
    for key, value in values.items():
        hint = hints[key]
        if hasattr(hint, "__dataclass_fields__"):
            built[key] = read_dataclass(hint, getattr(default, key), value, f"{where}{key}.", noun)
        else:
            built[key] = _check(hint, value, f"{where}{key}")
    return replace(default, **built)


_type_hints = cache(get_type_hints)


def _check(hint: Any, value: Any, key: str) -> Any:
    """Return ``value`` as the type ``hint``: int, float, bool, str, Literal, a tuple of str, or one of them or None."""
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return None
        hint = next(each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices:
            near = did_you_mean(str(value), choices)
            raise ConfigError(f"{key} must be one of {', '.join(choices)}; it is {value!r}{near}.")
        return value
    if get_origin(hint) is tuple:
        texts = [value] if isinstance(value, str) else value
        good = isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)
        require(good, f"{key} must be a list of texts; it is {value!r}.")
        return tuple(texts)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number and math.isfinite(value):
        return float(value)
    fits = {int: number and isinstance(value, int), bool: isinstance(value, bool), str: isinstance(value, str)}
    kind = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[hint]
    require(fits.get(hint, False), f"{key} must be {kind}; it is {value!r}.")
    return value
