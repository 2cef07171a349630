"""Training of only the rows that a step meets: equal to dense training where it meets all, and caught up otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from adrec.config.adrec import Config, preset
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.train.lazy import RowTable
from adrec.train.loop import Trainer
from adrec.utils.errors import ConfigError
from conftest import SMALL, OnEpoch, adrec_trainer, same, trained_and_resumed

ROWS = {
    **SMALL,
    "model.dropout": 0.0,
    "model.embedding_dropout": 0.0,
    "align.embedding": "frozen",
    "align.epochs": 1,
    "finetune.epochs": 3,
    "finetune.averaging": 0.9,
    "align.consistency": 0.0,
    "finetune.consistency": 0.0,
    "batch_size": 1000,
}
ON = {
    f"{stage}.{key}": value
    for stage in ("align", "finetune")
    for key, value in (("rows.draw", "uniform"), ("rows.drawn", 500))
}


def config(**changes: Any) -> Config:
    given = {**ROWS, "align.rows": True, "finetune.rows": True, **ON, **changes}
    return preset("default", {key: value for key, value in given.items() if value is not None})


def test_equal_to_dense_training_if_every_step_meets_every_row(dataset: Dataset) -> None:
    kept: dict[str, list[dict[str, torch.Tensor]]] = {"dense": [], "rows": []}
    still = {"model.diffusion": False}  # noise is drawn from the generator that draws rows too
    for name, settings in (("dense", preset("default", {**ROWS, **still})), ("rows", config(**still))):
        losses = kept[name]
        made = adrec_trainer(settings, dataset, leave_one_out(dataset), seed=1)

        def keep(_: object, made: Trainer = made, to: list[dict[str, torch.Tensor]] = losses) -> None:
            assert made.network is not None
            to.append({**made.network.state_dict(), **{f"average/{k}": v for k, v in made.weights.average.items()}})
            to[-1] = {key: value.clone() for key, value in to[-1].items()}

        made.callbacks.append(OnEpoch(keep))
        made.run()
    assert len(kept["dense"]) == len(kept["rows"]) == 4
    for dense, rows in zip(kept["dense"], kept["rows"], strict=True):
        assert dense.keys() == rows.keys()
        for key, value in dense.items():
            if "value.bias" in key:  # the keys' bias has a gradient of rounding alone, which Adam scales up
                continue
            torch.testing.assert_close(rows[key], value, rtol=2e-4, atol=2e-6, msg=key)
    assert not torch.equal(kept["rows"][1]["item_embedding.weight"], kept["rows"][3]["item_embedding.weight"])


def table(rows: int, size: int, *, decay: float = 0.3, **changes: Any) -> RowTable:
    weight = torch.randn(rows, size, generator=torch.Generator().manual_seed(0))
    stage = replace(config(**{f"finetune.{k}": v for k, v in changes.items()}).finetune, weight_decay=decay)  # type: ignore[type-var]
    made = RowTable.of(weight, stage)  # type: ignore[arg-type]
    made.start_average(weight.clone())
    return made


def steps(rows: int, size: int, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, float, float]]:
    rng = torch.Generator().manual_seed(2)
    for step in range(number):
        items = torch.randperm(rows, generator=rng)[: rows // 2].sort().values
        yield items, torch.randn(len(items), size, generator=rng), 1e-2 / (1 + step), max(0.1, 9 / (11 + step))


def test_a_slow_oracle_of_each_row() -> None:
    """Each row alone: AdamW over its own steps, weight decay and average over all steps."""
    made = table(9, 4)
    zeros, average = torch.zeros(4).double(), made.weight.clone().double()
    state: list[dict[str, Any]] = [{"w": row, "m": zeros, "v": zeros, "n": 0} for row in average.clone()]
    for items, gradient, rate, share in steps(9, 4, 25):
        made.update(items, gradient, rate, share)
        for row in range(9):
            own = state[row]
            if row not in items:
                continue
            own["n"] += 1
            g = gradient[items == row][0].double()
            own["m"] = 0.9 * own["m"] + 0.1 * g
            own["v"] = made.beta2 * own["v"] + (1 - made.beta2) * g * g
            root = (own["v"] / (1 - made.beta2 ** own["n"])).sqrt() + 1e-8
            own["step"] = rate * own["m"] / (1 - 0.9 ** own["n"]) / root
        for row in range(9):
            state[row]["w"] = state[row]["w"] * (1 - rate * 0.3) - state[row].pop("step", 0)
    made.catch_up()
    expected = torch.stack([each["w"] for each in state])
    torch.testing.assert_close(made.weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(average, made.average.double())  # type: ignore[union-attr]


def test_the_average_of_a_row_that_is_not_met_follows_its_weights() -> None:
    made, whole = table(9, 4, decay=0.0), table(9, 4, decay=0.0)
    average = made.weight.clone().double()
    for items, gradient, rate, share in steps(9, 4, 40):
        made.update(items, gradient, rate, share)
        average.lerp_(made.weight.double(), share)
    made.catch_up()
    torch.testing.assert_close(made.average.double(), average, rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]
    before = made.average.clone(), made.weight.clone()  # type: ignore[union-attr]
    made.catch_up()
    assert torch.equal(before[0], made.average) and torch.equal(before[1], made.weight)  # type: ignore[arg-type]
    assert not torch.equal(whole.weight, made.weight)


def test_an_unusable_step_moves_only_the_average() -> None:
    made = table(4, 3)
    before = made.weight.clone()
    made.update(torch.arange(4), None, 0.1, 0.5)
    made.catch_up()
    assert torch.equal(made.weight, before) and made.totals == [0.0, math.log(0.5)]


def test_moments_in_bfloat16_are_near() -> None:
    exact, low = table(9, 4), table(9, 4, **{"rows.moments": "bfloat16"})
    for each in steps(9, 4, 30):
        exact.update(*each)
        low.update(*each)
    assert low.first.dtype == torch.bfloat16 and low.first.nbytes * 2 == exact.first.nbytes
    moved = (exact.weight - table(9, 4).weight).norm()
    assert (exact.weight - low.weight).norm() < 0.02 * moved


NO_ROWS = {"": False, ".draw": None, ".drawn": None}
GBCE = {"finetune.rows.sampled_loss": "gbce", "finetune.future_items": 1}
CASES: list[dict[str, Any]] = [
    {},
    {"finetune.rows.draw": "mixed", "align.rows.draw": "popularity", "finetune.rows.drawn": 3, "batch_size": 8},
    {"finetune.rows.draw": "batch", "finetune.rows.drawn": None, "batch_size": 8, "finetune.rows.moments": "bfloat16"},
    {**GBCE, "finetune.rows.drawn": 4, "batch_size": 8},
]


@pytest.mark.parametrize(
    "changes", [CASES[0], *(pytest.param(each, marks=pytest.mark.slow) for each in CASES[1:])], ids=str
)
def test_resuming_after_any_epoch_gives_the_same_bits(dataset: Dataset, changes: dict[str, Any]) -> None:
    settings = config(**{"model.dropout": 0.1, "finetune.consistency": 0.0, **changes})
    expected, resumed = trained_and_resumed(settings, dataset)
    assert len(resumed) >= 3 and all(same(each, expected) for each in resumed)


@pytest.mark.slow
@pytest.mark.parametrize("changes", CASES[1:], ids=str)
def test_it_learns(dataset: Dataset, changes: dict[str, Any]) -> None:
    """Cyclic sequences are predicted after some epochs with few negatives."""
    settings = config(**{"finetune.epochs": 60, "finetune.averaging": 0.0, "finetune.patience": 50, **changes})
    rows: list[Any] = []
    adrec_trainer(settings, dataset, leave_one_out(dataset), seed=1, callbacks=[OnEpoch(rows.append)]).run()
    assert rows[-1]["validation"]["ndcg@20"] > 0.9, "a random order of 12 items has 0.42"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finetune.rows.drawn": 0}, "rows.drawn must be at least 1"),
        ({"finetune.rows.draw": "batch"}, "which draws nothing"),
        ({"finetune.negatives": 5}, "rows.drawn is the number"),
        ({"finetune.optimizer": "adam", "align.optimizer": "adam"}, "trained by AdamW"),
        ({"align.embedding": "decaying"}, "decaying embedding"),
        (
            {"align.rows": False, "align.rows.draw": None, "align.rows.drawn": None},
            "set finetune.rows and align.rows, or neither",
        ),
        ({"finetune.rows.sampled_loss": "gbce"}, "future_items are the softmax's"),
        (
            {"finetune.rows.sampled_loss": "gbce", "finetune.future_items": 1, "finetune.consistency": 1.0},
            "two passes'",
        ),
        ({"finetune.rows.calibration": 0.5}, "sampled_loss is the softmax"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**changes)


def test_a_configuration_without_rows_is_written_as_before() -> None:
    written = preset("default").to_dict()
    assert "rows" not in written["finetune"] and "rows" not in written["align"]
    assert Config.from_dict(config().to_dict()) == config()
    assert np.isclose(config().finetune.rows.calibration, 0.75)  # type: ignore[union-attr]
