"""A real server for tests: a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from command import start


def started(run: Path, *options: str | Path) -> tuple[subprocess.Popen[str], httpx.Client]:
    """Start ``adrec serve`` with a run; return its process, and a client once it is ready."""
    process = start("serve", run, "--port", "0", *options)
    lines: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"at (http://[^;]+);", line):
            break
    else:
        raise AssertionError("".join(lines))
    return process, httpx.Client(base_url=found[1], timeout=30, trust_env=False)


@contextmanager
def serving(run: Path, *options: str | Path) -> Iterator[httpx.Client]:
    """Yield a client of ``adrec serve`` with a run; the server ends with SIGTERM, and must end well."""
    process, client = started(run, *options)
    lines: list[str] = []
    rest = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    rest.start()
    try:
        with client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        rest.join(timeout=5)
    assert process.returncode == 0, "".join(lines)
    assert "Traceback" not in "".join(lines), "".join(lines)


def ended(process: subprocess.Popen[str]) -> int:
    """Return the exit code of a process that ends by itself."""
    process.communicate(timeout=60)
    return process.returncode
