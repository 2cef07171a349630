"""The estimate grows with the work, and measuring it changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from adrec.config import Config
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out, no_split
from adrec.train.cost import duration, estimate
from adrec.train.loop import Trainer
from conftest import same

Make = Callable[..., Config]


def test_estimating_changes_neither_the_trainer_nor_global_generators(
    tiny: Make, dataset: Dataset, device: torch.device
) -> None:
    first = Trainer(tiny(), dataset, leave_one_out(dataset), seed=1, device=device)
    state = torch.random.get_rng_state()
    cost = estimate(first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert cost.may_stop_early
    assert set(cost.stages) == {"pretrain", "align", "finetune"}
    assert cost.total >= sum(stage.epoch for stage in cost.stages.values())
    undisturbed = Trainer(tiny(), dataset, leave_one_out(dataset), seed=1, device=device).run()
    assert same(first.run(), undisturbed)


def test_the_sentence(tiny: Make, dataset: Dataset, device: torch.device) -> None:
    trainer = Trainer(tiny((3, 0, 4)), dataset, no_split(dataset), seed=1, device=device)
    sentence = estimate(trainer).sentence()
    assert " in all: " in sentence
    assert "pretrain 3 x" in sentence
    assert "align" not in sentence
    assert "finetune 4 x" in sentence


def test_of_a_run_that_goes_on_only_what_is_left_is_estimated(
    tiny: Make, dataset: Dataset, device: torch.device
) -> None:
    config = tiny((3, 1, 10), finetune__first_evaluation=4, finetune__evaluate_every=3, finetune__patience=0)
    trainer = Trainer(config, dataset, leave_one_out(dataset), seed=1, device=device)
    whole = estimate(trainer)
    assert [stage.epochs for stage in whole.stages.values()] == [3, 1, 10]
    trainer.place.stage, trainer.place.epoch = 2, 6
    left = estimate(trainer)
    assert "finetune 4 x" in left.sentence() and "pretrain" not in left.sentence() and "at most" not in left.sentence()
    stage = left.stages["finetune"]  # validated behind its epochs 4, 7 and 10
    assert stage.total == pytest.approx(4 * stage.epoch + 2 * stage.validation)
    trainer.place.stage, trainer.place.epoch = 1, 0
    assert [(name, stage.epochs) for name, stage in estimate(trainer).stages.items()] == [
        ("align", 1),
        ("finetune", 10),
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0.01, "under 0.1 s"), (3.14, "3.1 s"), (240, "4 min"), (9000, "2.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
