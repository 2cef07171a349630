"""Descriptions of configuration keys, from the docstrings of the configuration classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from adrec.config.base import Settings


def described(config: Settings) -> Iterator[tuple[str, Any, str]]:
    """Yield the full key, value and one-line meaning of every key that has an effect in ``config``."""
    idle = config.idle_keys()
    yield from ((key, value, meaning) for key, value, meaning in _of_group(config) if key not in idle)


def _of_group(group: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    known = meanings(type(group))
    for item in fields(group):
        value, key = getattr(group, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            yield from _of_group(value, f"{key}.")
        elif value is not None:
            yield key, value, known.get(item.name, "")


def meanings(cls: type) -> dict[str, str]:
    """Return the first sentence on each attribute in the docstrings of a class and its bases."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        _, _, attributes = (inspect.getdoc(each) or "").partition("Attributes:\n")
        for entry in re.split(r"\n    (?=\w+: )", f"\n{attributes}")[1:]:
            name, _, text = entry.partition(": ")
            found[name] = _first_sentence(" ".join(text.split()))
    return found


def _first_sentence(text: str) -> str:
    """Return the first sentence of a text, without code markup."""
    sentence = re.split(r"\.(?: |$)|(?<=[^.]): (?=:mod:)", text, maxsplit=1)[0]
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", sentence).replace("``", "")
