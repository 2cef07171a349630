"""The prepared data set on disk: what is written is what is opened, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrec.data.dataset import FORMAT_VERSION, Dataset, open_dataset, write_dataset
from adrec.data.prepare import prepare
from adrec.utils.errors import DataError, UserError
from conftest import reseal

FILES = {"items.npy", "offsets.npy", "times.npy", "users.parquet", "items.parquet", "dataset.json"}


def data(users: list[Any] | None = None) -> Dataset:
    users = users or ["ann", "bob", "ann"]
    return prepare(pl.DataFrame({"user": users, "item": range(len(users)), "time": [0.5] * len(users)}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(data(), tmp_path / "data")
    return tmp_path / "data"


def test_what_is_written_is_what_is_opened(folder: Path) -> None:
    written, opened = data(), open_dataset(folder)
    assert {file.name for file in folder.iterdir()} == FILES
    assert set(opened.info.files) == FILES - {"dataset.json"}
    for name in ("items", "offsets", "times"):
        array = getattr(opened, name)
        assert isinstance(array, np.memmap)
        assert array.dtype == getattr(written, name).dtype
        assert np.array_equal(array, getattr(written, name))
    assert opened.users.ids.equals(written.users.ids, check_dtypes=True)
    assert opened.catalogue.ids.equals(written.catalogue.ids, check_dtypes=True)
    assert (opened.fingerprint, opened.path) == (written.fingerprint, folder)
    assert opened.info.format_version == FORMAT_VERSION


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, max_size=12))
def test_messy_ids_come_back_from_disk(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    folder = tmp_path_factory.mktemp("ids") / "data"
    write_dataset(data(ids), folder)
    users = open_dataset(folder).users
    assert users.decode(users.encode(ids)).to_list() == ids


def test_nothing_is_overwritten_unless_asked(folder: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        write_dataset(data([1, 2, 3]), folder)
    assert open_dataset(folder).num_users == 2
    write_dataset(data([1, 2, 3]), folder, overwrite=True)
    assert open_dataset(folder).num_users == 3
    assert [each.name for each in folder.parent.iterdir()] == ["data"]


def test_a_folder_of_something_else_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="not empty"):
        write_dataset(data(), tmp_path, overwrite=True)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises((OSError, UserError)):
        write_dataset(data(), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="adrec prepare"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not a prepared data set"):
        open_dataset(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match="run"):
        open_dataset(tmp_path)


def test_a_newer_format(folder: Path) -> None:
    info = json.loads((folder / "dataset.json").read_text()) | {
        "format_version": FORMAT_VERSION + 1,
        "something_new": 1,
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="newer"):
        open_dataset(folder)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.write_bytes(b"")],
    ids=["missing", "cut short", "empty"],
)
def test_damage_names_the_file(folder: Path, name: str, damage: Callable[[Path], Any]) -> None:
    if name == "dataset.json" and damage is not Path.unlink:
        (folder / name).write_bytes((folder / name).read_bytes().rstrip())  # its last byte is a line end
    damage(folder / name)
    with pytest.raises(DataError, match=name):
        open_dataset(folder)


@pytest.mark.parametrize("name", ["items.npy", "users.parquet"])
def test_bytes_that_were_altered_in_place(folder: Path, name: str) -> None:
    (folder / name).write_bytes(bytes((folder / name).stat().st_size))
    with pytest.raises(DataError, match="prepare the data set again"):
        open_dataset(folder)


def test_arrays_with_objects_are_never_unpickled(folder: Path) -> None:
    np.save(folder / "times.npy", np.array([{}], dtype=object), allow_pickle=True)
    info = json.loads((folder / "dataset.json").read_text())
    files = {**info["files"], "times.npy": (folder / "times.npy").stat().st_size}
    reseal(folder / "dataset.json", files=files)
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(folder)
