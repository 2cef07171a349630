"""Snapshots come back whole, or the damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adrec.train.checkpoint import Snapshot, read_snapshot, with_prefix, write_snapshot
from adrec.utils.errors import RunError, UserError


@pytest.fixture
def path(tmp_path: Path, device: torch.device) -> Path:
    tensors = with_prefix("a", {"x": torch.arange(2000.0), "y": torch.tensor(3, dtype=torch.uint8)})
    tensors = {name: value.to(device) for name, value in tensors.items()}
    write_snapshot(tmp_path / "state.safetensors", Snapshot(tensors, {"epoch": 3, "best": {"hr@5": 0.25}}))
    return tmp_path / "state.safetensors"


def test_round_trip(path: Path) -> None:
    snapshot = read_snapshot(path)
    assert snapshot.values == {"epoch": 3, "best": {"hr@5": 0.25}}
    assert torch.equal(snapshot.part("a")["x"], torch.arange(2000.0))
    assert snapshot.part("b") == {}


def test_equal_snapshots_are_equal_files(tmp_path: Path) -> None:
    contents = set()
    for number in range(8):
        path = tmp_path / str(number)
        write_snapshot(path, Snapshot({"x": torch.ones(2), "y": torch.zeros(3)}, {"a": 1, "b": 2}))
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_nothing_else_is_left_in_the_folder(path: Path) -> None:
    assert [file.name for file in path.parent.iterdir()] == ["state.safetensors"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="none.safetensors is missing"):
        read_snapshot(tmp_path / "none.safetensors")


@pytest.mark.parametrize("size", [0, 7, 100, 4000])
def test_a_file_cut_short_is_named(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunError, match="state.safetensors is damaged"):
        read_snapshot(path)


def test_a_changed_byte_is_found(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(RunError, match="was altered"):
        read_snapshot(path)


def test_a_write_that_fails_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adrec.train.checkpoint.save_file", full_disk)
    with pytest.raises(UserError, match=r"state.safetensors cannot be written \(No space left on device\)"):
        write_snapshot(path, Snapshot({"x": torch.zeros(1)}))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["state.safetensors"]
