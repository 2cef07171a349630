"""A training that diverges skips the step, goes back to its last snapshot, or ends with its best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.models.adrec import ADRecModel
from adrec.runs.fit import fit, make_trainers
from adrec.runs.folder import Run
from adrec.runs.info import RunInfo
from adrec.train.callbacks import Callback
from adrec.train.cost import estimate
from adrec.train.divergence import IN_A_ROW, DivergedError, Watch, update
from adrec.train.loop import Trainer
from adrec.train.step import Step
from adrec.utils.errors import RunError
from conftest import same, tiny_changes

CHANGES = {"finetune.patience": 0, "batch_size": 16, "finetune.evaluate_every": 1, "finetune.first_evaluation": 1}


def judged(watch: Watch, loss: float, gradient: float) -> bool:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), gradient)
    return bool(watch.judge({"ce": torch.tensor(loss)}, [weight, nn.Parameter(torch.ones(1))]))


def test_what_is_unusable() -> None:
    watch = Watch(1000, torch.device("cpu"), None)
    assert judged(watch, math.nan, 1.0)
    assert not judged(watch, 8.0, 1.0)
    assert watch.limit == 80.0
    assert [judged(watch, *each) for each in ((79.0, 1.0), (81.0, 1.0), (7.0, math.inf), (math.inf, 1.0))] == [
        *(False, True, True, True)
    ]
    assert int(watch.skipped) == 4
    with pytest.raises(DivergedError):
        watch.check()
    assert Watch(1000, torch.device("cpu"), 2.0).limit == pytest.approx(10 * math.log(1001)), "what chance has"


def test_an_unusable_step_changes_nothing() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.5, fused=True)
    weight.grad = torch.full((3,), math.nan)
    update(optimizer, torch.tensor(True))
    assert torch.equal(weight, torch.ones(3)) and not optimizer.state
    weight.grad = torch.ones(3)
    update(optimizer, torch.tensor(False))
    assert not torch.equal(weight, torch.ones(3))


class Spoil(Callback):
    """Makes the losses of some steps useless, each time that they are computed or the first time alone."""

    def __init__(self, steps: range, times: int, by: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.steps, self.times, self.by, self.count, self.told = steps, times, by, 0, list[str]()
        self.stage = ""  # all stages

    def spoil(self, patch: pytest.MonkeyPatch) -> None:
        plain = Step.gradients

        def gradients(step: Step, network: Any, batch: Any, *rest: Any, **more: Any) -> Mapping[str, torch.Tensor]:
            losses = plain(step, network, batch, *rest, **more)
            if self.count in self.steps and self.times > 0:
                losses = {name: self.by(loss) for name, loss in losses.items()}
                for parameter in network.parameters():
                    if parameter.grad is not None:
                        parameter.grad.copy_(self.by(parameter.grad))
                self.times -= self.count == self.steps[-1]
            return losses

        patch.setattr(Step, "gradients", gradients)
        step = Trainer._step

        def counted(trainer: Trainer, *rest: Any) -> Any:
            if self.stage and trainer.stages[trainer.progress.stage][0] != self.stage:
                self.count = -1
                return step(trainer, *rest)
            self.count = trainer.progress.epoch * trainer.steps(trainer.last_sequences) + trainer.progress.step
            return step(trainer, *rest)

        patch.setattr(Trainer, "_step", counted)

    def on_message(self, sentence: str, *, warning: bool = False) -> None:
        self.told += [sentence] if warning else []


def nan(value: torch.Tensor) -> torch.Tensor:
    return value * math.nan


def trained(
    dataset: Dataset, path: Path | None, spoil: Spoil | None, patch: pytest.MonkeyPatch, *, recover: bool = True
) -> tuple[ADRecModel, list[Mapping[str, Any]], Run | None]:
    model = ADRecModel(ADRecModel.Config.make("paper", {**tiny_changes(0, 0, 6), **CHANGES}))
    split, run = leave_one_out(dataset), None
    if path is not None:
        run = Run.create(path, model, RunInfo.of(dataset, split, seed=3, device="cpu", recover=recover))
    with patch.context() as context:
        if spoil is not None:
            spoil.spoil(context)
        callbacks = [] if spoil is None else [spoil]
        stages = fit(model, dataset, split, run, seed=3, callbacks=callbacks, every=0.0)
    return model, list(stages), run


def steps_of_an_epoch(dataset: Dataset) -> int:
    return math.ceil(len(leave_one_out(dataset).train_ends) / 16)


@pytest.mark.parametrize("by", [nan, lambda value: value * 1e9], ids=["not a number", "exploded"])
def test_a_few_bad_steps_are_skipped_and_counted(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    spoil = Spoil(range(5, 5 + IN_A_ROW - 1), 1, by)
    model, (stage,), run = trained(dataset, tmp_path / "run", spoil, monkeypatch)
    assert run is not None
    assert [row.get("skipped", 0) for row in run.rows()] == [0, IN_A_ROW - 1, 0, 0, 0, 0]
    assert "rate" not in stage and stage["epochs"] == 6
    assert spoil.told[:1] == ["2 steps of this epoch had no usable loss or gradient: skipped."]
    assert all(value.isfinite().all() for value in model.state().values())


def test_it_goes_back_to_the_last_snapshot_at_half_the_rate(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of_an_epoch(dataset)
    spoil = Spoil(range(3 * steps + 1, 3 * steps + 1 + IN_A_ROW), 1, nan)
    model, (stage,), run = trained(dataset, tmp_path / "run", spoil, monkeypatch)
    assert (stage["rate"], stage["epochs"], stage.get("diverged")) == (0.5, 6, None)
    assert "of finetune, at half the learning rate" in spoil.told[0]
    assert run is not None
    assert [row["epoch"] for row in run.rows()] == list(range(1, 7))
    plain, *_ = trained(dataset, None, None, monkeypatch)
    assert not same(model.network, plain.network), "half the rate"  # type: ignore[arg-type]


def test_the_second_time_it_ends_with_its_best_weights(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of_an_epoch(dataset)
    spoil = Spoil(range(3 * steps + 1, 3 * steps + 1 + IN_A_ROW), 2, nan)
    model, (stage,), run = trained(dataset, tmp_path / "run", spoil, monkeypatch)
    assert (stage["diverged"], stage["epochs"], stage["rate"]) == (True, 3, 0.5)
    assert "its best weights, of epoch" in spoil.told[1]
    assert run is not None
    finished = run.finish(model, (stage,))
    assert finished.info.finished and all(value.isfinite().all() for value in finished.model().state().values())


def test_without_a_run_it_ends_with_its_best_weights_at_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil = Spoil(range(3 * steps_of_an_epoch(dataset), 99), 1, nan)
    _, (stage,), _ = trained(dataset, None, spoil, monkeypatch)
    assert (stage["diverged"], stage["epochs"], stage.get("rate")) == (True, 3, None)


def test_where_nothing_was_validated_it_fails(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="finetune has diverged: 3 steps in a row .* no epoch was validated before"):
        trained(dataset, None, Spoil(range(99), 1, nan), monkeypatch)


def test_it_can_be_told_to_fail(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil = Spoil(range(3 * steps_of_an_epoch(dataset), 99), 1, nan)
    with pytest.raises(RunError, match="has diverged.*smaller learning_rate"):
        trained(dataset, tmp_path / "run", spoil, monkeypatch, recover=False)


def told_of_spoilt_finetuning(
    dataset: Dataset, path: Path, monkeypatch: pytest.MonkeyPatch, align: int, every: float
) -> list[str]:
    """Fit with each step of finetune spoilt, after ``align`` epochs of align, until it fails; return what it tells."""
    config = {**tiny_changes(0, align, 3), **CHANGES, "finetune.start": "embedding"}
    model = ADRecModel(ADRecModel.Config.make("paper", config))
    run = Run.create(path, model, RunInfo.of(dataset, leave_one_out(dataset), seed=3, device="cpu", recover=True))
    spoil = Spoil(range(99), 10**9, nan)
    spoil.stage = "finetune"
    with monkeypatch.context() as context:
        spoil.spoil(context)
        with pytest.raises(RunError, match="finetune has diverged.*no epoch was validated before"):
            fit(model, dataset, leave_one_out(dataset), run, seed=3, callbacks=[spoil], every=every)
    return spoil.told


def test_from_a_snapshot_between_stages_it_goes_on_at_half_the_rate_once(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = told_of_spoilt_finetuning(dataset, tmp_path / "run", monkeypatch, align=1, every=1e9)
    assert [sentence for sentence in told if "half the learning rate" in sentence] == told[:1]


def test_the_estimate_bears_a_rate_that_diverges(dataset: Dataset) -> None:
    config = {**tiny_changes(0, 0, 3), **CHANGES, "finetune.learning_rate": 1e6}
    model = ADRecModel(ADRecModel.Config.make("paper", config))
    trainers = make_trainers(model, dataset, leave_one_out(dataset), seed=3)
    assert estimate(trainers).total > 0


def test_from_a_snapshot_of_the_stage_before_it_ends_too(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot before the last one is of an earlier stage, whose end does not forget what diverged."""
    told = told_of_spoilt_finetuning(dataset, tmp_path / "run", monkeypatch, align=3, every=0.0)
    assert ["goes back to epoch" in sentence for sentence in told] == [True]
    assert "of align, at half the learning rate" in told[0]
