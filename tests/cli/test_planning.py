"""The ways of training against a large catalogue that a plan compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adrec.cli import planning
from adrec.config.adrec import preset
from adrec.models.factory import make_model
from conftest import SMALL

NEXT_ITEM = {
    f"{stage}.{key}": value
    for stage in ("align", "finetune")
    for key, value in (("consistency", 0.0), ("future_items", 1))
}


@pytest.mark.parametrize(
    ("name", "changes", "ways"),
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
    small_run: Path, monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, Any], ways: int
) -> None:
    monkeypatch.setattr(planning, "LARGE", 5)
    made = planning.plan(small_run.parent / "data", make_model("adrec", name, {**SMALL, **changes}), device="cpu")
    assert len(made.ways) == ways and all(way.epoch > 0 for way in made.ways.values())


@pytest.mark.parametrize(
    ("preset_name", "changes", "left_out"),
    [
        ("default", {}, ()),
        ("large", {}, ()),
        ("fast", {"finetune.optimizer": "adam"}, ("rows",)),
        ("paper", {}, ("rows",)),
        ("default", {"align.loss": "mse", "align.consistency": 0.0, "align.future_items": 1}, ("rows",)),
    ],
    ids=str,
)
def test_a_way_is_what_its_label_says(preset_name: str, changes: dict[str, Any], left_out: tuple[str, ...]) -> None:
    found = {}
    asked = preset(preset_name, changes)
    for words, config, given in planning.configurations(asked):
        assert asked.changed(given) == config and (not given) == (config == asked)
        stage = list(config.stages.values())[-1]
        kind = "rows" if stage.rows else "buckets" if stage.buckets else f"{stage.negatives} drawn"
        found[kind] = words
    assert {*found, *left_out} == {"0 drawn", "1000 drawn", "rows", "buckets"} and not {*found} & {*left_out}
    assert "whole softmax" in found["0 drawn"] and "buckets" in found["buckets"]
    drawn = 2000 if preset_name == "large" else 1000
    assert "rows" in left_out or f"{drawn:,} drawn items, only their rows" in found["rows"]


def test_few_items_have_one_way(small_run: Path) -> None:
    assert not planning.plan(small_run.parent / "data", make_model("adrec", "fast", SMALL), device="cpu").ways
