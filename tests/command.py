"""Running the command line as users do: as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest.mock import patch

SMALL = [
    *("--set", "hidden_size=16", "--set", "num_heads=2", "--set", "max_length=8"),
    *("--set", "batch_size=16", "--threads", "1"),
]
TRAIN_FAST = [*SMALL, *("--preset", "paper", "--set", "num_train_timesteps=4", "--set", "num_inference_steps=2")]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
WAIT = 900  # seconds
# What takes longest to import. The threads that Polars and its allocator start are lost in a fork, which does without.
PRELOADED = [
    "torch",
    "polars",
    "scipy.stats",
    "adrec.cli.app",
    "adrec.api.model",
    "adrec.models.registry",
    "adrec.bench.results",
]


def start(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start ``adrec`` with the arguments, in a new interpreter."""
    return subprocess.Popen(
        [sys.executable, "-m", "adrec", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def adrec(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``adrec`` with the arguments to its end.

    Its process is a fork of one that has imported PyTorch already, which would take longer than most commands do.
    """
    return Running(arguments, cwd).wait()


class Running:
    """A fork that is ``adrec`` with some arguments.

    Args:
        arguments: the arguments.
        cwd: its working directory.
        before: is called first in the fork, before the command begins; it must be importable.
    """

    def __init__(
        self, arguments: Sequence[str | Path], cwd: Path | None = None, before: Callable[[], None] | None = None
    ) -> None:
        self.words = [str(each) for each in arguments]
        self.folder = tempfile.TemporaryDirectory()
        self.out, self.err = (Path(self.folder.name) / name for name in ("out", "err"))
        given = (self.words, cwd or Path.cwd(), dict(os.environ), self.out, self.err, before)
        self.process = _server().Process(target=_main, args=given)
        self.process.start()

    def wait(self, seconds: float = WAIT) -> subprocess.CompletedProcess[str]:
        """Return what it did, once it has ended."""
        process = self.process
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"adrec {' '.join(self.words)} has taken {seconds} s.")
        assert process.exitcode is not None
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in (self.out, self.err)]
        self.folder.cleanup()
        return subprocess.CompletedProcess(self.words, process.exitcode, *texts)


@cache
def _server() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with patch.dict(os.environ, ENVIRONMENT):  # which PyTorch reads when it is imported
        process = context.Process(target=int)
        process.start()
        process.join()
    return context


def _main(
    words: list[str],
    cwd: Path,
    environment: Mapping[str, str],
    out: Path,
    err: Path,
    before: Callable[[], None] | None = None,
) -> None:
    """Be ``adrec`` in ``cwd``, its output in the files ``out`` and ``err``."""
    for file, stream in ((out, sys.stdout), (err, sys.stderr)):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, stream.fileno())
    os.environ.clear()
    os.environ.update({**environment, **ENVIRONMENT})
    os.chdir(cwd)
    sys.argv = ["adrec", *words]
    from adrec.cli import main

    if before is not None:
        before()
    main()


def refused(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run ``adrec``, check that it refuses in one sentence, and return the sentence."""
    result = adrec(*arguments, cwd=cwd)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("adrec: error: ")
    assert lines[0].endswith(".")
    return lines[0].removeprefix("adrec: error: ")
