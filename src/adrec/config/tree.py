"""Conversion of changes by full key to a tree of values, with groups of keys enabled or disabled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from adrec.config.parsing import OFF, ConfigGroup, group_default, groups, is_group, require


def changes_tree(default: ConfigGroup, layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return values in groups from changes by full key, a later layer over an earlier one.

    Within a layer, values of whole groups (``True``, ``False``, or an object of keys and values) are applied first.
    Raises :class:`ConfigError` for a key of a disabled group.
    """
    tree: dict[str, Any] = {}
    names = set(groups(type(default)))
    for changes in layers:
        for key in sorted(changes, key=lambda key: (key not in names, key.count("."))):
            _put(tree, default, key, changes[key])
    return tree


def _put(tree: dict[str, Any], default: ConfigGroup, key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    inner: Any = default
    for depth, name in enumerate(parents):
        item = type(inner).__dataclass_fields__[name]
        taken = tree[name] is not None if name in tree else getattr(inner, name) is not None
        absent = ".".join(parents[: depth + 1])
        require(taken, f"{key} has no effect, as {absent} is left out; set {absent}=true too, or leave {key} out.")
        tree = tree.setdefault(name, {})
        own = getattr(inner, name)
        inner = group_default(item) if own is None else own
    if not is_group(type(inner).__dataclass_fields__[leaf]):
        tree[leaf] = value
    elif any(value is off or value == off for off in OFF):
        tree[leaf] = None
    else:
        require(
            value is True or isinstance(value, Mapping),
            f"{key} is a group of keys: set it to true or false, or its keys, such as {key}.{_first_key(inner, leaf)}; "
            f"it is {value!r}.",
        )
        tree[leaf] = {**(tree.get(leaf) or {}), **({} if value is True else value)}


def flat(changes: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the full key of every value in ``changes``, inside objects too."""
    keys = []
    for key, value in changes.items():
        keys += flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [prefix + key]
    return keys


def _first_key(inner: Any, leaf: str) -> str:
    first: str = next(iter(group_default(type(inner).__dataclass_fields__[leaf]).__dataclass_fields__))
    return first


def explicit_groups(cls: Any, values: Mapping[str, Any]) -> Any:
    """Return saved ``values`` of a dataclass, with None for every missing group."""
    if not isinstance(values, Mapping):
        return values
    found = dict(values)
    for name, item in cls.__dataclass_fields__.items():
        inner = group_default(item)
        if is_group(item) and found.get(name) is None:
            found[name] = None
        elif inner is not None and name in found:
            found[name] = explicit_groups(type(inner), found[name])
    return found


def applied(values: Mapping[str, Any], idle: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """Return ``values`` without the groups that are None and the keys that are ``idle``."""
    found = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found[name] = applied(value, idle, f"{key}.")
        elif key not in idle and (value is not None):
            found[name] = value
    return found
