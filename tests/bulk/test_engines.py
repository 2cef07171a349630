"""Spark and Ray Data on this machine: the same ids as the recommender's own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import command

HERE = {
    "spark": importlib.util.find_spec("pyspark") is not None and shutil.which("java") is not None,
    "ray": importlib.util.find_spec("ray") is not None,
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["spark", "ray"])
def test_an_engine_gives_the_same_ids(small_run: Path, tmp_path: Path, engine: str) -> None:
    if not HERE[engine]:
        pytest.skip(f"{engine} is not installed")
    arguments = ("recommend", str(small_run), "--k", "5", "--out")
    assert command.adrec(*arguments, tmp_path / "all.parquet").returncode == 0
    process = command.start(*arguments, str(tmp_path / engine), "--engine", engine)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    parts = [pl.read_parquet(path) for path in (tmp_path / engine).glob("*.parquet")]
    columns = ["user_id", "item_id", "rank", "source"]
    found = pl.concat(parts).select(columns).sort("user_id", "rank")
    expected = pl.read_parquet(tmp_path / "all.parquet").select(columns).cast({"rank": pl.Int32})
    assert found.equals(expected.sort("user_id", "rank"))


@pytest.mark.parametrize("engine", ["spark", "ray"])
def test_an_engine_that_is_not_installed_is_one_sentence(small_run: Path, tmp_path: Path, engine: str) -> None:
    module = {"spark": "pyspark", "ray": "ray"}[engine]
    code = f"import sys; sys.modules[{module!r}] = None; from adrec.cli import main; main()"
    arguments = ["recommend", str(small_run), "--out", str(tmp_path / "out"), "--engine", engine]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"install adrec[{engine}]" in done.stderr and "Traceback" not in done.stderr, done.stderr
