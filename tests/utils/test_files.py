"""Writing is atomic: the old content or the new, whatever happens."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from adrec.utils.errors import UserError
from adrec.utils.files import NODE, atomic_file, write_bytes
from adrec.utils.folders import DATASET, atomic_folder, check_apart, check_folder, recover


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


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_writer_left_is_removed_later(tmp_path: Path) -> None:
    ended = ended_process()
    gone = [tmp_path / f".a.{NODE}-{ended}-0123abcd.tmp", tmp_path / f".a.0123abcd-{ended}-0123abcd.tmp"]
    kept = [f".a.{NODE}-{os.getpid()}-0123abcd.tmp", ".a.tmp", ".a.mine.tmp", f".b.{NODE}-{ended}-0123abcd.tmp"]
    for path in (*gone, *(tmp_path / name for name in kept)):
        path.write_bytes(b"half")
        if str(os.getpid()) not in path.name:
            os.utime(path, (0, 0))
    fresh = tmp_path / f".a.0123abcd-{ended}-89abcdef.tmp"
    fresh.write_bytes(b"half")
    write_bytes(tmp_path / "a", b"new")
    assert not any(path.exists() for path in gone), "of a process that ended here, and an old one of another machine"
    assert names(tmp_path) == sorted(["a", fresh.name, *kept]), "writers at work, and what is not ours"


def test_of_two_writers_of_a_file_the_last_to_end_wins(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as one, atomic_file(tmp_path / "a") as other:
        assert one != other
        one.write_bytes(b"one, whole")
        other.write_bytes(b"other")
    assert (tmp_path / "a").read_bytes() == b"one, whole"
    assert names(tmp_path) == ["a"]


def test_many_processes_write_one_file_and_it_is_always_whole(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from adrec.utils.files import write_bytes\n"
    code += "for _ in range(20): write_bytes(Path('a'), sys.argv[1].encode() * 100_000)"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(n)], cwd=tmp_path) for n in range(4)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / "a").exists():
            content = (tmp_path / "a").read_bytes()
            assert len(content) == 100_000 and len(set(content)) == 1
            seen.add(content[0])
    assert [writer.returncode for writer in writers] == [0] * 4 and seen
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_writers_of_a_folder_one_wins(tmp_path: Path, overwrite: bool) -> None:
    with contextlib.ExitStack() as stack:
        if not overwrite:
            stack.enter_context(pytest.raises(UserError, match="data exists already and is not empty"))
        kind = DATASET if overwrite else None
        with atomic_folder(tmp_path / "data", overwrite=kind) as first:
            (first / "dataset.json").write_text("first")
            with atomic_folder(tmp_path / "data", overwrite=kind) as second:
                (second / "dataset.json").write_text("second")
    assert (tmp_path / "data" / "dataset.json").read_text() == ("first" if overwrite else "second")
    assert names(tmp_path) == ["data"]


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
    (tmp_path / ".data.old").mkdir()  # of a user
    old = tmp_path / f".data.{NODE}-{ended_process()}-0123abcd.old"
    old.mkdir()
    (old / "dataset.json").write_text("{}")
    recover(tmp_path / "data")
    assert names(tmp_path) == [".data.old", "data"]
    (tmp_path / ".data.old").rmdir()
    recover(tmp_path / "nothing")
    assert names(tmp_path) == ["data"]


def test_a_reader_does_not_disturb_a_folder_that_is_being_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the writer's two renames, and waits for the second."""
    with atomic_folder(tmp_path / "data") as folder:
        (folder / "dataset.json").write_text("old")
    replace, readers = Path.replace, []

    def slow(self: Path, target: Path) -> Path:
        moved = replace(self, target)
        if str(target).endswith(".old"):
            readers.append(threading.Thread(target=recover, args=[tmp_path / "data"]))
            readers[-1].start()
            readers[-1].join(0.2)
        return moved

    monkeypatch.setattr(Path, "replace", slow)
    with atomic_folder(tmp_path / "data", overwrite=DATASET) as folder:
        (folder / "dataset.json").write_text("new")
    readers[0].join()
    assert (tmp_path / "data" / "dataset.json").read_text() == "new"
    assert names(tmp_path) == ["data"]


