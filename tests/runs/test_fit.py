"""Training into a run folder from Python: resumed where it was left, and refused where it is another's."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from adrec import ADRec
from adrec.data.dataset import Dataset, write_dataset
from adrec.data.split import leave_one_out
from adrec.models.adrec import ADRecModel
from adrec.runs.fit import fit
from adrec.runs.folder import Run, open_or_create
from adrec.runs.info import RunInfo
from adrec.train.callbacks import Callback
from adrec.train.checkpoint import read_snapshot
from adrec.train.loop import Trainer
from adrec.utils.errors import RunError
from conftest import adrec_trainer, cyclic_table, interrupt_after, tiny_changes


@pytest.mark.parametrize("prepared", [True, False], ids=["a data set in a folder", "a table"])
def test_python_resumes_a_run_to_the_same_bits(
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    prepared: bool,
) -> None:
    write_dataset(dataset, tmp_path / "data")
    given: Any = tmp_path / "data" if prepared else cyclic_table()
    changes = tiny_changes(2, 1, 4)
    whole = ADRec("paper", changes, seed=3, device="cpu").fit(given)
    run = Trainer.run

    def interrupted(self: Trainer) -> Any:
        self.callbacks.append(interrupt_after(5))
        return run(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ADRec("paper", changes, seed=3, device="cpu").fit(given, run=tmp_path / "run")
    assert len(Run.open(tmp_path / "run").rows()) == 5
    (tmp_path / "run" / ".state-0.safetensors.0123abcd-1-0123abcd.tmp").touch()  # of a killed process
    again = ADRec("paper", changes, seed=3, device="cpu", progress=True).fit(given, run=tmp_path / "run")
    assert "Resumes after epoch " in capsys.readouterr().err
    assert len(Run.open(tmp_path / "run").rows()) == 7
    assert not list((tmp_path / "run").glob("*.tmp"))
    expected = whole.recommend(k=3)
    assert again.recommend(k=3).equals(expected)
    assert ADRec.load(tmp_path / "run").recommend(k=3).equals(expected)


def test_a_run_that_another_process_finished_is_not_trained_again(dataset: Dataset, tmp_path: Path) -> None:
    """It was opened before the other process ended, and is locked after it."""
    model = ADRecModel(ADRecModel.Config.make("paper", tiny_changes(0, 0, 1)))
    info = RunInfo.of(dataset, leave_one_out(dataset), seed=3, device="cpu")
    with open_or_create(tmp_path / "run", model, info, dataset) as run:
        late = Run.open(tmp_path / "run")
        run.finish(model, fit(model, dataset, leave_one_out(dataset), run, seed=3))
    with pytest.raises(RunError, match="is finished already; there is nothing to resume"), late.locked():
        pass
    assert len(late.rows()) == 1


def test_half_a_row_of_metrics_is_not_read(dataset: Dataset, tmp_path: Path) -> None:
    model = ADRecModel(ADRecModel.Config.make("paper", tiny_changes(0, 0, 2)))
    run = Run.create(tmp_path / "run", model, RunInfo.of(dataset, leave_one_out(dataset), seed=3, device="cpu"))
    with pytest.raises(KeyboardInterrupt):
        fit(model, dataset, leave_one_out(dataset), run, seed=3, callbacks=[interrupt_after(1)])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "fine')
    assert len(run.rows()) == 1
    fit(model, dataset, leave_one_out(dataset), run, seed=3)
    assert [row["epoch"] for row in run.rows()] == [1, 2]


def test_a_run_of_something_else_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    def fitted(path: str, table: Any = dataset, seed: int = 3, **changes: Any) -> ADRec:
        model = ADRec("paper", {**tiny_changes(0, 0, 1), **changes}, seed=seed, device="cpu")
        return model.fit(table, run=tmp_path / path)

    fitted("finished")
    with pytest.raises(RunError, match="finished holds a run that is finished; load it, or choose another folder"):
        fitted("finished")
    model = ADRecModel()
    info = RunInfo.of(dataset, leave_one_out(dataset), seed=3, device="cpu")
    with (
        open_or_create(tmp_path / "begun", model, info, dataset),
        pytest.raises(RunError, match="another process is training"),
        open_or_create(tmp_path / "begun", model, info, dataset),
    ):
        pass
    for what, given in (
        ("data set", {"table": cyclic_table().with_columns(pl.col("item_id") + "x")}),
        ("configuration", {}),
    ):
        with pytest.raises(RunError, match=f"begun holds a run that is of another {what}"):
            fitted("begun", **given)
    with pytest.raises(RunError, match="begun holds a run that is of another seed"):
        ADRec(seed=4).fit(dataset, run=tmp_path / "begun")


def test_stage_1_is_the_embedding_of_the_first_stage(dataset: Dataset, tmp_path: Path) -> None:
    """A later stage that starts from an embedding does not replace it."""
    changes = {**tiny_changes(2, 1, 1), "align.embedding": "train", "finetune.start": "embedding"}
    model = ADRecModel(ADRecModel.Config.make("paper", changes))
    split = leave_one_out(dataset)
    info = RunInfo.of(dataset, split, seed=1, device="cpu")
    with open_or_create(tmp_path / "run", model, info, dataset) as run:
        fit(model, dataset, split, run, seed=1)
    first = ADRecModel.Config.make("paper", tiny_changes(2, 0, 0))
    pretrained = adrec_trainer(first, dataset, split, seed=1).run()  # type: ignore[arg-type]
    kept = run.stage_1()
    assert kept is not None and torch.equal(kept, pretrained.item_embedding.weight)


def test_ctrl_c_in_python_records_the_step(dataset: Dataset, tmp_path: Path) -> None:
    """Python's own handler would raise in the middle of a step, which cannot be resumed from."""

    class Press(Callback):
        def __init__(self) -> None:
            self.steps = 0

        def on_step_end(self) -> None:
            self.steps += 1
            if self.steps == 3:
                os.kill(os.getpid(), signal.SIGINT)

    model = ADRecModel(ADRecModel.Config.make("paper", {**tiny_changes(0, 0, 2), "batch_size": 16}))
    run = Run.create(tmp_path / "run", model, RunInfo.of(dataset, leave_one_out(dataset), seed=3, device="cpu"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(model, dataset, leave_one_out(dataset), run, seed=3, callbacks=[Press()], every=1e9)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    (state,) = run.path.glob("state-[01].safetensors")
    assert read_snapshot(state).values["progress"]["step"] == 3
