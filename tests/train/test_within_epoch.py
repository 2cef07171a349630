"""A training that is interrupted within an epoch, or while it validates, resumes to the same bits."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import pytest

from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.evaluate import ranking as ranking_module
from adrec.models.adrec import ADRecModel
from adrec.runs.fit import make_trainers
from adrec.train.callbacks import Callback
from adrec.train.checkpoint import Snapshot
from adrec.train.loop import Trainer
from adrec.utils import interrupts
from conftest import same, tiny_changes

CHANGES = {"finetune.averaging": 0.9, "batch_size": 16, "finetune.start": "embedding"}


def trainer(dataset: Dataset, *callbacks: Callback, **changes: Any) -> Trainer:
    model = ADRecModel(ADRecModel.Config.make("paper", {**tiny_changes(2, 1, 2), **CHANGES, **changes}))
    return make_trainers(model, dataset, leave_one_out(dataset), seed=1, callbacks=callbacks)[-1]


class Signal(Callback):
    """Sends a signal in the middle of a step."""

    def __init__(self, at: int) -> None:
        self.left = at

    def on_step_end(self) -> None:
        self.left -= 1
        if self.left == 0:
            interrupts._state.number = signal.SIGINT


class Rows(Callback):
    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        self.rows.append({key: row[key] for key in ("stage", "epoch", "loss")} | {"v": row.get("validation")})


@pytest.fixture(params=["embedding", pytest.param("continue", marks=pytest.mark.slow)])
def start(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_after_any_step(dataset: Dataset, start: str) -> None:
    changes = {"finetune.start": start}
    whole = Rows()
    expected = trainer(dataset, whole, **changes).run()
    steps = sum(
        trainer(dataset, **changes).steps(trainer(dataset, **changes).sequences[name]) * epochs
        for name, epochs in (("pretrain", 2), ("align", 1), ("finetune", 2))
    )
    for at in range(1, steps + 1):
        rows = Rows()
        cut = trainer(dataset, rows, Signal(at), **changes)
        if at < steps:
            with pytest.raises(interrupts.Interrupted):
                cut.run()
            assert cut.at_rest
        else:
            with pytest.raises(interrupts.Interrupted):  # in the last step: it is still validated on resuming
                cut.run()
        snapshot = cut.snapshot()
        kept = Snapshot({name: value.clone() for name, value in snapshot.tensors.items()}, snapshot.values)
        resumed = trainer(dataset, rows, **changes)
        resumed.order.manual_seed(99)
        resumed.rng.manual_seed(99)
        resumed.restore(kept)
        assert same(resumed.run(), expected), at
        assert rows.rows == whole.rows, at


def test_while_it_validates(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trainer(dataset).run()
    cut = trainer(dataset)
    plain = ranking_module.seen

    def interrupted(*given: Any) -> Any:
        interrupts._state.number = signal.SIGTERM
        return plain(*given)

    monkeypatch.setattr(ranking_module, "seen", interrupted)
    monkeypatch.setattr("adrec.train.validation.leaves_out", lambda *_: True)
    with pytest.raises(interrupts.Interrupted):
        cut.run()
    monkeypatch.undo()
    assert cut.at_rest and cut.progress.step == cut.steps(cut._current)
    resumed = trainer(dataset)
    resumed.restore(cut.snapshot())
    assert same(resumed.run(), expected)
