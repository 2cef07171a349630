"""Shards of recommendations: the same as one table, in parts, after a kill, and refused where they are of another."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import polars as pl
import pytest

import command
from adrec.bulk.shards import Shards, Share
from adrec.cli.sharding import Sharding
from adrec.utils.errors import ConfigError, RunError


def whole(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))])


def recommend(run: Path, out: Path, *more: str) -> str:
    done = command.adrec("recommend", run, "--out", out, "--threads", "1", *more)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


@pytest.mark.slow
def test_all_shards_are_the_table(small_run: Path, tmp_path: Path) -> None:
    recommend(small_run, tmp_path / "all.parquet")
    said = recommend(small_run, tmp_path / "shards", "--shard-size", "25")
    assert "5 shards in all" in said
    for number in (3, 1, 2):
        recommend(small_run, tmp_path / "parts", "--shard-size", "25", "--shard", f"{number}/3")
    expected = pl.read_parquet(tmp_path / "all.parquet")
    for folder in ("shards", "parts"):
        found = whole(tmp_path / folder)
        columns = ["user_id", "item_id", "rank", "source"]  # scores depend on the batch by rounding
        assert found.select(columns).equals(expected.select(columns))
    names = [{path.name for path in (tmp_path / folder).iterdir()} for folder in ("shards", "parts")]
    assert names[0] == names[1] and len(names[0]) == 5
    assert pl.read_parquet(tmp_path / "shards").height == expected.height  # a folder of Parquet files alone


def test_what_is_done_is_not_done_again_and_what_is_damaged_is(small_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    recommend(small_run, out, "--shard-size", "40")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    half = out / "part-00001-of-00003.parquet"
    half.write_bytes(half.read_bytes()[:100])
    (out / "part-00002-of-00003.parquet").unlink()
    said = recommend(small_run, out, "--shard-size", "40")
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert {name: each[0] for name, each in after.items()} == {name: each[0] for name, each in before.items()}
    assert after["part-00000-of-00003.parquet"] == before["part-00000-of-00003.parquet"]
    assert said.count("it is computed again") == 2 and "whole already: 1 shard" in said


def test_what_is_alike_in_all_shards_is_said_once(small_run: Path, tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["item 1", "item 2"]}).write_csv(tmp_path / "allow.csv")
    said = recommend(
        small_run, tmp_path / "shards", "--shard-size", "40", "--allow", str(tmp_path / "allow.csv"), "--k", "5"
    )
    assert said.count("users 1 to 40: ") == said.count("note: users ") == 1, said
    assert "2 other shards had such a note" in said


@pytest.mark.slow
def test_a_killed_job_goes_on(small_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    arguments = ["recommend", str(small_run), "--out", str(out), "--shard-size", "1", "--threads", "1"]
    process = command.start(*arguments)
    marks = tmp_path / ".shards.shards"
    while len(list(marks.glob("*.done"))) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert 20 <= len(done) < 120
    recommend(small_run, out, "--shard-size", "1")
    marked = {path for path in done if list(marks.glob(f"{path.stem}.*.done"))}
    assert len(marked) >= 20 and sum(path.stat().st_mtime_ns == done[path] for path in done) >= len(done) - 1
    recommend(small_run, tmp_path / "all.parquet")
    columns = ["user_id", "item_id", "rank"]
    assert whole(out).select(columns).equals(pl.read_parquet(tmp_path / "all.parquet").select(columns))
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("sharding", "said"),
    [
        (Sharding(Path("x.parquet"), 5), "a folder"),
        (Sharding(None, 5), "give it with --out FOLDER"),
        (Sharding(Path("x"), share="5/4"), "--shard is i/n"),
        (Sharding(Path("x"), engine="spark", share="1/2"), "divides the work itself"),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_refused(sharding: Sharding, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sharding.check(None, [])
    with pytest.raises(ConfigError, match="--format"):
        Sharding(Path("x"), 5).check("csv", [])
    with pytest.raises(ConfigError, match="leave out --device"):
        Sharding(Path("x"), engine="ray").check(None, [], "cuda")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "x", "--engine", "ray", "--explain", "2"], "without --explain"),
        (["--out", "full", "--shard-size", "5"], "is not empty and has no shards"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(small_run: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    done = command.adrec("recommend", small_run, *arguments, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"full"} and len(list((tmp_path / "full").iterdir())) == 1


def test_another_request_is_refused(tmp_path: Path) -> None:
    Shards(tmp_path / "out", {"k": 3}, 10, 5).prepare()
    Shards(tmp_path / "out", {"k": 3}, 10, 5).prepare()
    for other in (Shards(tmp_path / "out", {"k": 4}, 10, 5), Shards(tmp_path / "out", {"k": 3}, 11, 5)):
        with pytest.raises(RunError, match="shards of another request"):
            other.prepare()
    Shards(tmp_path / "one", {"weights": "1"}, 10, 5).prepare()
    with pytest.raises(RunError, match="has the shards of another run; choose another --out, or remove it and"):
        Shards(tmp_path / "one", {"weights": "2"}, 10, 5).prepare()
    (tmp_path / ".out.shards" / "request.json").write_text("{}")
    with pytest.raises(RunError, match="choose another --out"):
        Shards(tmp_path / "out", {"k": 3}, 10, 5).prepare()


def test_two_that_begin_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes the request after this one has looked for it."""
    first, second = (Shards(tmp_path / "out", {"k": 3}, 10, 5) for _ in range(2))
    exists, calls = Path.exists, []

    def late(path: Path) -> bool:
        calls.append(path)
        if len(calls) == 1:
            first.prepare()
            return False
        return exists(path)

    monkeypatch.setattr(Path, "exists", late)
    second.prepare()


def test_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Share.parse(None) == Share(1, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert Share.parse(None) == Share(3, 3)
    assert Share.parse("2/4") == Share(2, 4)
    for text in ("0/4", "5/4", "/", "1", "a/b", "-1/2"):
        with pytest.raises(ConfigError, match="i/n"):
            Share.parse(text)
