"""Atomic writing of files: a reader sees the old content or the new, never a part.

Everything is written to a temporary file beside its place, whose name is ``.NAME.NODE-PID-RANDOM.tmp``: no two writers
share one, and what a killed writer leaves can be told from a user's own files.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adrec.utils.errors import UserError
from adrec.utils.platforms import process_space, sync, was_running

NODE = hashlib.blake2b(f"{platform.node()} {process_space()}".encode(), digest_size=4).hexdigest()
TEMPORARY = re.compile(r"\.([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}\.(tmp|old)$")
ABANDONED = 3600.0  # seconds after its last write at which another machine's temporary file is removed


def beside(path: Path, ending: str) -> Path:
    """Return a unique hidden path next to ``path``; ``ending`` is ``tmp`` or ``old``."""
    return path.with_name(hidden(path.name, ending))


def hidden(name: str, ending: str) -> str:
    """Return a unique hidden name; :func:`abandoned` recognises it."""
    return f".{name[:200]}.{NODE}-{os.getpid()}-{secrets.token_hex(4)}.{ending}"


def place_of(path: Path) -> Path:
    """Return the absolute path that is written for ``path``: the file or folder that a link leads to."""
    return path.resolve() if path.is_symlink() else path.absolute()


def temporary_for(target: Path) -> Path:
    """Return a temporary path next to ``target``, in a folder that is made if needed.

    What killed writers of ``target`` left is removed. Raises :class:`UserError` if the folder is not writable.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in target.parent.glob(f".{glob.escape(target.name[:200])}.*.tmp"):
            if abandoned(old):
                remove(old)
    except OSError as error:
        raise unwritable(target, error) from error
    return beside(target, "tmp")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files of killed processes in ``folder``, which this process has locked."""
    for path in folder.iterdir():
        if TEMPORARY.search(path.name):
            remove(path)


def abandoned(path: Path) -> bool:
    """Return whether ``path`` is a temporary file or folder of a process that has ended.

    Of a process of another machine, container or boot it is not known; its files count as abandoned after
    :data:`ABANDONED` seconds.
    """
    found = TEMPORARY.search(path.name)
    if found is None:
        return False
    node, process, _ = found.groups()
    try:
        changed = path.lstat().st_mtime
    except OSError:  # it is gone
        return False
    if node != NODE:
        return time.time() - changed > ABANDONED
    return not was_running(int(process), changed)


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
    ``path`` is unchanged and the temporary file is removed. A link stays, and the file it leads to is replaced. A
    device, a pipe or standard output is not replaced: after the block succeeds, the content is written into it. So it
    is with a file that is a mount point. Raises :class:`UserError` if the disk is full or not writable.
    """
    path = Path(path)
    if _takes_all(path):
        with _written_into(path) as temporary:
            yield temporary
        return
    target = place_of(path)
    temporary = temporary_for(target)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = (target if target.exists() else temporary).stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers create files that only the owner can read
        sync(temporary)
        _replace(temporary, target)
        sync(target.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary.parent.is_dir() and os.access(temporary.parent, os.W_OK):
            temporary.unlink(missing_ok=True)


def _replace(temporary: Path, target: Path) -> None:
    try:
        temporary.replace(target)
    except OSError as error:
        if error.errno != errno.EBUSY:  # a mount point, as containers make of single files
            raise
        _pour(temporary, target)
        sync(target)


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
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """Return the error that ``path`` cannot be written."""
    if isinstance(error, UserError):
        return error
    return UserError(f"{path} cannot be written ({reason(error)}); make room or choose another place.")


def reason(error: OSError) -> str:
    """Return why a file cannot be read or written, in the operating system's words."""
    if error.strerror is None and "requested and" in str(error):  # NumPy's way to say it
        return os.strerror(errno.ENOSPC)
    return error.strerror or str(error)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, and wait until it is on the disk. Raises :class:`UserError` if it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error) from error


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
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8", "surrogatepass"))  # names of files may be no valid text


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
