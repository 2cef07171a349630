"""Augmentation as users meet it: as a process."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from command import adrec, refused, start
from conftest import cyclic_table

FAST = [
    *("--model", "sasrec+", "--augment", "diffuasr", "--threads", "1", "--max-epochs", "3"),
    *("--set", "hidden_size=16", "--set", "max_length=8", "--set", "batch_size=16"),
    *("--set", "augment.num_items=2", "--set", "augment.num_train_timesteps=30", "--set", "augment.channels=8"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set and a run."""
    folder = tmp_path_factory.mktemp("augment")
    cyclic_table(num_users=100).write_csv(folder / "table.csv")
    assert adrec("prepare", "table.csv", "--out", "data", cwd=folder).returncode == 0
    result = adrec("train", "data", "--out", "run", *FAST, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "augment.diffusion" in result.stderr
    return folder


@pytest.mark.slow
def test_a_run_is_evaluated_and_refitted(work: Path, tmp_path: Path) -> None:
    stages = json.loads((work / "run" / "run.json").read_text())["stages"]
    assert [stage["stage"] for stage in stages] == ["augment.pretrain", "augment.diffusion", "train"]
    result = adrec("evaluate", work / "run", "--json", tmp_path / "metrics.json")
    assert result.returncode == 0, result.stderr
    result = adrec("refit", work / "run", "--out", tmp_path / "final")
    assert result.returncode == 0, result.stderr
    result = adrec("recommend", tmp_path / "final", "--user", "user 1", "--k", "3", "--format", "csv")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 4


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(work: Path, tmp_path: Path) -> None:
    run, arguments = tmp_path / "run", ["train", work / "data", "--out", tmp_path / "run", *FAST]
    for moment in (4, 7):  # within the diffusion, and behind it
        process = start(*arguments)
        deadline = time.monotonic() + 60
        path = run / "metrics.jsonl"
        while not path.exists() or len(path.read_text().splitlines()) < moment:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        if json.loads((run / "run.json").read_text())["finished"]:
            pytest.skip("the run ended before it was killed")
        arguments = ["train", "--resume", run]
    assert adrec(*arguments).returncode == 0
    assert (run / "weights.safetensors").read_bytes() == (work / "run" / "weights.safetensors").read_bytes()


@pytest.mark.slow
def test_what_cannot_be_is_one_sentence(work: Path, tmp_path: Path) -> None:
    data, out = work / "data", tmp_path / "out"
    sentence = refused("train", data, "--out", out, "--augment", "difuasr")
    assert sentence.endswith("it is 'difuasr' (did you mean 'diffuasr'?).")
    sentence = refused("train", data, "--out", out, "--model", "popular", "--augment", "diffuasr")
    assert sentence == "popular learns without epochs, so --augment means nothing to it."
    sentence = refused("train", data, "--out", out, *FAST, "--set", "augment.num_items=50")
    assert "52 training interactions or more, and there are 0; set augment.num_items" in sentence
    assert not out.exists()


def test_config_and_plan_show_it(work: Path) -> None:
    shown = json.loads(adrec("config", "--model", "sasrec+", "--augment", "diffuasr", "--json").stdout)
    assert shown["augment"]["diffusion"]["epochs"] > 0
    result = adrec("plan", work / "data", *FAST)
    assert result.returncode == 0, result.stderr
    assert "augment.diffusion" in result.stdout


@pytest.mark.slow
def test_a_grid_entry_is_benchmarked(work: Path, tmp_path: Path) -> None:
    lines = [
        "[augmented]",
        'model = "sasrec+"',
        "[augmented.set]",
        '"augment" = true',
        '"augment.num_items" = 2',
        '"augment.channels" = 8',
        '"augment.pretrain.epochs" = 1',
        '"augment.diffusion.epochs" = 1',
        '"train.epochs" = 1',
        '"model.hidden_size" = 16',
    ]
    (tmp_path / "grid.toml").write_text("\n".join(lines))
    ledger = tmp_path / "ledger"
    result = adrec("benchmark", work / "data", "--grid", tmp_path / "grid.toml", "--seeds", "1", "--out", ledger)
    assert result.returncode == 0, result.stderr
    (found,) = ledger.glob("jobs/*/result.json")
    stages = json.loads(found.read_text())["stages"]
    assert [stage["stage"] for stage in stages] == ["augment.pretrain", "augment.diffusion", "train"]
