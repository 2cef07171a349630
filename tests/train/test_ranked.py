"""Several processes train what one does: the same losses and weights, parts of the embedding, and no hanging."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import command
from adrec.models.factory import make_model
from adrec.models.network import NetworkModel
from adrec.train.ranked import check_ranked
from adrec.utils.errors import ConfigError
from conftest import SMALL, cyclic_table

STILL = {
    **SMALL,
    "model.dropout": 0.0,
    "model.embedding_dropout": 0.0,
    "align.epochs": 1,
    "align.rows": True,
    "align.rows.drawn": 20,
    "finetune.rows": True,
    "finetune.rows.drawn": 20,
    "finetune.epochs": 3,
    "batch_size": 32,
}
WHOLE = {
    **dict.fromkeys(("align.rows", "finetune.rows"), False),
    **dict.fromkeys(("align.rows.drawn", "finetune.rows.drawn"), None),
    "finetune.averaging": 0.9,
}
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "whole softmax": WHOLE,
    "whole softmax, repeats, one pass": {**WHOLE, "finetune.consistency": 0.0, "batch_size": 89},  # a batch of 1 user
    "batch, bfloat16": {
        "finetune.rows.draw": "batch",
        "finetune.rows.drawn": None,
        "finetune.rows.moments": "bfloat16",
    },
    "gbce": {
        "finetune.rows.sampled_loss": "gbce",
        "finetune.future_items": 1,
        "finetune.consistency": 0.0,
        "finetune.rows.draw": "popularity",
    },
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "tests", "COLUMNS": "120"}
WORKER = Path(__file__).with_name("ranked_worker.py")


def started(number: int, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a program of Python in several processes, or in one."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(number), "--standalone"] if number > 1 else []
    return subprocess.Popen(
        [sys.executable, *torchrun, *map(str, arguments)],
        env={**ENVIRONMENT, "PYTHONPATH": str(WORKER.parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def worked(number: int, folder: Path, changes: dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[Any]]:
    folder.mkdir()
    values = {key: value for key, value in {**STILL, **changes}.items() if value is not None}
    (folder / "settings.json").write_text(json.dumps({"changes": values, "users": 90, "items": 61}))
    process = started(number, WORKER, folder / "settings.json", folder)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return torch.load(folder / "weights.pt"), [json.loads(path.read_text()) for path in sorted(folder.glob("rank-*"))]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_ranks_train_what_one_process_does(tmp_path: Path, case: str) -> None:
    alone, (rows,) = worked(1, tmp_path / "1", CASES[case])
    exact = case != "batch, bfloat16"  # a rounded moment is off by a unit in its last place, which Adam scales up
    for number in (2, 4) if case in ("default", "whole softmax") else (2,):
        together, ranks = worked(number, tmp_path / str(number), CASES[case])
        assert len(ranks) == number and together.keys() == alone.keys()
        for name, value in alone.items():
            if "value.bias" not in name:  # the keys' bias has a gradient of rounding alone, which Adam scales up
                torch.testing.assert_close(together[name], value, rtol=0, atol=1e-5 if exact else 1e-3, msg=name)
        for mine, other in zip(rows["rows"], ranks[0]["rows"], strict=True):
            for name, loss in mine["loss"].items():
                assert abs(loss - other["loss"][name]) < (2e-6 if exact else 1e-3)
            assert not exact or mine["validation"] == pytest.approx(other["validation"], abs=1e-9)
        for rank in ranks:
            assert rank["rows"] == ranks[0]["rows"]
            assert rank["bytes"] <= 1.1 * rows["bytes"] / number + 3 * 2 * 16 * 4  # and the row of padding


@pytest.fixture
def data(tmp_path: Path) -> Path:
    cyclic_table(num_users=120, num_items=40).write_csv(tmp_path / "table.csv")
    done = command.adrec("prepare", tmp_path / "table.csv", "--time-unit", "s", "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    return tmp_path / "data"


def options(epochs: int, **changes: object) -> list[str]:
    kept = {**STILL, "finetune.epochs": epochs, "finetune.patience": epochs, **changes}
    given = {key: value for key, value in kept.items() if value is not None}
    return [part for key, value in given.items() for part in ("--set", f"{key}={json.dumps(value)}")]


@pytest.mark.slow
@pytest.mark.parametrize(("way", "then"), [("rows", 3), ("whole softmax", 1), ("whole softmax", 2)])
def test_a_run_goes_on_with_another_number_of_processes(data: Path, tmp_path: Path, way: str, then: int) -> None:
    changes = WHOLE if way == "whole softmax" else {}
    whole = started(1, "-m", "adrec", "train", data, "--out", tmp_path / "whole", *options(6, **changes))
    _, said = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    run = tmp_path / "run"
    arguments = ["-m", "adrec", "train", data, "--out", run, "--checkpoint-every", "1s", *options(6, **changes)]
    process = started(2, *arguments, start_new_session=True)
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < 3:
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "--resume" in said and 'Traceback (most recent call last)\n  File "/work' not in said, said
    process = started(then, "-m", "adrec", "train", "--resume", run)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    from safetensors.torch import load_file

    one, other = (load_file(path / "weights.safetensors") for path in (tmp_path / "whole", run))
    for name, value in one.items():
        if "value.bias" not in name:
            torch.testing.assert_close(other[name], value, rtol=0, atol=3e-5, msg=name)


@pytest.mark.slow
def test_a_killed_process_ends_the_job_with_a_sentence(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(2, "-m", "adrec", "train", data, "--out", run, *options(1000))
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < 2:
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    began = time.monotonic()
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0 and time.monotonic() - began < 60
    assert "another of the processes has ended" in said, said


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("['--seed', rank]", "need the same seed: process 0 has 0, process 1 has 1"),
        ("['--set', 'model.dropout=0.' + rank]", "need the same settings"),
        ("['--model', 'popular']", "learns in one process"),
    ],
    ids=str,
)
@pytest.mark.slow
def test_processes_that_differ_are_one_sentence(data: Path, tmp_path: Path, script: str, said: str) -> None:
    code = tmp_path / "differ.py"
    plain = [] if "popular" in script else options(2)
    arguments = ["adrec", "train", str(data), "--out", str(tmp_path / "run"), *plain]
    code.write_text(
        f"import os, sys\nrank = os.environ['RANK']\nsys.argv = {arguments!r} + {script}\n"
        "from adrec.cli import main\nmain()\n"
    )
    process = started(2, code)
    _, heard = process.communicate(timeout=120)
    assert process.returncode != 0 and said in heard, heard
    assert not (tmp_path / "run").exists()


def test_what_several_processes_cannot_train_is_refused() -> None:
    for model, preset, changes, said in (
        ("adrec", "fast", {}, "set finetune.rows to true"),
        ("adrec", "cam", {"model.repeat_projection": True}, "repeat_projection"),
        ("adrec", "default", {"finetune.pcgrad": True}, "pcgrad needs one process"),
        ("gru4rec", "default", {}, "ADRec's own networks"),
        ("sasrec", "default", {}, "ADRec's own networks"),
    ):
        made = make_model(model, preset, changes)
        assert isinstance(made, NetworkModel)
        with pytest.raises(ConfigError, match=said):
            check_ranked(made.training, made.networks)


@pytest.mark.slow
def test_a_refusal_comes_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    process = started(2, "-m", "adrec", "train", data, "--out", tmp_path / "run", "--preset", "fast")
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0 and "set finetune.rows to true" in said and not (tmp_path / "run").exists(), said


@pytest.mark.slow
def test_a_full_disk_ends_all_processes(data: Path, tmp_path: Path) -> None:
    """The process that writes fails, and the other one does not wait for it."""
    code = tmp_path / "full.py"
    arguments = ["adrec", "train", str(data), "--out", str(tmp_path / "run"), "--checkpoint-every", "1s", *options(500)]
    code.write_text(
        f"import os, sys\nsys.argv = {arguments!r}\nimport adrec.runs.states as states\n"
        "from adrec.utils.errors import RunError\n"
        "def full(*given):\n    raise RunError('the disk is full')\n"
        "states.write_snapshot = full\nfrom adrec.cli import main\nmain()\n"
    )
    process = started(2, code)
    began = time.monotonic()
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0 and "the disk is full" in said and time.monotonic() - began < 60, said


@pytest.mark.slow
def test_several_processes_evaluate_a_run_as_one_does(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = command.adrec("train", data, "--out", run, *options(2))
    assert done.returncode == 0, done.stderr
    found = []
    for number in (1, 3):
        files = ["--json", tmp_path / f"{number}.json", "--ranks", tmp_path / f"{number}.csv"]
        process = started(number, "-m", "adrec", "evaluate", run, "--seen", "keep", *files)
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert out.count("ndcg@20") == 1 and said.count("Ranks of each user") == 1, "one of them speaks"
        found.append((json.loads(files[1].read_text()), files[3].read_text(), out))
    assert found[0] == found[1]
    assert not (run / "evaluation.json").exists(), "only the protocol of the data is kept"
    code = tmp_path / "differ.py"
    arguments = ["adrec", "evaluate", str(run), "--on", "validation"]
    code.write_text(
        f"import os, sys\nsys.argv = {arguments!r} + ['--seen', ['keep', 'leave-out'][int(os.environ['RANK'])]]\n"
        "from adrec.cli import main\nmain()\n"
    )
    process = started(2, code)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0 and "need the same options" in said, said
    process = started(2, "-m", "adrec", "evaluate", data, "--recommendations", tmp_path / "1.csv")
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0 and "by one process" in said, said
