"""The daily loop as commands: extend, train from yesterday's run, backtest, refit, replace."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from adrec import ADRec
from adrec.data.dataset import open_dataset
from adrec.runs.folder import Run
from command import adrec, refused
from conftest import cyclic_table, reseal

DAY, START = 86400, 1_600_000_000
FAST = ("--preset", "fast", "--max-epochs", "30", "--set", "model.hidden_size=8", "--threads", "1")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set, a run on it, and the data set of some days later."""
    folder = tmp_path_factory.mktemp("shop")
    table = cyclic_table(60).with_columns(timestamp=pl.col("timestamp") * DAY + START)
    cut = START + 7 * DAY
    news = pl.DataFrame({"user_id": ["user 1", "nobody"], "item_id": ["new", "new"], "timestamp": [cut + 3 * DAY] * 2})
    table.filter(pl.col("timestamp") <= cut).write_csv(folder / "first.csv")
    pl.concat([table.filter(pl.col("timestamp") > cut), news]).write_csv(folder / "later.csv")
    for command in (
        ("prepare", "first.csv", "--out", "day7"),
        ("train", "day7", "--out", "run7", *FAST),
        ("prepare", "later.csv", "--extend", "day7", "--out", "day10"),
        ("train", "day10", "--from", "run7", "--out", "run10", "--max-epochs", "1", "--threads", "1"),
    ):
        done = adrec(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def test_a_run_starts_from_an_earlier_one(shop: Path) -> None:
    older, newer = Run.open(shop / "run7"), Run.open(shop / "run10")
    assert newer.info.started_from == str((shop / "run7").resolve())
    assert list(newer.config.stages) == ["finetune"]  # type: ignore[attr-defined]
    assert (older.info.num_items, newer.info.num_items) == (12, 13)
    assert newer.config.to_dict()["model"] == older.config.to_dict()["model"]
    rows = newer.rows()
    assert rows[0]["loss"]["ce"] < older.rows()[0]["loss"]["ce"], "it goes on where the earlier run was"


@pytest.mark.slow
def test_an_interrupted_warm_start_resumes_to_the_same_weights(shop: Path, tmp_path: Path) -> None:
    common = ("--from", shop / "run7", "--threads", "1", "--max-epochs", "3")
    assert adrec("train", shop / "day10", "--out", tmp_path / "whole", *common).returncode == 0
    assert adrec("train", shop / "day10", "--out", tmp_path / "cut", *common).returncode == 0
    whole, cut = (tmp_path / name / "weights.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    # A run that was interrupted before its first epoch has nothing but its two JSON files.
    reseal(tmp_path / "cut" / "run.json", finished=False, stages=[])
    cut.unlink()
    (tmp_path / "cut" / "metrics.jsonl").unlink()
    assert adrec("train", "--resume", tmp_path / "cut").returncode == 0
    assert whole.read_bytes() == cut.read_bytes()


def test_a_backtest_is_of_what_is_later(shop: Path, tmp_path: Path) -> None:
    done = adrec("evaluate", shop / "run7", "--data", shop / "day10", "--json", tmp_path / "r.json", "--ranks",
                 tmp_path / "ranks.csv")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    later = pl.read_csv(shop / "later.csv").filter(pl.col("user_id") != "nobody")  # who has no history
    assert found["split"] == "after:2020-09-20T12:26:40Z"
    assert found["held_out"] == later.height
    assert found["held_out_new_items"] == 1
    ranks = pl.read_csv(tmp_path / "ranks.csv").sort("user", "item")
    assert ranks.select("user", "item").rows() == later.select("user_id", "item_id").sort("user_id", "item_id").rows()
    series = adrec("evaluate", shop / "run7", "--data", shop / "day10", "--every", "1d", "--json", tmp_path / "s.json")
    assert series.returncode == 0, series.stderr
    periods = json.loads((tmp_path / "s.json").read_text())["periods"]
    days = later.group_by("timestamp").len().sort("timestamp")["len"].to_list()
    assert [period["held_out"] for period in periods] == days
    assert [period["begin"] for period in periods] == [f"2020-09-{20 + day}T12:26:40Z" for day in range(len(days))]
    whole = sum(period["metrics"]["hr@20"]["mean"] * period["held_out"] for period in periods) / later.height
    assert whole == pytest.approx((ranks["rank"] <= 20).mean())


def test_what_leaks_or_does_not_fit_is_refused(shop: Path, tmp_path: Path) -> None:
    assert adrec("refit", "run7", "--out", tmp_path / "final7", cwd=shop).returncode == 0
    for arguments, said in (
        (("train", "day10", "--out", "x", "--from", tmp_path / "final7"), "interactions that first holds out"),
        (("train", "day7", "--out", "x", "--from", "run10"), "was trained on other items than first begins with"),
        (
            ("train", "day10", "--out", "x", "--from", "run7", "--preset", "fast"),
            "--from takes the model and its settings",
        ),
        (("train", "day10", "--out", "x", "--from", "run7", "--set", "pretrain.epochs=3"), "pretrain is left out"),
        (("train", "--resume", "run7", "--from", "run7"), "leave out --from and --overwrite"),
        (("refit", "run7", "--out", "x", "--from", "run7"), "was not trained with --from"),
        (("evaluate", "run7", "--every", "1d"), "give newer data with --data"),
        (("evaluate", "run7", "--data", "day10", "--on", "validation"), "are all test; leave out --on"),
        (("evaluate", "run7", "--data", "day10", "--every", "often"), "is no span of time"),
        (("evaluate", tmp_path / "final7"), "nothing was held out to evaluate it on; give newer --data"),
        (("evaluate", "run7", "--fail-below", "ndgc@20=0.1"), "no metric 'ndgc@20' (did you mean 'ndcg@20'?)"),
        (("evaluate", "run7", "--fail-below", "ndcg@20"), "'' is no number"),
        (
            ("train", "day10", "--out", "run7", "--from", "run7", "--overwrite"),
            "cannot be replaced by a run that starts",
        ),
        (
            ("train", "day10", "--out", "x", "--from", "run7", "--set", "model.hidden_size=16"),
            "does not fit the weights",
        ),
        (("train", "day7", "--out", "day7", "--overwrite"), "day7 holds no run; --overwrite replaces runs alone"),
    ):
        assert said in refused(*arguments, cwd=shop), said
    assert not (shop / "x").exists()
    backtest = adrec("evaluate", tmp_path / "final7", "--data", "day10", cwd=shop)
    assert backtest.returncode == 0, "a refit is tested on what is later than all that it was trained on"


def test_a_refit_starts_where_its_run_started(shop: Path, tmp_path: Path) -> None:
    done = adrec("refit", "run10", "--out", tmp_path / "final10", cwd=shop)
    assert done.returncode == 0, done.stderr
    assert "starts from the weights of an earlier run; 1 new item." in done.stderr
    assert Run.open(tmp_path / "final10").info.started_from == str((shop / "run7").resolve())


def test_a_pipeline_fails_below_a_metric(shop: Path) -> None:
    good = adrec("evaluate", "run10", "--fail-below", "ndcg@20=0.01", cwd=shop)
    assert good.returncode == 0, good.stderr
    bad = adrec("evaluate", "run10", "--fail-below", "hr@5=0.01", "--fail-below", "ndcg@20=1.01", cwd=shop)
    assert bad.returncode == 1
    assert bad.stderr.splitlines()[-1].startswith("adrec: ndcg@20 is 0.")
    assert bad.stderr.endswith(", below 1.01.\n")
    quiet = adrec("evaluate", "run10", "--fail-below", "ndcg@20=1.01", "--quiet", cwd=shop)
    assert quiet.stderr.startswith("adrec: ndcg@20 is 0.")


def test_a_run_is_replaced_once_the_new_one_is_finished(shop: Path, tmp_path: Path) -> None:
    current = tmp_path / "current"
    train = ("train", shop / "day7", "--out", current, *FAST)
    assert adrec(*train).returncode == 0
    before = (current / "weights.safetensors").read_bytes()
    assert "holds a run already" in refused(*train)
    broken = refused(*train, "--overwrite", "--set", "model.hidden_size=7")
    assert "hidden_size" in broken
    assert (current / "weights.safetensors").read_bytes() == before
    done = adrec(*train, "--overwrite", "--seed", "7", "--dates")
    assert done.returncode == 0, done.stderr
    assert all(line[:2] == "20" and line[10] == "T" for line in done.stderr.splitlines())
    assert (current / "weights.safetensors").read_bytes() != before
    assert {each.name for each in tmp_path.iterdir()} == {"current"}
    assert adrec("evaluate", current).returncode == 0, "it finds its data set from the new place"
    (tmp_path / "current.new").mkdir()
    assert "is an unfinished replacement" in refused(*train, "--overwrite")


def test_ranks_that_cannot_be_kept_are_no_error(shop: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(shop / "run7", tmp_path / "run")
    (tmp_path / "run" / "ranks-test.parquet").mkdir()  # stands for a folder that may not be written
    done = adrec("evaluate", tmp_path / "run", "--data", shop / "day7", "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    assert "warning: the ranks are not kept" in done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["metrics"]
    assert open_dataset(shop / "day7").num_items == 12


def test_who_had_too_few_interactions_is_not_held_out(shop: Path, tmp_path: Path) -> None:
    """A user with two interactions trains with both; with a third, one of them would be held out."""
    table = pl.read_csv(shop / "first.csv")
    short = pl.DataFrame({"user_id": ["short"] * 2, "item_id": ["item 1", "item 2"], "timestamp": [START, START + DAY]})
    pl.concat([table, short]).write_csv(tmp_path / "first.csv")
    third = pl.DataFrame({"user_id": ["short"], "item_id": ["item 3"], "timestamp": [START + 8 * DAY]})
    pl.concat([third, pl.read_csv(shop / "later.csv")]).write_csv(tmp_path / "later.csv")
    assert adrec("prepare", "first.csv", "--out", "a", cwd=tmp_path).returncode == 0
    assert adrec("train", "a", "--out", "run", *FAST, cwd=tmp_path).returncode == 0
    assert adrec("prepare", "later.csv", "--extend", "a", "--out", "b", cwd=tmp_path).returncode == 0
    done = adrec("train", "b", "--from", "run", "--out", "next", "--max-epochs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: of 1 user nothing is held out: run was trained on it" in done.stderr
    assert adrec("evaluate", "next", "--ranks", "ranks.csv", cwd=tmp_path).returncode == 0
    assert "short" not in set(pl.read_csv(tmp_path / "ranks.csv")["user"])


def test_times_in_another_unit_do_not_hide_what_is_later(shop: Path, tmp_path: Path) -> None:
    whole = pl.concat([pl.read_csv(shop / "first.csv"), pl.read_csv(shop / "later.csv")])
    dated = whole.with_columns(timestamp=pl.from_epoch("timestamp"))
    dated.write_parquet(tmp_path / "dated.parquet")
    done = adrec("prepare", tmp_path / "dated.parquet", "--vocabulary", "day7", "--out", tmp_path / "dated", cwd=shop)
    assert done.returncode == 0, done.stderr
    found = adrec("evaluate", "run7", "--data", tmp_path / "dated", "--json", tmp_path / "r.json", cwd=shop)
    assert found.returncode == 0, found.stderr
    later = pl.read_csv(shop / "later.csv").filter(pl.col("user_id") != "nobody")
    assert json.loads((tmp_path / "r.json").read_text())["held_out"] == later.height
    assert adrec("refit", "run7", "--out", tmp_path / "final", cwd=shop).returncode == 0
    said = refused("train", tmp_path / "dated", "--from", tmp_path / "final", "--out", tmp_path / "x", cwd=shop)
    assert "holds out, so its metrics would be too high" in said


def test_a_run_is_not_replaced_with_its_data_or_somebody_elses_files(shop: Path, tmp_path: Path) -> None:
    ADRec.load(shop / "run7").save(tmp_path / "saved")
    for words in (["train", tmp_path / "saved" / "data"], ["refit", tmp_path / "saved"]):
        said = refused(*words, "--out", tmp_path / "saved", "--overwrite")
        assert "saved holds its data set too, which would be lost" in said
    assert ADRec.load(tmp_path / "saved").recommend(k=1).height > 0
    shutil.copytree(shop / "run7", tmp_path / "run")
    (tmp_path / "run" / "notes.md").write_text("mine")
    said = refused("train", shop / "day10", "--out", tmp_path / "run", "--overwrite", "--model", "popular")
    assert "notes.md is no part of the run that would be replaced" in said


def test_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    table = os.fsencode(tmp_path) + b"/t\xff.csv"
    with open(table, "w") as file:  # noqa: PTH123 - a path of bytes
        file.write("user,item,time\n" + "".join(f"u{at % 5},i{at % 7},{at}\n" for at in range(40)))
    done = adrec("prepare", os.fsdecode(table), "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert adrec("inspect", tmp_path / "data").returncode == 0
