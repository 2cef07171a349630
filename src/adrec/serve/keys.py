"""API keys: a file has their digests alone, and a key is compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from adrec.utils.errors import ConfigError


def new_key() -> tuple[str, str]:
    """Return a new key, and the line for the file of keys."""
    key = secrets.token_urlsafe(32)
    return key, digest_of_key(key)


def digest_of_key(key: str) -> str:
    """Return the line of a key in a file of keys: a key is random, so a plain hash of it tells nothing."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> tuple[str, ...]:
    """Return the digests in a file of keys, one a line; lines that begin with ``#`` do not count.

    Raises :class:`ConfigError` for another line, or a file without keys.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a file of keys ({error}).") from error
    digests = [line for line in lines if line and not line.startswith("#")]
    for number, line in enumerate(lines, start=1):
        if line in digests and not re.fullmatch("[0-9a-f]{64}", line):
            raise ConfigError(f"{path} line {number} is no digest of a key; adrec key prints a key and its digest.")
    if not digests:
        raise ConfigError(f"{path} has no key; adrec key prints a key and its digest.")
    return tuple(digests)


def is_known(key: str, digests: Sequence[str]) -> bool:
    """Return whether a key has one of the ``digests``; the time does not tell which."""
    own = digest_of_key(key)
    found = [hmac.compare_digest(own, each) for each in digests]  # all of them, whichever it is
    return any(found)
