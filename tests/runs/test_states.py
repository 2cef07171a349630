"""The snapshots of a run: two and the chosen weights; a damaged one falls back, and anything foreign is refused."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.models.adrec import ADRecModel
from adrec.runs.fit import fit
from adrec.runs.folder import Run
from adrec.runs.info import RunInfo
from adrec.train.callbacks import Callback
from adrec.utils.errors import RunError
from conftest import interrupt_after, reseal, same, tiny_changes

EPOCHS = 6


class Told(Callback):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def on_message(self, sentence: str, *, warning: bool = False) -> None:
        self.sentences += [sentence] if warning else []


def new(dataset: Dataset, path: Path, seed: int = 3, align: int = 0, **changes: Any) -> tuple[ADRecModel, Run]:
    config = {**tiny_changes(0, align, EPOCHS), "finetune.evaluate_every": 1, "finetune.first_evaluation": 1, **changes}
    model = ADRecModel(ADRecModel.Config.make("paper", config))
    return model, Run.create(path, model, RunInfo.of(dataset, leave_one_out(dataset), seed=seed, device="cpu"))


def train(dataset: Dataset, model: ADRecModel, run: Run, *callbacks: Callback, every: float | None = 0.0) -> ADRecModel:
    fit(model, dataset, leave_one_out(dataset), run, seed=run.info.seed, callbacks=callbacks, every=every)
    return model


@pytest.fixture
def whole(dataset: Dataset, tmp_path: Path) -> ADRecModel:
    return train(dataset, *new(dataset, tmp_path / "whole"))


@pytest.fixture
def begun(dataset: Dataset, tmp_path: Path) -> Run:
    model, run = new(dataset, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(dataset, model, run, interrupt_after(4))
    assert len(list(run.path.glob("state-[01].safetensors"))) == 2
    return Run.open(run.path)


def resumed(dataset: Dataset, run: Run) -> tuple[ADRecModel, list[str]]:
    told = Told()
    return train(dataset, ADRecModel(run.config), Run.open(run.path), told), told.sentences


def newest(run: Run) -> Path:
    return max(run.path.glob("state-[01].safetensors"), key=lambda path: path.stat().st_mtime_ns)


def flip(path: Path, at: int = -20) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(b""), lambda path: flip(path, 400)])
def test_a_damaged_snapshot_falls_back_to_the_one_before(
    dataset: Dataset, begun: Run, whole: ADRecModel, damage: Any
) -> None:
    damage(newest(begun))
    model, told = resumed(dataset, begun)
    assert same(model.network, whole.network)  # type: ignore[arg-type]
    assert len(told) == 1 and newest(begun).name[:6] in told[0] and "goes on from the snapshot before it" in told[0]
    assert len(Run.open(begun.path).rows()) == EPOCHS


def test_damaged_chosen_weights_fall_back_to_their_copy(dataset: Dataset, begun: Run, whole: ADRecModel) -> None:
    copies = set(begun.path.glob("state-chosen-*-copy.safetensors"))
    for path in set(begun.path.glob("state-chosen-*.safetensors")) - copies:
        flip(path)
    kept = begun.path.with_name("kept")
    shutil.copytree(begun.path, kept)
    model, _ = resumed(dataset, begun)
    assert same(model.network, whole.network)  # type: ignore[arg-type]
    shutil.rmtree(begun.path)
    kept.rename(begun.path)
    for path in copies:
        flip(path)
    with pytest.raises(RunError, match=r"state-chosen-.* was altered"):
        resumed(dataset, begun)


def test_two_damaged_snapshots_are_said(dataset: Dataset, begun: Run) -> None:
    for path in begun.path.glob("state-[01].safetensors"):
        flip(path)
    with pytest.raises(RunError, match="was altered: its content does not match its digest"):
        resumed(dataset, begun)


def test_a_removed_snapshot_is_told(dataset: Dataset, begun: Run, whole: ADRecModel) -> None:
    for path in begun.path.glob("state-*.safetensors"):
        path.unlink()
    model, told = resumed(dataset, begun)
    assert told == [f"{begun.path} has no snapshot of its 4 epochs: it begins anew."]
    assert same(model.network, whole.network)  # type: ignore[arg-type]


def test_snapshots_and_metrics_of_another_run_are_refused(dataset: Dataset, begun: Run, tmp_path: Path) -> None:
    model, other = new(dataset, tmp_path / "other", seed=4)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, model, other, interrupt_after(4))
    for path in begun.path.glob("state-*.safetensors"):
        path.unlink()
    for path in other.path.glob("state-*.safetensors"):
        shutil.copy(path, begun.path)
    with pytest.raises(RunError, match="is of another run or of other settings"):
        resumed(dataset, begun)


def test_metrics_that_were_altered_are_refused(dataset: Dataset, begun: Run) -> None:
    path = begun.path / "metrics.jsonl"
    path.write_text(path.read_text().replace('"epoch": 2', '"epoch": 7'))
    with pytest.raises(RunError, match=r"metrics.jsonl was altered"):
        resumed(dataset, begun)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(RunError, match=r"metrics.jsonl was altered"):
        resumed(dataset, begun)


def test_settings_that_were_altered_are_refused(dataset: Dataset, begun: Run) -> None:
    text = (begun.path / "config.json").read_text()
    (begun.path / "config.json").write_text(text.replace('"max_length": ', '"max_length": 1'))
    with pytest.raises(RunError, match="config.json is not the configuration of this run"):
        Run.open(begun.path)
    (begun.path / "config.json").write_text(text)
    reseal(begun.path / "run.json", seed=9)  # a forger may seal it, but the snapshots are of the run as it was
    with pytest.raises(RunError, match="is of another run or of other settings"):
        resumed(dataset, begun)


def test_a_finished_run_keeps_no_snapshot_and_is_bound_to_its_weights(dataset: Dataset, tmp_path: Path) -> None:
    runs = []
    for name, seed in (("one", 3), ("two", 4)):
        model, run = new(dataset, tmp_path / name, seed=seed)
        runs.append(run.finish(train(dataset, model, run), ()))
    one, two = runs
    assert sorted(path.name for path in one.path.iterdir()) == [
        *("config.json", "metrics.jsonl", "run.json", "weights.safetensors")
    ]
    (one.path / "state-0.safetensors").write_bytes(b"left by a process that was killed on finishing")
    assert Run.open(one.path).info.finished and not (one.path / "state-0.safetensors").exists()
    shutil.copy(two.path / "weights.safetensors", one.path)
    with pytest.raises(RunError, match="weights.safetensors holds the weights of another run"):
        Run.open(one.path).model()
    (two.path / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match="metrics.jsonl was altered after the run was finished"):
        Run.open(two.path).rows()


def test_snapshots_are_few_where_they_cost_much_and_the_end_is_the_same(
    dataset: Dataset, whole: ADRecModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adrec.runs.states import States

    written: list[int] = []
    plain = States.write

    def slow(states: States, trainer: Any, metrics: str) -> None:
        written.append(trainer.progress.rows)
        plain(states, trainer, metrics)

    monkeypatch.setattr(States, "write", slow)
    model = train(dataset, *new(dataset, tmp_path / "seldom"), every=3600.0)
    assert written == [EPOCHS], "the end of the stage"
    assert same(model.network, whole.network)  # type: ignore[arg-type]
    written.clear()
    train(dataset, *new(dataset, tmp_path / "usual"), every=None)
    assert written[0] == 1, "the first epoch, as its cost is not known"


def test_the_best_weights_of_a_stage_are_not_taken_for_those_of_another(dataset: Dataset, tmp_path: Path) -> None:
    """Both stages may choose the same epoch, and no other snapshot come between."""
    changes = {
        **{f"{stage}.{key}": 1 for stage in ("align", "finetune") for key in ("evaluate_every", "first_evaluation")},
        **{"finetune.start": "embedding", "finetune.patience": 0, "align.patience": 0},
    }
    expected = train(dataset, *new(dataset, tmp_path / "plain", align=3, **changes))
    model, run = new(dataset, tmp_path / "run", align=3, **changes)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, model, run, interrupt_after(3 + 4), every=1e9)
    model, _ = resumed(dataset, run)
    assert same(model.network, expected.network)  # type: ignore[arg-type]


def test_a_row_that_cannot_be_written_is_not_counted(
    dataset: Dataset, whole: ADRecModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adrec.runs.metrics import Metrics
    from adrec.utils.errors import UserError

    model, run = new(dataset, tmp_path / "run")
    plain, count = Metrics.append, []

    def full(metrics: Metrics, row: Any) -> None:
        count.append(row)
        if len(count) == 3:
            raise UserError("the disk is full for a moment.")
        plain(metrics, row)

    monkeypatch.setattr(Metrics, "append", full)
    with pytest.raises(UserError, match="for a moment"):
        train(dataset, model, run)
    model, told = resumed(dataset, run)
    assert same(model.network, whole.network) and told == []  # type: ignore[arg-type]
    assert [row["epoch"] for row in Run.open(run.path).rows()] == list(range(1, EPOCHS + 1))


def test_the_time_of_an_epoch_counts_what_was_before_an_interruption(dataset: Dataset, tmp_path: Path) -> None:
    class Slow(Callback):
        def __init__(self) -> None:
            self.steps = 0

        def on_step_end(self) -> None:
            self.steps += 1
            time.sleep(0.2 if self.steps == 1 else 0)
            if self.steps == 2:
                raise KeyboardInterrupt

    model, run = new(dataset, tmp_path / "run", **{"batch_size": 16})
    with pytest.raises(KeyboardInterrupt):
        train(dataset, model, run, Slow(), every=1e9)
    resumed(dataset, run)
    assert 0.2 < Run.open(run.path).rows()[0]["seconds"] < 20
