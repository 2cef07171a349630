"""A real PostgreSQL server for tests: its own cluster, on a socket in a folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
POSTGRES = next((place for place in PLACES if (place / "initdb").exists()), None)


def _user() -> dict[str, str | int]:
    """Return who runs the server: it refuses to run as root."""
    return {"user": "postgres", "group": "postgres"} if hasattr(os, "geteuid") and os.geteuid() == 0 else {}


@contextmanager
def postgres(_: Path) -> Iterator[str]:
    """Yield the URL of a new database."""
    assert POSTGRES is not None
    folder = Path(tempfile.mkdtemp(prefix="adrec-pg-"))  # a socket's path must be short, and postgres must reach it
    try:
        if _user():
            shutil.chown(folder, "postgres", "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = folder / "data"
        subprocess.run(
            [POSTGRES / "initdb", "-D", data, "-U", "adrec", "-A", "trust", "--no-sync"],
            check=True, capture_output=True, cwd=folder, **_user(),  # type: ignore[call-overload]
        )  # fmt: skip
        server = subprocess.Popen(
            [POSTGRES / "postgres", "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **_user(),  # type: ignore[call-overload]
        )  # fmt: skip
        try:
            subprocess.run(
                [POSTGRES / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "30"],
                capture_output=True,
                check=False,
            )
            for _attempt in range(100):
                made = subprocess.run(
                    [POSTGRES / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "adrec", "shop"],
                    capture_output=True, check=False,
                )  # fmt: skip
                if made.returncode == 0:
                    break
            else:
                raise AssertionError(made.stderr.decode())
            yield f"postgresql://adrec@127.0.0.1:{port}/shop"
        finally:
            server.terminate()
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
