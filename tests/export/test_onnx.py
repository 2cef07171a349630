"""The ONNX export gives the scores of adrec recommend, step by step too, in a program without adrec."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adrec import ADRec
from command import adrec, refused
from conftest import cyclic_table
from serve.server import serving

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow  # an export takes some ten seconds


@pytest.fixture(scope="module")
def exported(small_run: Path) -> Path:
    done = adrec("export", small_run)
    assert done.returncode == 0, done.stderr
    assert "the same scores" in done.stderr
    return small_run / "onnx"


CAM: dict[str, Any] = {"model.hidden_size": 16, "model.num_heads": 2}


def histories(number: int = 50) -> list[list[str]]:
    rng = np.random.default_rng(4)
    return [[f"item {at}" for at in rng.integers(0, 12, rng.integers(1, 9))] for _ in range(number)]


def test_scores_of_a_batch(small_run: Path, exported: Path) -> None:
    engine = ADRec.load(small_run, device="cpu").recommender().engine
    some = [engine.numbers(each) for each in histories()]
    items = np.zeros((len(some), 8), dtype=np.int64)
    for row, each in zip(items, some, strict=True):
        row[: len(each)] = each
    session = onnxruntime.InferenceSession(exported / "scores.onnx")
    (found,) = session.run(None, {"items": items, "lengths": np.array([len(each) for each in some])})
    assert engine.dense is not None
    np.testing.assert_allclose(found[:, 1:], engine.dense(some)[:, 1:], atol=1e-5)


def test_steps_are_those_of_the_chain(small_run: Path, exported: Path) -> None:
    """The step's graph, and the schedule, give the query of the model."""
    recommender = ADRec.load(small_run, device="cpu").recommender()
    dense = recommender.engine.dense
    assert dense is not None
    items, lengths = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    session = onnxruntime.InferenceSession(exported / "step.onnx")
    network = dense.network
    noise = torch.randn(network.config.num_inference_steps, 2, network.config.hidden_size)

    def step(x: torch.Tensor, t: int) -> torch.Tensor:
        inputs = {"items": items, "lengths": lengths, "x": x, "t": torch.tensor(t)}
        return torch.from_numpy(session.run(None, {name: each.detach().numpy() for name, each in inputs.items()})[0])

    chain = network.schedule.respaced(len(noise))
    query = network.sample(step, chain, lambda i: noise[i - 1])  # type: ignore[arg-type]
    torch.testing.assert_close(query, dense.dense(items, lengths, noise), rtol=1e-4, atol=1e-5)


def test_the_example_recommends_without_adrec(small_run: Path, exported: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", exported / "example.py", "item 3", "item 4"], capture_output=True, text=True, check=True
    )
    expected = ADRec.load(small_run, device="cpu").recommend(histories=[["item 3", "item 4"]], k=10)
    assert [line.rsplit(" ", 1)[0] for line in done.stdout.splitlines()] == expected["item_id"].to_list()
    command = [sys.executable, "-I", exported / "example.py", "nothing"]
    none = subprocess.run(command, capture_output=True, text=True, check=False)
    assert none.returncode == 1 and "knows none" in none.stderr
    assert "adrec" not in (exported / "example.py").read_text()
    assert json.loads((exported / "about.json").read_text())["leaves_out_seen"] is True


def test_the_service_answers_with_it(small_run: Path, exported: Path) -> None:
    table = ADRec.load(small_run, device="cpu").recommend(histories=histories(), k=5)
    with serving(small_run, "--onnx") as client:
        answers = client.post("/v1/recommend", json=[{"history": each, "k": 5} for each in histories()]).json()
    for at, answer in enumerate(answers):
        assert [each["item"] for each in answer["items"]] == table.filter(pl.col("history") == at)["item_id"].to_list()


def test_one_history_in_python(small_run: Path, exported: Path) -> None:
    model = ADRec.load(small_run, device="cpu")
    plain, fast = model.recommender(), model.recommender(onnx=exported)
    for history in histories():
        assert [each.item for each in fast.one(history, 4)] == [each.item for each in plain.one(history, 4)]
    assert fast.for_histories(histories(), 4).table.equals(plain.for_histories(histories(), 4).table)


def test_what_cannot_be_exported_or_served(small_run: Path, exported: Path, tmp_path: Path) -> None:
    assert (
        "holds" in (said := refused("export", small_run, "--out", exported)) or "exists" in said or "not empty" in said
    )
    ADRec(model="markov").fit(cyclic_table()).save(tmp_path / "markov")
    assert "only adrec without" in refused("export", tmp_path / "markov", "--out", tmp_path / "out")
    ADRec("cam", CAM, max_epochs=1, device="cpu").fit(cyclic_table()).save(tmp_path / "other")
    assert "cannot be read as an export" in refused("serve", tmp_path / "other", "--onnx", "--port", "0")
    shutil.copytree(exported, tmp_path / "other" / "onnx")
    assert "export of another run" in refused("serve", tmp_path / "other", "--onnx", "--port", "0")
    changes = {**CAM, "model.max_length": 1}
    ADRec("cam", changes, max_epochs=1, device="cpu").fit(cyclic_table()).save(tmp_path / "short")
    assert "max_length=1" in refused("export", tmp_path / "short")


def test_without_diffusion(tmp_path: Path) -> None:
    ADRec("cam", CAM, max_epochs=1, device="cpu").fit(cyclic_table()).save(tmp_path / "cam")
    done = adrec("export", tmp_path / "cam", "--out", tmp_path / "onnx")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "onnx" / "step.onnx").exists()
