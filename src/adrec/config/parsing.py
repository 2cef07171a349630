"""Strict parsing of plain values into dataclasses: unknown keys and wrong types are errors.

A configuration is a tree of frozen dataclasses. A field made by :func:`group` is an optional group of keys, None if it
is disabled. :meth:`ConfigGroup.idle` names the keys that have no effect in the given configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from adrec.utils.errors import ConfigError, did_you_mean

OFF = (None, False, "none")  # values that disable a group; True enables it with its defaults


def require(condition: bool, sentence: str) -> None:
    """Raise :class:`ConfigError` with ``sentence`` if ``condition`` is false."""
    if not condition:
        raise ConfigError(sentence)


@dataclass(frozen=True)
class ConfigGroup:
    """A group of configuration keys."""

    def idle(self) -> Mapping[str, str]:
        """Return the keys of the group that have no effect with its other values, and why."""
        return {}


def group(default: ConfigGroup, *, on: bool = False) -> Any:
    """Return a field that holds an optional group of keys; ``default`` is its value if enabled."""
    return field(default=default if on else None, metadata={"group": default})


def is_group(item: Field[Any]) -> bool:
    """Return whether a field of a configuration is an optional group."""
    return "group" in item.metadata


def group_default(item: Field[Any]) -> Any:
    """Return the default of a dataclass field (of a group, its value if enabled); None for any other field."""
    if is_group(item):
        return item.metadata["group"]
    made = item.default_factory() if item.default_factory is not MISSING else item.default
    return made if is_dataclass(made) else None


def leaves(cls: Any, prefix: str = "") -> Iterator[str]:
    """Yield the full key, such as ``model.hidden_size``, of every value of a configuration, in every group."""
    for item in fields(cls):
        inner = group_default(item)
        if inner is None:
            yield f"{prefix}{item.name}"
        else:
            yield from leaves(inner, f"{prefix}{item.name}.")


def groups(cls: Any, prefix: str = "") -> Iterator[str]:
    """Yield the full key, such as ``model.diffusion``, of every optional group."""
    for item in fields(cls):
        inner = group_default(item)
        if is_group(item):
            yield f"{prefix}{item.name}"
        if inner is not None:
            yield from groups(inner, f"{prefix}{item.name}.")


def absent_groups(value: Any, prefix: str = "") -> Iterator[str]:
    """Yield the full key of every disabled group, except groups inside a disabled one."""
    for item in fields(value):
        inner = getattr(value, item.name)
        if is_group(item) and inner is None:
            yield f"{prefix}{item.name}"
        elif is_dataclass(inner):
            yield from absent_groups(inner, f"{prefix}{item.name}.")


def idle_keys(value: Any, prefix: str = "") -> dict[str, str]:
    """Return the full key of every value that has no effect in the given configuration, and why."""
    found = {prefix + key: why for key, why in value.idle().items()} if isinstance(value, ConfigGroup) else {}
    for item in fields(value):
        inner = getattr(value, item.name)
        if is_dataclass(inner):
            found |= idle_keys(inner, f"{prefix}{item.name}.")
    return found


def read_dataclass(cls: type, default: Any, values: Any, where: str = "", noun: str = "configuration key") -> Any:
    """Build the dataclass ``cls`` from ``values`` over ``default``; ``where`` is the key above it, with its dot.

    ``noun`` is the word for a key in error messages. None disables a group.

    Raises :class:`ConfigError` for an unknown key, with a similar one suggested, and for a value of another type.
    """
    require(isinstance(values, Mapping), f"{where or 'the configuration'} must be an object of keys and values.")
    hints, known = _type_hints(cls), {item.name: item for item in fields(cls)}
    unknown = [key for key in values if key not in known]
    if unknown:
        near = did_you_mean(unknown[0], known)
        raise ConfigError(f"there is no {noun} {where + unknown[0]!r}{near}.")
    built: dict[str, Any] = {}
    for key, value in values.items():
        inner = group_default(known[key])
        if inner is None:
            built[key] = _check(hints[key], value, f"{where}{key}")
        elif value is None and is_group(known[key]):
            built[key] = None
        else:
            before = getattr(default, key)
            built[key] = read_dataclass(type(inner), inner if before is None else before, value, f"{where}{key}.", noun)
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
    if hint is float and number and abs(value) <= sys.float_info.max:  # not infinite, not NaN
        return float(value)
    fits = {int: number and isinstance(value, int), bool: isinstance(value, bool), str: isinstance(value, str)}
    kind = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[hint]
    require(fits.get(hint, False), f"{key} must be {kind}; it is {value!r}.")
    return value
