"""The estimate grows with the work, and measuring it changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from adrec.config.adrec import Config
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out, no_split
from adrec.train.checkpoint import Snapshot
from adrec.train.cost import duration, estimate
from conftest import adrec_trainer, same

Make = Callable[..., Config]


def test_estimating_changes_neither_the_trainer_nor_global_generators(
    tiny: Make, dataset: Dataset, device: torch.device
) -> None:
    first = adrec_trainer(tiny(), dataset, leave_one_out(dataset), seed=1, device=device)
    state = torch.random.get_rng_state()
    cost = estimate([first])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert cost.may_stop_early
    assert set(cost.stages) == {"pretrain", "align", "finetune"}
    assert cost.total >= sum(stage.epoch for stage in cost.stages.values())
    undisturbed = adrec_trainer(tiny(), dataset, leave_one_out(dataset), seed=1, device=device).run()
    assert same(first.run(), undisturbed)


def test_the_sentence(tiny: Make, dataset: Dataset, device: torch.device) -> None:
    trainer = adrec_trainer(tiny((3, 0, 4)), dataset, no_split(dataset), seed=1, device=device)
    sentence = estimate([trainer]).sentence()
    assert " in all: " in sentence
    assert "pretrain 3 x" in sentence
    assert "align" not in sentence
    assert "finetune 4 x" in sentence


def test_of_a_run_that_goes_on_only_what_is_left_is_estimated(
    tiny: Make, dataset: Dataset, device: torch.device
) -> None:
    changes = {"finetune__first_evaluation": 2, "finetune__evaluate_every": 3, "finetune__patience": 0}
    config = tiny((2, 1, 6), **changes, pretrain__first_evaluation=1, pretrain__patience=0)
    snapshots: list[Snapshot] = []
    whole = adrec_trainer(
        *(config, dataset, leave_one_out(dataset)), seed=1, device=device, on_epoch=lambda _: snapshots.append(take())
    )
    take = whole.snapshot
    first = {name: stage.epochs for name, stage in estimate([whole]).stages.items()}
    assert first == {"pretrain": 2, "align": 1, "finetune": 6}
    whole.run()
    left = []
    for snapshot in snapshots:  # behind every epoch, as a run keeps them
        again = adrec_trainer(config, dataset, leave_one_out(dataset), seed=1, device=device)
        again.restore(snapshot)
        left.append({name: stage.epochs for name, stage in estimate([again]).stages.items()})
    assert left[0] == {"pretrain": 1, "align": 1, "finetune": 6}
    assert left[1] == {"align": 1, "finetune": 6} and left[2] == {"finetune": 6}
    assert [each.get("finetune", 0) for each in left[3:]] == [5, 4, 3, 2, 1, 0] and left[-1] == {}
    again.restore(snapshots[4])  # validated behind epochs 2 and 5, and behind 6, the last
    stage = estimate([again]).stages["finetune"]
    assert stage.total == pytest.approx(4 * stage.epoch + 2 * stage.validation)
    assert "finetune 4 x" in (sentence := estimate([again]).sentence()) and "at most" not in sentence


def test_nothing_is_left_where_patience_has_run_out(tiny: Make, dataset: Dataset, device: torch.device) -> None:
    changes = {"finetune__first_evaluation": 1, "finetune__evaluate_every": 1, "finetune__patience": 1}
    trainer = adrec_trainer(tiny((0, 0, 50), **changes), dataset, leave_one_out(dataset), seed=1, device=device)
    trainer.progress.epoch, trainer.progress.stale = 7, 0
    assert [(name, done) for name, _, done in trainer.left()] == [("finetune", 7)]
    trainer.progress.stale = 1
    assert trainer.left() == [] and estimate([trainer]).stages == {}


@pytest.mark.parametrize(("seconds", "text"), [(0.01, "under 0.1 s"), (3.14, "3.1 s"), (240, "4 min"), (9000, "2.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
