"""A real training process is killed, or interrupted, and resumed: the weights are those of an undisturbed run."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from command import SMALL, TRAIN_FAST, adrec, start
from conftest import cyclic_table

EPOCHS = ["--max-epochs", "12", *TRAIN_FAST]
DEFAULT = ["--max-epochs", "12", *SMALL, "--set", "finetune.patience=0"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set and an undisturbed run."""
    folder = tmp_path_factory.mktemp("interruption")
    cyclic_table(num_users=400).write_csv(folder / "table.csv")
    assert adrec("prepare", "table.csv", "--out", "data", cwd=folder).returncode == 0
    assert adrec("train", "data", "--out", "whole", *EPOCHS, cwd=folder).returncode == 0
    assert adrec("train", "data", "--out", "default", *DEFAULT, cwd=folder).returncode == 0
    return folder


def rows(run: Path) -> list[dict[str, object]]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    parsed = [json.loads(line) for line in lines]
    for row in parsed:
        row.pop("seconds"), row.pop("core_seconds")
    return parsed


def wait_for_rows(run: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len((run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("how", "moments", "undisturbed", "options"),
    [
        pytest.param(signal.SIGKILL, [2, 9, 14], "whole", EPOCHS, id="killed three times", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, [2, 7], "default", DEFAULT, id="the default killed twice", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, [4], "whole", EPOCHS, id="interrupted", marks=pytest.mark.slow),
    ],
)
def test_resumed_runs_end_with_the_same_weights(
    work: Path, tmp_path: Path, how: signal.Signals, moments: list[int], undisturbed: str, options: list[str]
) -> None:
    run = tmp_path / "run"
    arguments: list[str | Path] = ["train", work / "data", "--out", run, *options]
    for moment in moments:
        process = start(*arguments)
        wait_for_rows(run, moment)
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
        if how == signal.SIGINT:
            assert process.returncode == 130
            assert f"adrec train --resume {run}" in err
            assert "Traceback" not in err
        else:
            assert process.returncode == -signal.SIGKILL
        assert not json.loads((run / "run.json").read_text())["finished"]
        arguments = ["train", "--resume", run]
    result = adrec(*arguments)
    assert result.returncode == 0, result.stderr
    assert "Resumes after epoch" in result.stderr or "is left to train" in result.stderr
    assert (run / "weights.safetensors").read_bytes() == (work / undisturbed / "weights.safetensors").read_bytes()
    assert rows(run) == rows(work / undisturbed)
    assert not list(run.glob(".*.tmp"))


@pytest.mark.slow
def test_a_kill_before_the_first_state_leaves_no_extra_row(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("train", work / "data", "--out", run, *EPOCHS)
    wait_for_rows(run, 1)
    process.kill()
    process.communicate()
    (run / "state.safetensors").unlink(missing_ok=True)  # as if it had never been written
    assert adrec("train", "--resume", run).returncode == 0
    assert rows(run) == rows(work / "whole")


@pytest.mark.slow
def test_a_run_is_trained_by_one_process_at_a_time(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("train", work / "data", "--out", run, *EPOCHS)
    wait_for_rows(run, 1)
    second = adrec("train", "--resume", run)
    assert second.returncode == 2, second.stderr
    assert "another process is training" in second.stderr
    assert process.wait(timeout=120) == 0
    assert rows(run) == rows(work / "whole")


@pytest.mark.slow
def test_a_moved_data_set_is_named_on_resuming(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "data", tmp_path / "data")
    run = tmp_path / "run"
    process = start("train", tmp_path / "data", "--out", run, *EPOCHS)
    wait_for_rows(run, 2)
    process.kill()
    process.communicate()
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    refused = adrec("train", "--resume", run)
    assert refused.returncode == 2
    assert f"DATA --resume {run}" in refused.stderr
    assert adrec("train", tmp_path / "elsewhere", "--resume", run).returncode == 0
    assert rows(run) == rows(work / "whole")


@pytest.mark.slow
def test_an_unfinished_run_is_named_by_whoever_needs_it(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("train", work / "data", "--out", run, *EPOCHS)
    wait_for_rows(run, 1)
    process.kill()
    process.communicate()
    result = adrec("evaluate", run)
    assert result.returncode == 2
    assert "not finished" in result.stderr
    assert f"adrec train --resume {run}" in result.stderr
