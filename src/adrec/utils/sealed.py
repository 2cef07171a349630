"""JSON objects that are read back checked: sealed by a digest of their content, so that every change is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adrec.utils.errors import UserError
from adrec.utils.files import write_json

DIGEST = "digest"


def digest_of(value: Any) -> str:
    """Return the hash of a JSON value; the order of keys does not count."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def write_sealed(path: Path, values: Mapping[str, Any]) -> str:
    """Write an object with the digest of its content, atomically; return the digest."""
    digest = digest_of(values)
    write_json(path, {**values, DIGEST: digest})
    return digest


def check_seal(path: Path, values: Mapping[str, Any], error: type[UserError], remedy: str) -> dict[str, Any]:
    """Return the object that was read from ``path``, without its digest.

    Raises ``error`` with the ``remedy`` if its content does not match its digest.
    """
    content = {key: value for key, value in values.items() if key != DIGEST}
    if values.get(DIGEST) != digest_of(content):
        raise error(f"{path} was altered after it was written: its content does not match its digest; {remedy}.")
    return content


def read_json(path: Path, error: type[UserError], remedy: str) -> dict[str, Any]:
    """Return the JSON object in a file. Raises ``error`` with the ``remedy`` if there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as missing:
        raise error(f"{path} is missing; {remedy}.") from missing
    except (OSError, ValueError, RecursionError) as damage:
        raise error(f"{path} cannot be read as JSON; {remedy}.") from damage
    if not isinstance(value, dict):
        raise error(f"{path} does not hold a JSON object; {remedy}.")
    return value


def read_sealed(path: Path, error: type[UserError], remedy: str) -> dict[str, Any]:
    """Return what :func:`write_sealed` wrote. Raises ``error`` with the ``remedy`` for anything else."""
    return check_seal(path, read_json(path, error, remedy), error, remedy)
