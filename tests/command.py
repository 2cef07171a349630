"""Running the command line as users do: as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TRAIN_FAST = [
    *("--preset", "paper"),
    *("--set", "hidden_size=16", "--set", "num_heads=2", "--set", "max_length=8", "--set", "num_train_timesteps=4"),
    *("--set", "num_inference_steps=2", "--set", "batch_size=16", "--threads", "1"),
]


def start(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start ``adrec`` with the arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", "adrec", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def adrec(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``adrec`` with the arguments to its end."""
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=900)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


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
