"""Writing is atomic: the old content or the new, whatever happens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adrec.errors import UserError
from adrec.files import atomic_file, atomic_folder, recover, write_bytes


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "a") as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_bytes() == b"old"
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_what_a_killed_writer_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.tmp").write_bytes(b"half")
    write_bytes(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]


def test_files_are_readable_by_others_as_usual(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    with atomic_file(tmp_path / "a") as temporary:
        temporary.write_bytes(b"x")
        temporary.chmod(0o600)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "data") as folder:
        (folder / "dataset.json").write_text("{}")
        raise ZeroDivisionError
    assert names(tmp_path) == []
    with atomic_folder(tmp_path / "data") as folder:
        (folder / "dataset.json").write_text("{}")
    assert names(tmp_path) == ["data"]


def test_the_folder_we_are_in_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_folder(Path()) as folder:
        (folder / "dataset.json").write_text("{}")
    assert names(tmp_path) == ["here"]
    assert names(tmp_path / "here") == ["dataset.json"]


def test_a_folder_killed_while_it_was_overwritten_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".data.old").mkdir()
    (tmp_path / ".data.old" / "dataset.json").write_text("{}")
    recover(tmp_path / "data")
    assert names(tmp_path) == ["data"]
    recover(tmp_path / "nothing")
    assert names(tmp_path) == ["data"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        write_bytes(tmp_path / "a", b"x")
    with pytest.raises(UserError, match="Permission denied"), atomic_folder(tmp_path / "b"):
        pass


def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(UserError, match="No space left on device"), atomic_file(tmp_path / "a"):
        Path("/dev/full").write_bytes(b"x" * 100_000)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]
