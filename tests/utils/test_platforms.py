"""Other operating systems: without POSIX modules, with other encodings, and terminals that obey escapes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from adrec.utils import platforms
from adrec.utils.folders import atomic_folder, recover
from adrec.utils.platforms import visible
from command import adrec

WITHOUT = "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None; "


def test_everything_can_be_imported_without_posix_modules() -> None:
    code = WITHOUT + "import adrec.cli.workflow, adrec.cli.demo, adrec.train.plan; from adrec import ADRec"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_folders_are_written_without_a_lock_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "fcntl", None)
    for text in ("first", "second"):
        with atomic_folder(tmp_path / "out", overwrite="dataset.json") as folder:
            (folder / "dataset.json").write_text(text)
    recover(tmp_path / "out")
    assert (tmp_path / "out" / "dataset.json").read_text() == "second"


def test_peak_memory_is_that_of_this_process() -> None:
    code = (
        "import os; from adrec.utils import platforms; before = platforms.peak_memory(); "
        "held = bytearray(os.urandom(1 << 20) * 64); print(before, platforms.peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before + (1 << 25) < after < 1 << 40


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_ids_of_any_alphabet_are_written_whatever_the_encoding(tmp_path: Path, encoding: str) -> None:
    pl.DataFrame({"user": ["Анна"] * 3, "item": ["чай", "хлеб", "сыр"], "time": [1, 2, 3]}).write_csv(
        tmp_path / "r.csv"
    )
    assert adrec("prepare", "r.csv", "--out", "data", cwd=tmp_path).returncode == 0
    assert adrec("train", "data", "--out", "run", "--model", "popular", cwd=tmp_path).returncode == 0
    command = [sys.executable, "-m", "adrec", "recommend", "run", "--seen", "keep", "--format", "csv"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Анна,чай" in done.stdout.decode("utf-8")


def test_escapes_of_terminals_are_shown_not_obeyed(tmp_path: Path) -> None:
    assert visible("a\x1b[31mb\u202ec\n") == "a\\x1b[31mb\\u202ec\\n"
    assert visible("Анна ü🎬 =1+2") == "Анна ü🎬 =1+2"
    rows = {"user": ["a"] * 3, "item": ["\x1b[31mred", "=1+2", "plain"], "time": [1, 2, 3]}
    pl.DataFrame(rows).write_parquet(tmp_path / "r.parquet")
    assert adrec("prepare", "r.parquet", "--out", "data", cwd=tmp_path).returncode == 0
    assert adrec("train", "data", "--out", "run", "--model", "popular", cwd=tmp_path).returncode == 0
    shown = adrec("recommend", "run", "--seen", "keep", cwd=tmp_path)
    assert "\x1b[31m" not in shown.stdout and "\\x1b[31mred" in shown.stdout


def test_formulas_in_csv(tmp_path: Path) -> None:
    rows = {"user": ["a"] * 4, "item": ["=1+2", "@sum", "-x", "plain"], "time": [1, 2, 3, 4]}
    pl.DataFrame(rows).write_csv(tmp_path / "r.csv")
    assert adrec("prepare", "r.csv", "--out", "data", cwd=tmp_path).returncode == 0
    assert adrec("train", "data", "--out", "run", "--model", "popular", cwd=tmp_path).returncode == 0
    common = ("recommend", "run", "--seen", "keep")
    plain, safe = (adrec(*common, "--format", "csv", *more, cwd=tmp_path) for more in ((), ("--safe-csv",)))
    assert set(pl.read_csv(plain.stdout.encode())["item"]) == {"=1+2", "@sum", "-x", "plain"}
    assert set(pl.read_csv(safe.stdout.encode())["item"]) == {"'=1+2", "'@sum", "'-x", "plain"}
    refused = adrec(*common, "--out", "r.parquet", "--safe-csv", cwd=tmp_path)
    assert refused.returncode == 2 and "--safe-csv is about CSV" in refused.stderr
