"""Where embeddings come from: runs, files of other libraries, and what is known of their items."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from adrec import ADRec, diagnose
from adrec.cli.workflow import train_dataset
from adrec.config.adrec import preset
from adrec.data.dataset import Dataset, write_dataset
from adrec.data.split import leave_one_out
from adrec.diagnose.source import attribute_of, distinct_names, named, open_space
from adrec.models.adrec import ADRecModel
from adrec.models.registry import find_model
from adrec.runs.fit import fit
from adrec.runs.folder import Run
from adrec.utils.errors import ConfigError, DataError, RunError
from conftest import TINY, tiny_changes

ROWS = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)


def test_files_are_read_whatever_their_precision(tmp_path: Path) -> None:
    for kind in ("float16", "float32", "float64"):
        np.save(tmp_path / "e.npy", ROWS.astype(kind))
        np.testing.assert_allclose(open_space(tmp_path / "e.npy").embedding, ROWS, atol=2e-3)
    save_file({"bias": ROWS[0], "weight": ROWS}, tmp_path / "one.safetensors")
    assert np.array_equal(open_space(tmp_path / "one.safetensors").embedding, ROWS)
    save_file({"a": ROWS, "users": ROWS[:5]}, tmp_path / "two.safetensors")
    assert len(open_space(tmp_path / "two.safetensors", tensor="users").embedding) == 5
    for asked, sentence in ((None, "name one with --tensor: a, users"), ("user", "did you mean 'users'")):
        with pytest.raises(ConfigError, match=sentence):
            open_space(tmp_path / "two.safetensors", tensor=asked)


def test_what_is_no_embedding(tmp_path: Path) -> None:
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "infinite.npy", np.array([[1.0, np.inf], [0, 1]]))
    (tmp_path / "junk.npy").write_text("x")
    (tmp_path / "junk.safetensors").write_text("x")
    (tmp_path / "table.csv").write_text("x")
    for name, error, sentence in (
        ("text.npy", DataError, "not real numbers"),
        ("pickled.npy", DataError, "cannot be read as a NumPy array"),
        ("infinite.npy", DataError, "infinite.npy has inf in row 0, column 1"),
        ("junk.npy", DataError, "cannot be read as a NumPy array"),
        ("junk.safetensors", DataError, "cannot be read as safetensors"),
        ("table.csv", ConfigError, "is no run folder, .npy or .safetensors file"),
        ("nothing.npy", DataError, "there is no file"),
        ("nothing", RunError, "there is no run folder"),
    ):
        with pytest.raises(error, match=sentence):
            open_space(tmp_path / name)


def test_rows_of_another_library_are_a_data_set_s_items(dataset: Dataset, tmp_path: Path) -> None:
    write_dataset(dataset, tmp_path / "data")
    rows = np.random.default_rng(1).standard_normal((dataset.num_items + 1, 4)).astype(np.float32)
    np.save(tmp_path / "padded.npy", rows)
    np.save(tmp_path / "plain.npy", rows[1:])
    padded, plain = (open_space(tmp_path / f"{name}.npy", data=tmp_path / "data") for name in ("padded", "plain"))
    assert np.array_equal(padded.embedding, plain.embedding)
    assert plain.ids is not None and plain.ids.equals(dataset.catalogue.ids)
    np.save(tmp_path / "short.npy", rows[3:])
    with pytest.raises(ConfigError, match="give the data set that it is of"):
        open_space(tmp_path / "short.npy", data=tmp_path / "data")


def test_followers_and_popularity_are_those_of_the_training_part(dataset: Dataset, tmp_path: Path) -> None:
    write_dataset(dataset, tmp_path / "data")
    np.save(tmp_path / "e.npy", np.random.default_rng(1).standard_normal((dataset.num_items, 4)))
    space, split = open_space(tmp_path / "e.npy", data=tmp_path / "data"), leave_one_out(dataset)
    expected, counts = [], np.zeros(dataset.num_items, dtype=int)
    for user in range(dataset.num_users):
        trained = dataset.items[dataset.offsets[user] : split.train_ends[user]]
        np.add.at(counts, trained - 1, 1)
        expected += [(a - 1, b - 1) for a, b in itertools.pairwise(trained) if a != b]
    assert space.followers is not None and space.popularity is not None
    assert list(zip(*(side.tolist() for side in space.followers), strict=True)) == expected
    assert space.popularity.tolist() == counts.tolist()


def test_a_run_has_its_stage_1_beside_it(dataset: Dataset, tmp_path: Path) -> None:
    write_dataset(dataset, tmp_path / "data")
    small = {**TINY, "pretrain.epochs": 2, "align.epochs": 1, "finetune.epochs": 1}
    model = ADRec("paper", small).fit(dataset)
    model.save(tmp_path / "saved")
    assert open_space(tmp_path / "saved").stage_1 is None, "only a run folder has kept it"
    run = train_dataset(tmp_path / "data", tmp_path / "run", model.model, None, model.seed, Console(quiet=True))
    space = open_space(run.path)
    assert space.stage_1 is not None and space.stage_1.shape == space.embedding.shape
    assert not np.array_equal(space.stage_1, space.embedding)
    whole = diagnose.diagnose(space)
    assert set(whole.references) == {"gaussian", "shuffled", "stage 1"}
    only = tiny_changes(2, 0, 0)
    first = ADRecModel(preset("paper", only))
    fit(first, dataset, leave_one_out(dataset), seed=model.seed)
    np.testing.assert_array_equal(space.stage_1, first.item_vectors[1:])


def test_a_model_without_vectors_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    write_dataset(dataset, tmp_path / "data")
    ADRec(model="popular").fit(dataset).save(tmp_path / "popular")
    with pytest.raises(ConfigError, match="popular has no item vectors"):
        open_space(tmp_path / "popular")
    assert find_model("popular") is Run.open(tmp_path / "popular").model_class


def test_attributes(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", ROWS)
    space = open_space(tmp_path / "e.npy")
    pl.DataFrame({"item": [0, 1, 99], "genre": ["war", "", "sea"]}).write_csv(tmp_path / "a.csv")
    values, notes = attribute_of(space, tmp_path / "a.csv", "genre")
    assert values == ["war", *[None] * 11]
    assert notes == (
        "1 item of a.csv unknown and left out, such as '99'.",
        "11 of 12 items without genre in a.csv.",
    )
    assert named(space, tmp_path / "a.csv", "genre").ids.to_list()[:3] == ["war", "1", "2"]
    with pytest.raises(DataError, match="has no column 'gener' .did you mean 'genre'"):
        attribute_of(space, tmp_path / "a.csv", "gener")
    pl.DataFrame({"item": ["x"], "genre": ["war"]}).write_csv(tmp_path / "b.csv")
    with pytest.raises(DataError, match="no item of b.csv, such as 'x', is among those of e"):
        attribute_of(space, tmp_path / "b.csv", "genre")


def test_names_are_as_short_as_they_can_be() -> None:
    assert distinct_names([Path("a/x"), Path("b/y")]) == ["x", "y"]
    assert distinct_names([Path("a/run"), Path("b/run")]) == ["a/run", "b/run"]
    with pytest.raises(ConfigError, match="the same embedding is named twice"):
        distinct_names([Path("a"), Path("a")])
