"""The demo, whole, as `make demo` runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from command import adrec, refused


@pytest.mark.slow
def test_the_demo_trains_compares_and_recommends_by_title(tmp_path: Path) -> None:
    result = adrec("demo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for part in ("100,004 MovieLens ratings by 671 people", "Recommended next:", "adrec similar"):
        assert part in result.stdout
    for row in ("after pretrain", "after align", "after finetune", "end to end", "popular", "itemknn", "cam", "adrec"):
        assert re.search(rf"│ {row} +│", result.stdout), f"a row of a table for {row}"
    assert "32 steps left" in result.stdout and "denoised" in result.stdout
    assert (tmp_path / "adrec-demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert len(re.findall(r"\(\d{4}\)", result.stdout.partition("Recommended next:")[2])) >= 8, "films by title"
    run = tmp_path / "adrec-demo" / "run"
    assert json.loads((run / "run.json").read_text())["finished"]
    answer = adrec("recommend", run, "--given", "318", "--given", "296", "--format", "csv")
    assert pl.read_csv(answer.stdout.encode()).height == 10
    assert adrec("recommend", run, "--user", "1").returncode == 0


def test_the_demo_replaces_nothing_but_an_earlier_demo(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    assert "not an earlier demo" in refused("demo", "--out", tmp_path / "mine")
    assert (tmp_path / "mine" / "letter").read_text() == "dear"
