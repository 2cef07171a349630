"""Spark and Ray Data on this machine: the same ids as the recommender's own."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import command
from conftest import cyclic_table

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
    expected = pl.read_parquet(tmp_path / "all.parquet").select(columns)
    assert found.equals(expected.sort("user_id", "rank"))


@pytest.mark.parametrize("engine", ["spark", pytest.param("ray", marks=pytest.mark.slow)])
def test_an_engine_that_is_not_installed_is_one_sentence(small_run: Path, tmp_path: Path, engine: str) -> None:
    module = {"spark": "pyspark", "ray": "ray"}[engine]
    code = f"import sys; sys.modules[{module!r}] = None; from adrec.cli import main; main()"
    arguments = ["recommend", str(small_run), "--out", str(tmp_path / "out"), "--engine", engine]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"install adrec[{engine}]" in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
def test_spark_prepares_the_same_data_set(tmp_path: Path) -> None:
    if not HERE["spark"]:
        pytest.skip("spark is not installed")
    table = cyclic_table(num_users=50).with_columns(timestamp=pl.int_range(pl.len()), more=pl.lit("x"))
    (tmp_path / "shop").mkdir()
    table.write_parquet(tmp_path / "shop" / "part.parquet")
    for engine in ("local", "spark"):
        arguments = ["prepare", str(tmp_path / "shop"), "--time-unit", "s", "--engine", engine]
        process = command.start(*arguments, "--out", str(tmp_path / engine), "--name", "shop")
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    for name in ("items.npy", "offsets.npy", "times.npy"):
        found, expected = (np.load(tmp_path / engine / name) for engine in ("spark", "local"))
        assert found.dtype == expected.dtype and np.array_equal(found, expected)
    for name in ("users.parquet", "items.parquet"):
        assert pl.read_parquet(tmp_path / "spark" / name).equals(pl.read_parquet(tmp_path / "local" / name))
    fingerprints = {
        json.loads((tmp_path / each / "dataset.json").read_text())["fingerprint"] for each in ("local", "spark")
    }
    assert len(fingerprints) == 1
    process = command.start("prepare", "no_such_table", "--engine", "spark", "--out", str(tmp_path / "x"))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2 and "Spark cannot read no_such_table" in said and "Traceback" not in said, said
