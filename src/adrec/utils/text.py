"""Formatting of numbers in messages."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 epoch``, ``1,200 epochs``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
