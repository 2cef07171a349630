"""Models by name: near names, users' own models, and what breaks the contract says which clause."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from adrec import ADRec
from adrec.cli.app import app
from adrec.models import registry as models
from adrec.models.baselines.popularity import Popularity
from adrec.models.registry import find_model, model_names, register
from adrec.train.checkpoint import read_snapshot
from adrec.utils.errors import ConfigError
from command import adrec, refused
from conftest import cyclic_table

OWN = """
import torch
from adrec.models.base import Model
from adrec.models.network import NetworkModel
from adrec.nn.scores import InnerProducts
from adrec.config.base import OneStageConfig, Settings


class Backwards(Model):
    name = "backwards"
    paper = "mine"
    Config = Settings

    def fit(self, dataset, split, *, seed=0, device=None):
        self.restore({"numbers": torch.arange(split.num_items + 1.0)}, split.num_items)

    def __call__(self, batch):
        return InnerProducts(torch.ones(batch.num_users, 1), self.numbers[:, None])

    def state(self):
        return {"numbers": self.numbers}

    def restore(self, state, num_items, device=None):
        self.numbers, self.num_items = state["numbers"], num_items


class NoModel:
    pass


class NoState(Backwards):
    state = Model.state


class NoName(Backwards):
    name = None


class NoPaper(Backwards):
    paper = 1943


class NoSettings(Backwards):
    Config = dict


class NoStages(NetworkModel):
    name = paper = "mine"
    Config = Settings


class NoNetworks(NetworkModel):
    name = paper = "mine"
    Config = OneStageConfig


a_value = 3
"""
CLAUSES = {
    "NoModel": "own:NoModel is no model: its class must derive from adrec.models.Model (or NetworkModel).",
    "a_value": "own:a_value is no model: its class must derive from adrec.models.Model (or NetworkModel).",
    "NoState": "own:NoState breaks the contract of a model: it lacks the method 'state'.",
    "NoName": "own:NoName breaks the contract of a model: 'name' must be a text of the class.",
    "NoPaper": "own:NoPaper breaks the contract of a model: 'paper' must be a text of the class.",
    "NoSettings": "own:NoSettings breaks the contract of a model: 'Config' must derive from adrec.config.Settings.",
    "NoStages": "own:NoStages breaks the contract of a model: 'Config' of a NetworkModel must have stages.",
    "NoNetworks": "own:NoNetworks breaks the contract of a model: it names no 'networks'.",
    "Missing": "the model own:Missing cannot be imported: module 'own' has no attribute 'Missing'.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a prepared data set, a module of the user's own and a run of a model in it."""
    path = tmp_path_factory.mktemp("own")
    (path / "own.py").write_text(OWN)
    cyclic_table(20, 12).write_csv(path / "table.csv")
    assert adrec("prepare", "table.csv", "--out", "data", cwd=path).returncode == 0
    trained = adrec("train", "data", "--model", "own:Backwards", "--out", "run", cwd=path)
    assert trained.returncode == 0, trained.stderr
    return path


@pytest.mark.parametrize(
    ("name", "near"),
    [("itemkn", "'itemknn'"), ("populr", "'popular'"), ("markow", "'markov'"), ("sasrec++", "'sasrec+'")],
)
def test_an_unknown_name_suggests_the_near_one(name: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_model(name)
    assert str(caught.value).startswith(
        f"there is no model {name!r} (did you mean {near}?); there are adrec, popular, "
    )


def test_an_own_model_is_trained_by_its_place(folder: Path) -> None:
    tensors = read_snapshot(folder / "run" / "weights.safetensors").tensors
    assert tensors["numbers"].tolist() == list(range(13))
    said = refused("evaluate", "run", cwd=folder)
    assert "is the user's own code; name it with --model own:Backwards" in said
    named = ("--model", "own:Backwards")
    evaluated = adrec("evaluate", "run", *named, cwd=folder)
    assert evaluated.returncode == 0 and "hr@20" in evaluated.stdout, evaluated.stderr
    for more in (("recommend", "run"), ("refit", "run", "--out", "final"), ("recommend", "final")):
        done = adrec(*more, *named, cwd=folder)
        assert done.returncode == 0, done.stderr


def test_a_run_of_an_own_model_is_resumed_and_loaded_where_its_class_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused("train", "--resume", "run", cwd=folder)
    assert "name it with --model own:Backwards" in said
    assert refused("train", "--resume", "run", "--model", "own:Backwards", cwd=folder).endswith("nothing to resume.")
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="is the user's own code"):
        ADRec.load("run")
    by_name = ADRec.load("run", model="own:Backwards")
    by_class = ADRec.load("run", model=type(by_name.model))
    assert by_name.model.name == by_class.model.name == "backwards"
    assert by_name.recommend(k=2).equals(by_class.recommend(k=2))
    by_class.save("saved")
    assert ADRec.load("saved", model=type(by_name.model)).recommend(k=2).equals(by_name.recommend(k=2))


@pytest.mark.parametrize(("name", "sentence"), CLAUSES.items())
def test_each_broken_clause_is_one_sentence(
    folder: Path, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = list(sys.path)
    with pytest.raises(ConfigError) as caught:
        find_model(f"own:{name}", imports=True)
    assert str(caught.value) == sentence
    assert sys.path == before


def test_a_broken_model_is_refused_before_anything_is_written(folder: Path) -> None:
    said = refused("train", "data", "--model", "own:NoState", "--out", "never", cwd=folder)
    assert said == CLAUSES["NoState"]
    assert not (folder / "never").exists()


def test_a_module_that_does_not_exist_is_one_sentence(folder: Path) -> None:
    said = refused("train", "data", "--model", "nowhere:Model", "--out", "never", cwd=folder)
    assert said == "the model nowhere:Model cannot be imported: No module named 'nowhere'."


def test_adrec_models_lists_them_with_their_papers() -> None:
    shown = adrec("models")
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == ""
    rows = {cells[1].strip(): cells for line in shown.stdout.splitlines() if len(cells := line.split("│")) > 3}
    for name in ("adrec", "popular", "recent", "markov", "itemknn", "vsknn", "ease"):
        model = find_model(name)
        assert int(rows[name][2]) == len(model.Config.keys())
        assert model.paper.startswith(rows[name][3].strip())


def test_a_model_that_cannot_be_imported_hides_no_other() -> None:
    broken = {"broken": "nowhere:Model", "popular": models.BUILT_IN["popular"]}
    with patch.object(models, "BUILT_IN", broken):
        shown = CliRunner().invoke(app, ["models"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "No module named 'nowhere'" in shown.stdout
    assert "popular" in shown.stdout


def test_registering_makes_a_name_known_once() -> None:
    class Mine(Popularity):
        name = "mine"

    class Other(Popularity):
        name = "mine"

    with patch.dict(models._registered, clear=True):
        assert register(Mine) is Mine
        assert register(Mine) is Mine
        assert find_model("mine") is Mine
        assert "mine" in model_names()
        for taken in (Other, Popularity):
            with pytest.raises(ConfigError, match="give .* another name"):
                register(taken)
    assert "mine" not in model_names()