def test_a_folder_that_is_read_only_is_said(tmp_path: Path) -> None:
    """In a fork without privileges: root may write anywhere."""
    place = tmp_path / "place"
    place.mkdir(mode=0o555)
    said, told = os.pipe()
    child = os.fork()
    if not child:
        os.chdir(place)  # what is above it may be private
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        for write in (lambda: write_bytes(Path("a"), b"x"), lambda: atomic_folder(Path("b")).__enter__()):
            try:
                write()
            except UserError as error:
                os.write(told, f"{error}\n".encode())
            except BaseException as error:
                os.write(told, f"{error!r}\n".encode())
        os._exit(0)
    os.close(told)
    os.waitpid(child, 0)
    with os.fdopen(said) as file:
        lines = file.read().splitlines()
    assert len(lines) == 2, lines
    assert all("cannot be written (Permission denied)" in line for line in lines), lines
    assert names(place) == []


def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(UserError, match="No space left on device"), atomic_file(tmp_path / "a"):
        Path("/dev/full").write_bytes(b"x" * 100_000)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_place_below_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"table.csv/x.csv cannot be written \(.*\); make room or choose another place"):
        write_bytes(tmp_path / "table.csv" / "x.csv", b"x")
    with pytest.raises(UserError, match="cannot be written"), atomic_folder(tmp_path / "table.csv" / "run"):
        pass
    assert (tmp_path / "table.csv").read_bytes() == b"mine"


def test_a_device_is_written_into_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")  # a link, so that a rename would replace no more than that
    with pytest.raises(UserError, match=r"full cannot be written \(No space left on device\)"):
        write_bytes(tmp_path / "full", b"x")
    assert (tmp_path / "full").is_char_device()
    (tmp_path / "null").symlink_to("/dev/null")
    write_bytes(tmp_path / "null", b"x")
    assert (tmp_path / "null").is_char_device()
    with pytest.raises(UserError, match="null is a file, not a folder"):
        check_folder(tmp_path / "null")
    assert names(tmp_path) == ["full", "null"]


def test_a_pipe_is_written_into_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    with atomic_file(tmp_path / "pipe") as temporary:
        temporary.write_bytes(b"one")
        temporary.write_bytes(b"two")
    reader.join(timeout=60)
    assert got == [b"two"]
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["/dev/stdout", "out"])
@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_what_standard_output_goes_to_keeps_what_else_is_written(tmp_path: Path, name: str, mode: str) -> None:
    (tmp_path / "out").write_bytes(b"before ")
    (tmp_path / "link").symlink_to(name)
    code = "from pathlib import Path; from adrec.utils.files import write_bytes; print('a', end=' '); "
    code += "write_bytes(Path('link'), b'b '); print('c')"
    with (tmp_path / "out").open(mode) as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == (b"before " if mode == "ab" else b"") + b"a b c\n"
    assert (tmp_path / "link").is_symlink()


def test_inputs_are_no_outputs(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "data" / "a")
    with pytest.raises(UserError, match="link is read, and would be overwritten; choose another --out"):
        check_apart(tmp_path / "link", [None, tmp_path / "b", tmp_path / "data" / "a"], "--out")
    with pytest.raises(UserError, match="link, which is read, is in .*data, which is replaced"):
        check_apart(tmp_path / "data", [tmp_path / "link"], "--out")
    with pytest.raises(UserError, match="data is read"):
        check_apart(tmp_path / "data", [tmp_path / "data"], "--out")
    check_apart(tmp_path / "b", [tmp_path / "data" / "a", tmp_path / "b"], "--out")
    check_apart(None, [tmp_path / "link"], "--out")
