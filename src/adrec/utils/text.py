"""Formatting of numbers and lists in messages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from adrec.utils.errors import ConfigError

LONGEST_NAME = 100
NO_NAME = re.compile(r"[/\\\x00-\x1f\x7f:]")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 epoch``, ``1,200 epochs``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def check_name(name: str) -> None:
    """Raise :class:`ConfigError` if the name of a data set cannot name files: it must be short and no path."""
    if not isinstance(name, str) or not name.strip() or NO_NAME.search(name) or name.startswith("."):
        raise ConfigError(f"the name {name!r} cannot name files; give letters, digits and spaces, and no / or \\.")
    if len(name) > LONGEST_NAME:
        raise ConfigError(f"the name {name[:20]!r}.. has {len(name)} characters; give at most {LONGEST_NAME}.")


def as_name(text: str) -> str:
    """Return ``text`` as a name that :func:`check_name` accepts."""
    return NO_NAME.sub("-", text).lstrip(". ")[:LONGEST_NAME] or "interactions"


def listed(names: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
