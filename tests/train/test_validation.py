"""Validation ranks as evaluation does, with and without the items of the history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pytest

from adrec.config.adrec import Config
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.evaluate.protocol import evaluate
from adrec.models.network import NetworkScorer
from conftest import adrec_trainer, cyclic_table


@pytest.fixture
def repeating() -> Dataset:
    """Return data in which users come back to items, so that leaving seen ones out makes a difference."""
    table = cyclic_table(60, 8)
    return prepare(pl.concat([table, table.with_columns(pl.col("timestamp") + 20)]))


@pytest.mark.parametrize(("seen", "opposite"), [("keep", "leave-out"), ("leave-out", "keep"), ("data", "leave-out")])
def test_a_stage_validates_as_evaluation_ranks(
    tiny: Callable[..., Config], repeating: Dataset, seen: Any, opposite: Any
) -> None:
    rows: list[Mapping[str, Any]] = []
    config = tiny((0, 0, 3), finetune__seen=seen)
    split = leave_one_out(repeating)
    trainer = adrec_trainer(config, repeating, split, rows.append, seed=1)
    scorer = NetworkScorer(trainer.run(), 1)
    kept = [row["validation"] for row in rows if row.get("selected")][-1]
    expected = evaluate(scorer, repeating, split, "validation", seen=seen).metrics
    assert {name: kept[name] for name in expected if name in kept} == {
        name: pytest.approx(estimate.mean) for name, estimate in expected.items() if name in kept
    }
    other = evaluate(scorer, repeating, split, "validation", seen=opposite).metrics
    assert any(kept[name] != pytest.approx(estimate.mean) for name, estimate in other.items() if name in kept)
