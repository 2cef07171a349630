"""Writing files and folders so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adrec.errors import UserError

OWN_FILES = ("dataset.json", "run.json")  # a folder with one of these was written by adrec and may be replaced


def _sync(path: Path) -> None:
    """Ask the operating system to put ``path`` (a file or a folder) on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, ending: str) -> Path:
    """Return the hidden name beside ``path`` that is always the same: what a killed process left there is replaced."""
    whole = path.absolute()
    return whole.with_name(f".{whole.name}.{ending}")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well, it replaces ``path`` in one step.

    When the block raises, ``path`` stays as it was and the temporary file is removed. Raises :class:`UserError` where
    the disk is full or does not let us write.
    """
    temporary = _beside(Path(path), "tmp")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(b"")
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers make files that only their owner can read
        _sync(temporary)
        temporary.replace(path)
        _sync(temporary.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written ({reason}); make room or choose another place.") from error
    finally:
        if os.access(temporary.parent, os.W_OK):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def check_folder(path: Path, *, overwrite: bool = False, overwriting: str = "") -> None:
    """Raise :class:`UserError` where :func:`atomic_folder` could not write ``path``: before any work is done.

    ``overwriting`` says how to overwrite a folder that adrec wrote, where that can be asked for.
    """
    recover(path)
    if path.is_file():
        raise UserError(f"{path} is a file, not a folder; choose another --out.")
    if path.is_dir() and any(path.iterdir()):
        ours = any((path / name).is_file() for name in OWN_FILES)
        if not (overwrite and ours):
            hint = f", or {overwriting}" if ours and overwriting and not overwrite else ""
            raise UserError(f"{path} exists already and is not empty; choose another folder{hint}.")


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; when the block ends well, it becomes ``path``.

    Raises :class:`UserError` where ``path`` exists and holds something, unless ``overwrite`` is true.
    When the block raises, nothing is left behind.
    """
    path = Path(path)
    check_folder(path, overwrite=overwrite)
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        target = path.absolute()  # "." itself cannot be renamed
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.replace(old)
        temporary.replace(target)
        shutil.rmtree(old, ignore_errors=True)
        _sync(temporary.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written ({reason}); make room or choose another place.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover(path: Path) -> None:
    """Put back a folder that was being overwritten when its writer was killed between two renames."""
    old = _beside(path, "old")
    if old.is_dir() and not path.exists():
        old.replace(path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
