"""Published files become data sets and runs that compute the published numbers; nothing that is unpickled runs code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from adrec.config.diffusion import AblationConfig
from adrec.data.dataset import open_dataset
from adrec.data.split import make_split
from adrec.models.network import NetworkModel
from adrec.runs.folder import Run
from command import adrec, refused

VECTORS = Path(__file__).parents[1] / "vectors" / "adrec_training_vectors.safetensors"


def weights(prefix: str) -> dict[str, torch.Tensor]:
    with safe_open(VECTORS, "pt") as file:
        return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


def published(num_items: int, num_users: int = 6) -> dict[str, Any]:
    """Return a data set in the published form: lists, with the last two items apart."""
    rng = np.random.default_rng(0)
    users = [rng.permutation(num_items)[: rng.integers(4, 8)] + 1 for _ in range(num_users)]
    sequences = [[int(item) for item in items] for items in users]
    return {
        "train": [items[:-2] for items in sequences],
        "val": [[items[-2]] for items in sequences],
        "test": [[items[-1]] for items in sequences],
    }


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def as_dictionaries(content: dict[str, Any]) -> dict[str, Any]:
    """Return the data set as its ancestors have it: a dictionary of users, NumPy's numbers, and maps beside."""
    parts = {
        part: {np.int64(user): [np.int64(item) for item in items] for user, items in enumerate(lists)}
        for part, lists in content.items()
    }
    return {**parts, "smap": {"x": 1}, "umap": {"u": 0}}


@pytest.mark.parametrize("form", [dict, as_dictionaries])
@pytest.mark.parametrize("protocol", [2, 5])
def test_a_data_set(tmp_path: Path, form: Any, protocol: int) -> None:
    content = published(9)
    (tmp_path / "toys").mkdir()
    write(tmp_path / "toys" / "dataset.pkl", form(content), protocol)
    done = adrec("import-published", "toys/dataset.pkl", "--trust", "--out", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "kept " in done.stderr
    dataset = open_dataset(tmp_path / "data")
    assert dataset.info.name == "toys"
    numbers = max(item for part in content.values() for items in part for item in items)
    assert dataset.catalogue.ids.to_list() == list(range(1, numbers + 1))
    split = make_split(dataset)
    for user, trained in enumerate(content["train"]):
        assert dataset.items[dataset.offsets[user] : split.train_ends[user]].tolist() == trained
    assert dataset.items[split.validation.positions].tolist() == [items[0] for items in content["val"]]
    assert dataset.items[split.test.positions].tolist() == [items[0] for items in content["test"]]


@pytest.mark.parametrize(
    ("prefix", "changes"),
    [("T32/weights/", {}), ("mlp_T32/weights/", {}), ("stage1/weights/", {})],
)
@pytest.mark.slow
def test_weights_become_a_run(tmp_path: Path, prefix: str, changes: dict[str, Any]) -> None:
    state = weights(prefix)
    num_items = len(state["item_embedding.weight"]) - 1
    content = published(num_items)
    content["train"][0] = [num_items, *content["train"][0]]
    write(tmp_path / "dataset.pkl", content)
    torch.save(state, tmp_path / "model.pth")
    done = adrec("import-published", "dataset.pkl", "--trust", "--out", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    heads = ["--set", "num_heads=2"]
    done = adrec(*("import-published", "model.pth", "--trust", "--data", "data", "--out", "run", *heads), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    model = run.model()
    assert isinstance(model, NetworkModel)
    network = model.network
    assert network is not None
    assert torch.equal(network.item_embedding.weight, state["item_embedding.weight"])
    assert run.config.model.num_inference_steps == 32
    assert run.config.model.ablation == (AblationConfig(decoder="mlp") if "mlp" in prefix else None)
    evaluated = adrec("evaluate", "run", "--json", "e.json", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads((tmp_path / "e.json").read_text())["users"] == 6
    assert adrec("recommend", "run", "--user", "0", cwd=tmp_path).returncode == 0


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("was_run"),))


def test_nothing_runs(tmp_path: Path) -> None:
    write(tmp_path / "dataset.pkl", {"train": Bomb(), "val": [], "test": []})
    assert "pass --trust" in refused("import-published", "dataset.pkl", "--out", "d", cwd=tmp_path)
    said = refused("import-published", "dataset.pkl", "--trust", "--out", "d", cwd=tmp_path)
    assert "dataset.pkl asks for pathlib" in said
    torch.save({"a": Bomb()}, tmp_path / "model.pth")
    write(tmp_path / "good.pkl", published(5))
    assert adrec("import-published", "good.pkl", "--trust", "--out", "data", cwd=tmp_path).returncode == 0
    said = refused("import-published", "model.pth", "--trust", "--data", "data", "--out", "r", cwd=tmp_path)
    assert "model.pth cannot be read" in said
    assert not (tmp_path / "was_run").exists()
    assert {each.name for each in tmp_path.iterdir()} == {"dataset.pkl", "model.pth", "good.pkl", "data"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "is no published data set"),
        ({"train": [[1]], "val": [[1]]}, "is no published data set"),
        ({"train": [[1, 2]], "val": [[1]], "test": [[1, 2]]}, "not one validation and one test item for user 0"),
        ({"train": [[1, 2], [3]], "val": [[1]], "test": [[1]]}, "has other users in train"),
        ({"train": [["x"]], "val": [[1]], "test": [[1]]}, "'x' where a number"),
        ({"train": [[0, 2]], "val": [[1]], "test": [[1]]}, "item 0"),
        ({"train": [[1, 2]], "val": [[1]], "test": [[10**12]]}, "has item 1,000,000,000,000, and at most 16,777,216"),
        ({"train": [[1, 2]], "val": [[1]], "test": [[10**30]]}, "at most 16,777,216"),
        ({"train": {10**30: [1, 2]}, "val": {10**30: [1]}, "test": {10**30: [1]}}, "has user 1,000,000"),
        ({"train": [], "val": [], "test": []}, "no interactions"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: Any, said: str) -> None:
    write(tmp_path / "dataset.pkl", content)
    assert said in refused("import-published", "dataset.pkl", "--trust", "--out", "d", cwd=tmp_path)


@pytest.mark.slow
def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path / "dataset.pkl", published(5))
    assert adrec("import-published", "dataset.pkl", "--trust", "--out", "data", cwd=tmp_path).returncode == 0
    torch.save({"linear.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    torch.save(weights("T32/weights/"), tmp_path / "model.pth")
    for name, said in (("other.pth", "'linear.weight' is not of it"), ("model.pth", "does not have them as 1, 2, 3")):
        arguments = ("import-published", name, "--trust", "--data", "data", "--out", "r")
        assert said in refused(*arguments, cwd=tmp_path)
    assert "weights need --data" in refused("import-published", "model.pth", "--trust", "--out", "r", cwd=tmp_path)
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "dataset.pkl").read_bytes()[:-5])
    assert "cut.pkl cannot be read" in refused("import-published", "cut.pkl", "--trust", "--out", "d", cwd=tmp_path)
    assert "is no file" in refused("import-published", "none.pkl", "--trust", "--out", "d", cwd=tmp_path)
