"""Containers in JSON: MongoDB's wrapped values are unwrapped; other objects and lists are no values of a column."""

from __future__ import annotations

from typing import Any

import polars as pl

WRAPPERS = ("$oid", "$date", "$numberLong", "$numberInt")  # MongoDB Extended JSON
_TEXT, _OTHER = r'"([^"\\]*)"', r"([0-9.eE+-]+)"
_WRAPPED = (
    r"^\{\s*" + r'(?:"\$date"\s*:\s*\{\s*)?' + rf'"\$(?:oid|date|numberLong|numberInt)"\s*:\s*(?:{_TEXT}|{_OTHER})'
)
WRAPPED = _WRAPPED + r"\s*\}\s*\}?$"


class Pairs(list[tuple[str, Any]]):
    """A nested object as all its pairs, duplicate keys included."""


def unwrapped(table: pl.DataFrame) -> pl.DataFrame:
    """Return columns of JSON texts with wrapped values, such as ``{"$oid": "5f.."}``, replaced by what they wrap."""
    odd = [name for name in table.columns if _may_hold(table[name])]
    inner = (pl.coalesce(pl.col(name).str.extract(WRAPPED, group) for group in (1, 2)).alias(name) for name in odd)
    return table.with_columns(
        pl.coalesce(found, pl.col(name)).alias(name) for name, found in zip(odd, inner, strict=True)
    )


def may_hold_containers(table: pl.DataFrame) -> bool:
    """Return whether a value of columns of JSON texts may be an object or a list."""
    return any(_may_hold(table[name]) for name in table.columns)


def _may_hold(column: pl.Series) -> bool:
    return bool(column.str.contains(r"^[\[{]").any())


def unwrap(value: Any) -> Any:
    """Return the value that an object of MongoDB wraps, and any other value unchanged."""
    while isinstance(value, Pairs | dict) and len(value) == 1:
        key, inner = next(iter(value.items() if isinstance(value, dict) else value))
        if key not in WRAPPERS:
            break
        value = inner
    return value


def held(name: str, value: Any) -> str | None:
    """Return what is wrong with the value of column ``name`` if it is an object or a list."""
    value = unwrap(value)
    if isinstance(value, Pairs | dict):
        return f"column {name!r} holds an object; name one of its fields by making it a column"
    if isinstance(value, list | tuple | set):
        return f"column {name!r} holds a list; explode it: one row for each item"
    return None
