"""Writing files and folders so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import fcntl
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

OWN_FILES = ("dataset.json", "run.json")  # a folder with one of these was written by adrec and may be replaced
PARTS = frozenset({*OWN_FILES, "config.json", "metrics.jsonl", "users.parquet", "items.parquet"})  # of such a folder
LOCK = ".lock"  # in a folder that one process at a time works in
TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}\.tmp$")
ABANDONED = 3600.0  # seconds without a write, after which the temporary file of a process that has ended is removed
PART_SUFFIXES = frozenset({".npy", ".safetensors"})


def _sync(path: Path) -> None:
    """Ask the operating system to put ``path`` (a file or a folder) on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, ending: str) -> Path:
    """Return a hidden path beside ``path``, always the same."""
    whole = path.absolute()
    return whole.with_name(f".{whole.name}.{ending}")


def _temporary(path: Path) -> Path:
    """Return a hidden path beside ``path`` that no other writer has; remove what killed writers left there long ago."""
    for old in path.absolute().parent.glob(f".{glob.escape(path.absolute().name)}.*.tmp"):
        if TEMPORARY.search(old.name) and _is_abandoned(old):
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    return _beside(path, f"{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _is_abandoned(temporary: Path) -> bool:
    """Return whether the process that wrote a temporary file has ended and nobody wrote to it for :data:`ABANDONED`."""
    try:
        if time.time() - temporary.stat().st_mtime < ABANDONED:
            return False
        os.kill(int(temporary.name.split(".")[-2].partition("-")[0]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is gone, or of another user
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
    """Return whether what is at ``path`` is no file to replace: a device, a pipe, a stream that is open."""
    try:
        status = path.stat()
    except OSError:
        return False
    return not stat.S_ISREG(status.st_mode) or _standard_stream(status) is not None


def _pour(content: Path, path: Path) -> None:
    """Write what is in the file ``content`` into the device, pipe or stream at ``path``."""
    descriptor = _standard_stream(path.stat())
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    # A second opening of standard output would have a place of its own, and one would overwrite the other.
    target = path.open("wb") if descriptor is None else os.fdopen(os.dup(descriptor), "wb")
    with target, content.open("rb") as source:
        shutil.copyfileobj(source, target)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well, it replaces ``path`` in one step.

    Every writer has a temporary path of its own: of two that write at a time, the last to end wins. When the block
    raises, ``path`` stays as it was and the temporary file is removed. A device, a pipe or standard
    output is not replaced: the content is written into it, when the block has ended well. Raises :class:`UserError`
    where the disk is full or does not let us write.
    """
    path = Path(path)
    if _takes_all(path):
        with _written_into(path) as temporary:
            yield temporary
        return
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers make files that only their owner can read
        _sync(temporary)
        temporary.replace(path)
        _sync(temporary.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary.parent.is_dir() and os.access(temporary.parent, os.W_OK):
            temporary.unlink(missing_ok=True)


@contextmanager
def _written_into(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, its content is written into what is at ``path``."""
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
    """Raise :class:`UserError` where a file that ``option`` names is a part of a run or of a prepared data set."""
    if path is None or not (path.name in PARTS or path.suffix in PART_SUFFIXES):
        return
    if any((path.parent / own).is_file() for own in OWN_FILES):
        raise UserError(f"{option} {path} would replace a part of {path.parent}; name another file.")


def discard(path: Path) -> None:
    """Remove a file that is not up to date; what is no file, or a link to one, stays."""
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
    """Raise :class:`UserError` where ``path``, which is to be a folder, is a file."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a folder; choose another --out.")


def check_folder(path: Path, *, overwrite: bool = False, overwriting: str = "") -> None:
    """Raise :class:`UserError` where :func:`atomic_folder` could not write ``path``: before any work is done.

    ``overwriting`` says how to overwrite a folder that adrec wrote, where that can be asked for.
    """
    recover(path)
    check_no_file(path)
    if path.is_dir() and any(path.iterdir()):
        ours = any((path / name).is_file() for name in OWN_FILES)
        if not (overwrite and ours):
            hint = f", or {overwriting}" if ours and overwriting and not overwrite else ""
            raise UserError(f"{path} exists already and is not empty; choose another folder{hint}.")


def check_apart(output: Path | None, inputs: Iterable[Path | None], option: str) -> None:
    """Raise :class:`UserError` where writing ``output`` would destroy one of the ``inputs``, files or folders.

    ``option`` says where to choose another.
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
    """Yield an empty temporary folder beside ``path``; when the block ends well, it becomes ``path``.

    Raises :class:`UserError` where ``path`` exists and holds something, unless ``overwrite`` is true. Of two that write
    at a time the second is refused, or with ``overwrite`` the last to end wins. When the block raises, nothing is left
    behind.
    """
    path = Path(path)
    check_folder(path, overwrite=overwrite)
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        _put_in_place(temporary, path.absolute(), overwrite=overwrite)  # "." itself cannot be renamed
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a whole folder to ``target``, one writer at a time. Raises :class:`UserError` as :func:`check_folder`."""
    old, parent = _beside(target, "old"), os.open(target.parent, os.O_RDONLY)
    try:
        fcntl.flock(parent, fcntl.LOCK_EX)  # of the folder itself: a file to lock would stay behind
        check_folder(target, overwrite=overwrite)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.replace(old)
        temporary.replace(target)
        shutil.rmtree(old, ignore_errors=True)
        os.fsync(parent)
    finally:
        os.close(parent)


def recover(path: Path) -> None:
    """Put back a folder that was being overwritten when its writer was killed between two renames."""
    old = _beside(path, "old")
    if old.is_dir() and not path.exists():
        old.replace(path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Keep other processes from a ``folder``. Raises :class:`RunError` with the ``refusal`` where one has it."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise RunError(refusal) from error
