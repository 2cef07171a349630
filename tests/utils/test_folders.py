"""Output folders: what may be replaced, links, mount points, and what killed writers left in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adrec.utils.errors import UserError
from adrec.utils.files import NODE, abandoned, write_bytes
from adrec.utils.folders import DATASET, RUN, atomic_folder, check_folder, put_in_place


def made(path: Path, marker: str = DATASET, **files: str) -> Path:
    path.mkdir(parents=True)
    for name, text in {marker.replace(".", "_"): "{}", **files}.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_a_folder_of_the_same_kind_is_replaced(tmp_path: Path) -> None:
    run, data = made(tmp_path / "run", RUN), made(tmp_path / "data", DATASET)
    with pytest.raises(UserError, match=r"run exists already and is not empty \(it is a run\); choose"):
        check_folder(run, overwrite=DATASET, overwriting="pass --overwrite")
    with pytest.raises(UserError, match=r"\(it is a prepared data set\); choose another folder\."):
        check_folder(data, overwrite=RUN)
    with pytest.raises(UserError, match=r"choose another folder, or pass --overwrite\."):
        check_folder(data, overwriting="pass --overwrite")
    check_folder(data, overwrite=DATASET)
    check_folder(run, overwrite=RUN)


def test_a_folder_with_somebody_elses_files_is_not_replaced(tmp_path: Path) -> None:
    data = made(tmp_path / "data", DATASET, notes_txt="mine")
    with pytest.raises(UserError, match=r"notes.txt is no part of the prepared data set that would be replaced"):
        check_folder(data, overwrite=DATASET)
    (data / "notes.txt").unlink()
    (data / "analysis.parquet").write_text("mine")
    with pytest.raises(UserError, match="analysis.parquet is no part"):
        check_folder(data, overwrite=DATASET)
    (data / "analysis.parquet").unlink()
    (data / "more").mkdir()
    with pytest.raises(UserError, match="more is no part"), atomic_folder(data, overwrite=DATASET):
        pass
    run = made(tmp_path / "run", RUN)
    for name in ("ranks-test.parquet", "state-0.safetensors", "metrics.jsonl"):
        (run / name).write_text("")
    check_folder(run, overwrite=RUN)
    (run / "recommendations.csv").write_text("mine")
    with pytest.raises(UserError, match="recommendations.csv is no part of the run"):
        check_folder(run, overwrite=RUN)


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "data")
    for text in ("one", "two"):
        with atomic_folder(tmp_path / "link", overwrite=DATASET) as folder:
            (folder / DATASET).write_text(text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "disk" / "data" / DATASET).read_text() == text
    (tmp_path / "file").symlink_to(tmp_path / "disk" / "table.csv")
    for content in (b"one", b"two"):
        write_bytes(tmp_path / "file", content)
        assert (tmp_path / "file").is_symlink()
        assert (tmp_path / "disk" / "table.csv").read_bytes() == content
    assert names(tmp_path / "disk") == ["data", "table.csv"]


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """The name of a temporary file cannot be guessed; whatever stands there is no place to write to."""
    (tmp_path / "victim").write_bytes(b"mine")
    for name in (".a.tmp", f".a.{NODE}-{os.getpid()}-00000000.tmp", f".a.{NODE}-{ended_process()}-00000000.tmp"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert not (tmp_path / "a").is_symlink()


def test_folders_of_a_user_beside_the_output_stay(tmp_path: Path) -> None:
    for name in (".data.tmp", ".data.old", "data.new", ".data.x.tmp"):
        made(tmp_path / name, mine_txt="x")
    for _ in range(2):
        with atomic_folder(tmp_path / "data", overwrite=DATASET) as folder:
            (folder / DATASET).write_text("{}")
    assert names(tmp_path) == [".data.old", ".data.tmp", ".data.x.tmp", "data", "data.new"]


def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    ended = ended_process()
    for ending in ("tmp", "old"):
        made(tmp_path / f".data.{NODE}-{ended}-0123abcd.{ending}")
    made(tmp_path / "data")
    with atomic_folder(tmp_path / "data", overwrite=DATASET) as folder:
        (folder / DATASET).write_text("new")
    assert names(tmp_path) == ["data"]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A mount point, as a container has."""
    place = tmp_path / "volume"
    place.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a mount point needs the right to mount")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_mount_point_is_filled_and_replaced(volume: Path) -> None:
    (volume / "lost+found").mkdir()
    for text, name in (("one", "items.npy"), ("two", "times.npy")):
        with atomic_folder(volume, overwrite=DATASET) as folder:
            (folder / DATASET).write_text(text)
            (folder / name).write_text(text)
        assert names(volume) == sorted([DATASET, "lost+found", name])
    with pytest.raises(UserError, match="exists already"), atomic_folder(volume):
        pass
    with pytest.raises(ZeroDivisionError), atomic_folder(volume, overwrite=DATASET):
        raise ZeroDivisionError
    assert (volume / DATASET).read_text() == "two"


def test_a_mount_point_that_was_half_filled_is_filled_anew(volume: Path) -> None:
    left = made(volume / f".new.{NODE}-{ended_process()}-0123abcd.tmp")
    (volume / "items.npy").write_text("moved already")
    with atomic_folder(volume) as folder:
        (folder / DATASET).write_text("whole")
    assert names(volume) == [DATASET] and not left.exists()


def test_a_file_that_is_a_mount_point_is_written_into(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"old")
    bound = subprocess.run(["mount", "--bind", tmp_path / "b", tmp_path / "a"], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("a mount point needs the right to mount")
    try:
        write_bytes(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == b"new"
    finally:
        subprocess.run(["umount", tmp_path / "a"], check=True)
    assert names(tmp_path) == ["a", "b"]


def test_a_folder_of_another_disk_is_put_in_place(volume: Path, tmp_path: Path) -> None:
    target = made(tmp_path / "run", RUN)
    put_in_place(made(volume / "run.new", RUN, config_json="new"), target, overwrite=RUN)
    assert names(target) == ["config.json", RUN] and names(volume) == []
    assert names(tmp_path) == ["run", "volume"]


def test_the_older_folder_comes_back_if_the_new_one_cannot_be_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, replace = made(tmp_path / "data"), Path.replace

    def failing(path: Path, to: Path) -> Path:
        if path.name.endswith(".tmp"):
            raise OSError(28, "No space left on device")
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(UserError, match="No space left"), atomic_folder(target, overwrite=DATASET) as folder:
        (folder / DATASET).write_text("new")
    assert names(tmp_path) == ["data"] and (target / DATASET).read_text() == "{}"


def test_a_number_of_a_process_that_is_used_again_does_not_keep_leftovers(tmp_path: Path) -> None:
    left = made(tmp_path / f".data.{NODE}-{os.getpid()}-0123abcd.tmp")
    os.utime(left, (1, 1))  # before this process began
    assert abandoned(left)
    old = made(tmp_path / f".data.{NODE}-{os.getpid()}-0123abcd.old")
    check_folder(tmp_path / "other")
    with pytest.raises(UserError, match="exists already"):
        check_folder(tmp_path / "data")  # restored: no writer holds the folder
    assert not old.exists() and (tmp_path / "data" / DATASET).exists()


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"one")
    (tmp_path / "a").chmod(0o600)
    write_bytes(tmp_path / "a", b"two")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
