"""What a dry run says of a ledger, without computing anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from adrec.bench import forecast as forecasts
from adrec.bench.forecast import forecast
from adrec.bench.grid import Entry
from adrec.bench.ledger import Ledger
from adrec.bench.schedule import make_plan, run_plan
from adrec.bench.series import Series
from adrec.bench.worker import Worker
from adrec.data.dataset import Dataset, write_dataset
from adrec.train.callbacks import Callback
from adrec.train.cost import Cost, estimate
from adrec.train.loop import Trainer
from conftest import tiny_changes

SMALL: Mapping[str, Any] = {**tiny_changes(0, 1, 5)}


@pytest.fixture
def data(dataset: Dataset, tmp_path: Path) -> Path:
    write_dataset(dataset, tmp_path / "cyclic")
    return tmp_path / "cyclic"


def test_of_tuned_entries_the_trials_that_are_there_count(data: Path, tmp_path: Path) -> None:
    search = {"model.dropout": {"low": 0.0, "high": 0.3}}
    changes = tiny_changes(0, 0, 1)
    entry = Entry("adrec", "adrec", "paper", changes=changes, search=search)
    plan = make_plan(tmp_path / "ledger", [data], [entry], seeds=2, trials=3)
    ledger = Ledger(tmp_path / "ledger")
    waiting = [row for series in plan.series for row in forecast(series, ledger)]
    assert [row["state"] for row in waiting] == ["waiting"] * 2
    assert all(row["time"].endswith(", after 3 trials") for row in waiting)
    run_plan(plan, Console(quiet=True))
    before = [each.job.key for each in ledger.finished()]
    (series,) = plan.series
    assert [(row["seed"], row["state"], row["time"]) for row in forecast(series, ledger)] == [
        ("2025", "finished", ""),
        ("2026", "finished", ""),
    ]
    more = [*forecast(Series(data, entry, (2025,), trials=5), ledger)]
    assert [row["state"] for row in more] == ["begun"] and more[0]["time"].endswith(", after 2 trials")
    assert [each.job.key for each in ledger.finished()] == before, "nothing is computed"


class Interrupted(Callback):
    """Ctrl-C where the third epoch of the last stage is shown."""

    def on_epoch_end(self, row: Mapping[str, object]) -> None:
        if row["stage"] == "finetune" and row["epoch"] == 3:
            raise KeyboardInterrupt


def test_of_a_job_that_was_begun_what_is_left_is_estimated(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.create(tmp_path / "ledger")
    series = Series(data, Entry("adrec", "adrec", "paper", changes=SMALL), (2025, 2026, 2027))
    with pytest.raises(KeyboardInterrupt):
        Worker(ledger.path, None, lambda _: None, [Interrupted()]).compute(series)
    left: list[list[tuple[str, int]]] = []

    def seen(trainers: Sequence[Trainer]) -> Cost:
        left.append([(name, done) for trainer in trainers for name, _, done in trainer.left()])
        return estimate(trainers)

    monkeypatch.setattr(forecasts, "estimate", seen)
    assert [row["state"] for row in forecast(series, ledger)] == ["begun", "waiting", "waiting"]
    assert left == [[("finetune", 3)], [("align", 0), ("finetune", 0)]], "an epoch that is shown is kept"
