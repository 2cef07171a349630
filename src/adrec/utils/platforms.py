"""What differs between systems: locks of folders, writing to the disk, the peak of memory, streams, ``torchrun``."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from filelock import FileLock

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

LOCK = ".adrec.lock"
STATUS, CONTAINER = Path("/proc/self/status"), Path("/sys/fs/cgroup/memory.max")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # and what changes the direction


def is_started_by_torchrun() -> bool:
    """Return whether this process is one of several that ``torchrun`` started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def rank_of_environment() -> tuple[int, int]:
    """Return this process's rank and the number of ranks, as ``torchrun`` says: (0, 1) without it."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if is_started_by_torchrun() else (0, 1)


def sync(path: Path) -> None:
    """Ask the operating system to put a file or a folder on the disk; Windows cannot be asked for folders."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder, and put what was renamed in it on the disk."""
    if fcntl is None:
        with FileLock(folder / LOCK):  # Windows has no lock of folders; the file stays
            yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # of the folder itself: a file to lock would stay behind
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    if resource is None:
        import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - installed on Windows alone

        peak: int = psutil.Process().memory_info().peak_wset
        return peak
    if STATUS.exists():  # Linux counts the memory of the process that started this one in the number below
        found = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
        if found is not None:
            return 1024 * int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def total_memory() -> int:
    """Return the memory of this machine, or of its container, in bytes."""
    if resource is None:
        import psutil  # noqa: PLC0415 - installed on Windows alone

        total: int = psutil.virtual_memory().total
        return total
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CONTAINER.read_text(encoding="utf-8").strip() if CONTAINER.exists() else "max"
    return min(machine, int(limit)) if limit.isdigit() else machine


def process_space() -> str:
    """Return what tells apart the numbers of processes: of one boot, and of one container."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return f"{boot.read_text(encoding='utf-8')} {space.stat().st_ino}" if boot.exists() and space.exists() else ""


def was_running(process: int, moment: float) -> bool:
    """Return whether the process of a number runs, and ran at a moment (seconds since 1970): numbers are used again."""
    if os.name == "nt":
        import psutil  # noqa: PLC0415 - installed on Windows alone

        return bool(psutil.pid_exists(process) and psutil.Process(process).create_time() <= moment + 1)
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it belongs to another user
        pass
    about = Path(f"/proc/{process}")
    try:
        return not about.exists() or about.stat().st_ctime <= moment + 1
    except OSError:  # it has just ended
        return False


def prepare_stream(stream: TextIO | None) -> None:
    """Make a stream accept any text: a pipe or file gets UTF-8, a terminal escapes for what its encoding lacks."""
    if not isinstance(stream, io.TextIOWrapper):
        return
    if stream.isatty():
        stream.reconfigure(errors="backslashreplace")
    else:
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def visible(text: str) -> str:
    """Return a text with control characters, such as those of terminals, as escapes."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
