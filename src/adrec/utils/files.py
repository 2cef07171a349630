"""Atomic writing of files and folders: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adrec.utils.errors import RunError, UserError
from adrec.utils.platforms import locked_folder, sync

OWN_FILES = ("dataset.json", "run.json")  # a folder with one of these was written by adrec and may be replaced
PARTS = frozenset({*OWN_FILES, "config.json", "metrics.jsonl", "users.parquet", "items.parquet"})  # its files
LOCK = ".lock"  # in a folder that only one process at a time may use
TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}\.tmp$")
ABANDONED = 3600.0  # seconds after the last write at which a dead process's temporary file is removed
PART_SUFFIXES = frozenset({".npy", ".safetensors"})


def _beside(path: Path, ending: str) -> Path:
    """Return the hidden path next to ``path`` with the given ending."""
    whole = path.absolute()
    return whole.with_name(f".{whole.name}.{ending}")


def _temporary(path: Path) -> Path:
    """Return a unique hidden path next to ``path``, in a folder that is made if needed.

    Abandoned temporary files of ``path`` are removed. Raises :class:`UserError` if the folder is not writable.
    """
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        for old in path.absolute().parent.glob(f".{glob.escape(path.absolute().name)}.*.tmp"):
            if TEMPORARY.search(old.name) and _is_abandoned(old):
                shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    return _beside(path, f"{os.getpid()}-{secrets.token_hex(4)}.tmp")


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files of killed processes in ``folder``, which this process has locked."""
    for path in folder.iterdir():
        if TEMPORARY.search(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _is_abandoned(temporary: Path) -> bool:
    """Return whether a temporary file's process has ended and its last write is :data:`ABANDONED` seconds ago."""
    try:
        if time.time() - temporary.stat().st_mtime < ABANDONED:
            return False
        os.kill(int(temporary.name.split(".")[-2].partition("-")[0]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # the file is gone, or belongs to another user
        return False
    return False


def _standard_stream(status: os.stat_result) -> int | None:
    """Return the descriptor of standard output or error where it goes to the file with this ``status``."""
    for descriptor in (1, 2):
        try:
            if os.path.samestat(os.fstat(descriptor), status):
                return descriptor
        except OSError:  # it is closed
            continue
    return None


def _takes_all(path: Path) -> bool:
    """Return whether ``path`` must be written to, not replaced: a device, a pipe or an open standard stream."""
    try:
        status = path.stat()
    except OSError:
        return False
    return not stat.S_ISREG(status.st_mode) or _standard_stream(status) is not None


def _pour(content: Path, path: Path) -> None:
    """Copy the file ``content`` into the device, pipe or stream at ``path``."""
    descriptor = _standard_stream(path.stat())
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    # A second descriptor of standard output would have its own file offset, and the two would overwrite each other.
    target = path.open("wb") if descriptor is None else os.fdopen(os.dup(descriptor), "wb")
    with target, content.open("rb") as source:
        shutil.copyfileobj(source, target)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``. If the block succeeds, the file replaces ``path`` atomically.

    Every writer has its own temporary path; of two concurrent writers, the last to finish wins. If the block raises,
    ``path`` is unchanged and the temporary file is removed. A device, a pipe or standard output is not replaced: after
    the block succeeds, the content is written into it. Raises :class:`UserError` if the disk is full or not writable.
    """
    path = Path(path)
    if _takes_all(path):
        with _written_into(path) as temporary:
            yield temporary
        return
    temporary = _temporary(path)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers create files that only the owner can read
        sync(temporary)
        temporary.replace(path)
        sync(temporary.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary.parent.is_dir() and os.access(temporary.parent, os.W_OK):
            temporary.unlink(missing_ok=True)


@contextmanager
def _written_into(path: Path) -> Iterator[Path]:
    """Yield a temporary path. If the block succeeds, its content is written into the device or stream at ``path``."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / "content"
            temporary.write_bytes(b"")
            yield temporary
            _pour(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written ({error.strerror or error}); make room or choose another place.")


def check_side_output(path: Path | None, option: str) -> None:
    """Raise :class:`UserError` if the output file of ``option`` would be inside a run or a prepared data set."""
    if path is None or not (path.name in PARTS or path.suffix in PART_SUFFIXES):
        return
    if any((path.parent / own).is_file() for own in OWN_FILES):
        raise UserError(f"{option} {path} would replace a part of {path.parent}; name another file.")


def discard(path: Path) -> None:
    """Remove an outdated file. Anything that is not a regular file, or is a link, is kept."""
    if path.is_file() and not path.is_symlink():
        path.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def check_no_file(path: Path) -> None:
    """Raise :class:`UserError` if the path of an output folder is a file."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a folder; choose another --out.")


def check_folder(path: Path, *, overwrite: bool = False, overwriting: str = "") -> None:
    """Raise :class:`UserError`, before any work, if :func:`atomic_folder` cannot write ``path``.

    ``overwriting`` is the hint how to overwrite a folder that adrec wrote, if the command allows it.
    """
    recover(path)
    _check_empty(path, overwrite=overwrite, overwriting=overwriting)


def _check_empty(path: Path, *, overwrite: bool, overwriting: str = "") -> None:
    check_no_file(path)
    if path.is_dir() and any(path.iterdir()):
        ours = any((path / name).is_file() for name in OWN_FILES)
        if not (overwrite and ours):
            hint = f", or {overwriting}" if ours and overwriting and not overwrite else ""
            raise UserError(f"{path} exists already and is not empty; choose another folder{hint}.")


def check_apart(output: Path | None, inputs: Iterable[Path | None], option: str) -> None:
    """Raise :class:`UserError` if writing ``output`` would overwrite one of the ``inputs``, files or folders.

    ``option`` is the option that names the output.
    """
    for each in inputs:
        if output is None or each is None or not (output.exists() and each.exists()):
            continue
        if output.samefile(each):
            raise UserError(f"{output} is read, and would be overwritten; choose another {option}.")
        if output.resolve() in each.resolve().parents:
            raise UserError(f"{each}, which is read, is in {output}, which is replaced; choose another {option}.")


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder next to ``path``. If the block succeeds, the folder is renamed to ``path``.

    Raises :class:`UserError` if ``path`` exists and is not empty, unless ``overwrite`` is true. Of two concurrent
    writers the second is refused; with ``overwrite``, the last to finish wins. If the block raises, the temporary
    folder is removed.
    """
    path = Path(path)
    check_folder(path, overwrite=overwrite)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        put_in_place(temporary, path.absolute(), overwrite=overwrite)  # "." itself cannot be renamed
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a folder to ``target``, under a lock. Raises :class:`UserError` like :func:`check_folder`."""
    old = _beside(target, "old")
    with locked_folder(target.absolute().parent):
        _check_empty(target, overwrite=overwrite)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.replace(old)
        temporary.replace(target)
        shutil.rmtree(old, ignore_errors=True)


def recover(path: Path) -> None:
    """Restore a folder whose overwriting was interrupted between two renames."""
    old = _beside(path, "old")
    if old.is_dir() and not path.exists():
        with locked_folder(path.absolute().parent):  # not while another process is between the renames
            if old.is_dir() and not path.exists():
                old.replace(path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Lock a ``folder`` against other processes. Raises :class:`RunError` with ``refusal`` if it is locked."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise RunError(refusal) from error
