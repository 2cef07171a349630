"""The ways of training against a large catalogue that a plan compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adrec.cli import planning
from adrec.models.factory import make_model
from conftest import SMALL

NEXT_ITEM = {
    f"{stage}.{key}": value
    for stage in ("align", "finetune")
    for key, value in (("consistency", 0.0), ("future_items", 1))
}


@pytest.mark.parametrize(
    ("preset", "changes", "ways"),
    [
        ("default", {}, 4),
        ("large", {"finetune.rows.draw": "uniform"}, 4),
        ("fast", {"finetune.buckets": True, "finetune.consistency": 0.0, "finetune.future_items": 1}, 4),
        ("default", {"align.buckets": True, **NEXT_ITEM}, 4),
        ("default", {"align.loss": "mse", "finetune.loss": "mse", **NEXT_ITEM}, 0),  # no softmax
    ],
    ids=str,
)
def test_a_plan_compares_the_ways(
    small_run: Path, monkeypatch: pytest.MonkeyPatch, preset: str, changes: dict[str, Any], ways: int
) -> None:
    monkeypatch.setattr(planning, "LARGE", 5)
    made = planning.plan(small_run.parent / "data", make_model("adrec", preset, {**SMALL, **changes}), device="cpu")
    assert len(made.ways) == ways and all(seconds > 0 for seconds in made.ways.values())


def test_few_items_have_one_way(small_run: Path) -> None:
    assert not planning.plan(small_run.parent / "data", make_model("adrec", "fast", SMALL), device="cpu").ways
