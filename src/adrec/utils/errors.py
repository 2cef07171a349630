"""The errors that users see as one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can fix. The message is one sentence: what is wrong, where, and what to do.

    The command line prints only the message and exits with code 2; ``--debug`` shows the traceback.
    """


class DataError(UserError):
    """A table, an id or a prepared data set that cannot be used."""


class ConfigError(UserError):
    """A configuration key, value or preset that does not exist or does not fit."""


class RunError(UserError):
    """A run folder or a weights file that is missing, incomplete or altered."""


def needs_extra(what: str, extra: str) -> str:
    """Return the message that ``what`` requires the packages of an extra."""
    return (
        f"{what} needs packages of the extra {extra!r}: run pip install '.[{extra}]' where adrec was cloned to "
        "(make's set-up has them)."
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known word, or an empty string if no word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
