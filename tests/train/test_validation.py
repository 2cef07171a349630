"""Validation ranks as evaluation does, with and without the items of the history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from adrec.config.adrec import Config
from adrec.config.catalogue import BucketsConfig, RowsConfig
from adrec.config.stage import StageConfig
from adrec.config.stages import ADRecStageConfig, CatalogueStageConfig
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.sequences import Sequences
from adrec.data.split import leave_one_out
from adrec.evaluate.protocol import evaluate
from adrec.models.network import NetworkScorer
from adrec.train.validation import SAMPLED, Validation, users_to_validate
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


def stage_of(**changes: Any) -> CatalogueStageConfig:
    return replace(ADRecStageConfig(loss="ce", optimizer="adamw"), **changes)


def sequences_of(num_tokens: int) -> Sequences:
    ends = np.arange(2, num_tokens * 2 + 1, 2)  # two interactions each: a token
    return Sequences(np.ones(2 * num_tokens, dtype=np.int32), ends - 2, ends, 50)


@pytest.mark.parametrize(
    ("asked", "users", "items", "stage", "tokens", "expected"),
    [
        (None, 10_000, 100_000, stage_of(), 10_000, None),  # 10^9 scores are always computed
        (None, 200_000, 100_000, stage_of(), 2_000_000, None),  # 2 x 10^10 scores, 6 x 10^11 logits an epoch
        (None, 200_000, 100_000, stage_of(), 200_000, SAMPLED),
        (None, 700_000, 100_000, stage_of(), 2_000_000, SAMPLED),
        (None, 700_000, 100_000, stage_of(consistency=1.0), 2_000_000, None),  # two passes
        (None, 200_000, 100_000, stage_of(negatives=1000), 200_000, SAMPLED),
        (None, 200_000, 100_000, stage_of(rows=RowsConfig()), 200_000, SAMPLED),
        (None, 200_000, 100_000, stage_of(buckets=BucketsConfig()), 200_000, SAMPLED),
        (500, 700, 100, stage_of(), 700, 500),
    ],
)
def test_users_are_drawn_where_all_would_cost_too_much(
    asked: int | None, users: int, items: int, stage: StageConfig, tokens: int, expected: int | None
) -> None:
    assert users_to_validate(asked, users, items, stage, sequences_of(tokens), 100) == expected


def test_the_drawn_users_are_those_of_the_seed(dataset: Dataset) -> None:
    split, stages = leave_one_out(dataset), [stage_of()]
    first, again, other, whole = (
        Validation(dataset, split, seed, stages, limit) for seed, limit in ((1, 20), (1, 20), (2, 20), (1, 10**6))
    )
    assert first.drawn == 20 and len(np.unique(first.users)) == 20
    assert np.array_equal(first.users, again.users) and not np.array_equal(first.users, other.users)
    assert whole.drawn is None and set(first.users.tolist()) < set(whole.users.tolist())


def test_the_row_of_an_epoch_names_the_drawn_users(tiny: Callable[..., Config], dataset: Dataset) -> None:
    rows: list[Mapping[str, Any]] = []
    for limit in (20, None):
        adrec_trainer(tiny((0, 0, 2)), dataset, leave_one_out(dataset), rows.append, seed=1, validate_users=limit).run()
    named = [row.get("validation_users") for row in rows if "validation" in row]
    assert named == [20] * (len(named) // 2) + [None] * (len(named) // 2) and named
