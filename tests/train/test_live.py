"""What training prints where there is no terminal."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from adrec.train.progress import Live

EPOCH: dict[str, Any] = {"stage": "finetune", "epoch": 1, "loss": {"ce": 6.5}}
VALIDATED = {**EPOCH, "epoch": 2, "validation": {"hr@20": 0.2, "ndcg@20": 0.1}, "selected": True}
VALIDATION = "hr@20 0.2000  ndcg@20 0.1000  best so far"


def printed(silence: float, *, terminal: bool = False) -> list[str]:
    console = Console(file=StringIO(), force_terminal=terminal, width=200)
    live = Live(console, silence)
    live.on_stage_start("finetune", 3, 0, 1)
    for row in (EPOCH, VALIDATED, {**EPOCH, "epoch": 3}):
        live.on_epoch_end(row)
    assert isinstance(console.file, StringIO)
    return [line for line in console.file.getvalue().splitlines() if "epoch" in line]


def test_a_log_has_a_line_for_each_validation() -> None:
    assert printed(silence=1e9) == [f"finetune  epoch   2  ce 6.5000  {VALIDATION}"]


def test_a_log_is_not_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of epochs that end at these seconds those have a line that end 30 or more behind the last line."""
    now = 1000.0
    monkeypatch.setattr("adrec.train.progress.time.monotonic", lambda: now)
    console = Console(file=StringIO(), width=200)
    live = Live(console, silence=30)
    now = 1100.0  # data were read
    live.on_stage_start("finetune", 9, 0, 1)
    for epoch, second in enumerate((10, 20, 31, 40, 62, 70, 95), start=1):
        now = 1100.0 + second
        live.on_epoch_end({**(VALIDATED if epoch == 6 else EPOCH), "epoch": epoch})
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert [int(line.split()[2]) for line in lines] == [3, 5, 6]
    assert lines[0] == "finetune  epoch   3  ce 6.5000" and lines[2].endswith(VALIDATION)


@pytest.mark.parametrize("silence", [0, 1e9])
def test_a_terminal_has_a_bar_for_other_epochs(silence: float) -> None:
    assert len(printed(silence, terminal=True)) == 1


def test_a_resumed_training_says_after_which_epoch() -> None:
    console = Console(file=StringIO(), width=200)
    Live(console).on_resume([EPOCH, VALIDATED])
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue() == "Resumes after epoch 2 of finetune.\n"
