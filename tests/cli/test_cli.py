"""The command line as users meet it: each verb, its outputs, and bad input in one sentence with exit code 2."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import adrec as package
from adrec.cli import main
from command import TRAIN_FAST, adrec, refused
from conftest import cyclic_table


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a table, a prepared data set and a trained run."""
    folder = tmp_path_factory.mktemp("work")
    cyclic_table().write_csv(folder / "table.csv")
    assert adrec("prepare", "table.csv", "--out", "data", cwd=folder).returncode == 0
    result = adrec("train", "data", "--out", "run", "--max-epochs", "7", *TRAIN_FAST, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_version() -> None:
    assert adrec("--version").stdout == f"adrec {package.__version__}\n"


def test_preparing_and_inspecting_wait_for_no_pytorch() -> None:
    code = "import sys, adrec.cli, adrec.cli.data; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_prepare_tells_what_it_read(work: Path, tmp_path: Path) -> None:
    result = adrec("prepare", work / "table.csv", "--out", tmp_path / "data", "--min-item", "2")
    assert result.stdout == ""
    for part in (
        "user = column 'user_id'",
        "item = column 'item_id'",
        "time = column 'timestamp'",
        "60 users with 12 items",
    ):
        assert part in result.stderr
    assert names(tmp_path / "data") == {
        *("items.npy", "offsets.npy", "times.npy", "users.parquet", "items.parquet", "dataset.json")
    }


def test_quiet_says_nothing(work: Path, tmp_path: Path) -> None:
    result = adrec("prepare", work / "table.csv", "--out", tmp_path / "data", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_run_keeps_everything(work: Path) -> None:
    assert names(work / "run") >= {"config.json", "run.json", "metrics.jsonl", "weights.safetensors"}
    assert "state.safetensors" not in names(work / "run")
    config = json.loads((work / "run" / "config.json").read_text())
    assert config["model"]["hidden_size"] == 16
    rows = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == ["pretrain"] * 7 + ["align"] * 5 + ["finetune"] * 7
    assert all(row["loss"]["ce"] > 0 for row in rows)
    info = json.loads((work / "run" / "run.json").read_text())
    assert info["finished"] is True
    assert info["seed"] == 2025
    assert info["environment"]["torch"]


def test_evaluate(work: Path) -> None:
    result = adrec("evaluate", "run", "--json", "out.json", "--k", "1,5", "--batch-means", cwd=work)
    assert "ndcg@5" in result.stdout
    assert "95 % interval" in result.stdout
    assert "seen items left out (--seen keep does the opposite)." in " ".join(result.stdout.split())
    value = json.loads((work / "out.json").read_text())
    assert (value["split"], value["part"], value["users"]) == ("leave-one-out", "test", 60)
    estimate = value["metrics"]["ndcg@5"]
    assert 0 <= estimate["low"] <= estimate["mean"] <= estimate["high"] <= 1
    assert value["batch_means"]["ndcg@5"] == pytest.approx(estimate["mean"])
    ranks = pl.read_parquet(work / "run" / "ranks-test.parquet")
    assert ranks.columns == ["user", "item", "rank"]
    assert (ranks["rank"] <= 5).mean() == pytest.approx(value["metrics"]["hr@5"]["mean"])
    kept = adrec("evaluate", "run", "--on", "validation", "--seen", "keep", cwd=work)
    assert "seen items ranked too." in " ".join(kept.stdout.split())
    assert "ranks-validation-keep.parquet" in names(work / "run")


def test_recommend_on_standard_output(work: Path) -> None:
    result = adrec("recommend", "run", "--user", "user 3", "--k", "4", "--format", "csv", cwd=work)
    table = pl.read_csv(result.stdout.encode())
    assert table.columns == ["user_id", "item_id", "score", "rank", "source", "confidence"]
    seen = set(cyclic_table().filter(pl.col("user_id") == "user 3")["item_id"])
    assert not seen & set(table["item_id"])
    as_lines = adrec("recommend", "run", "--user", "user 3", "--k", "4", "--format", "jsonl", cwd=work).stdout
    assert [json.loads(line)["item_id"] for line in as_lines.splitlines()] == table["item_id"].to_list()
    shown = adrec("recommend", "run", "--user", "user 3", "--k", "4", cwd=work).stdout
    assert table["item_id"][0] in shown


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_recommend_to_files(work: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out.{ending}"
    result = adrec("recommend", work / "run", "--k", "2", "--out", out)
    assert result.returncode == 0, result.stderr
    readers = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}
    table = readers[ending](out)
    assert table["user_id"].n_unique() == 60
    assert table.group_by("user_id").len()["len"].max() == 2
    assert names(tmp_path) == {out.name}


def test_recommend_with_lists_and_histories(work: Path, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id\nuser 1\nnobody\n")
    (tmp_path / "allow.csv").write_text("item\nitem 1\nitem 2\nitem 3\n")
    (tmp_path / "block.csv").write_text("item\nitem 2\n")
    (tmp_path / "new.csv").write_text("user,item\nzoe,item 4\nzoe,item 5\nyan,item 9\nxi,\n")
    run = work / "run"
    assert "unknown users: 'nobody'" in refused("recommend", run, "--users", tmp_path / "users.csv")
    skipped = adrec("recommend", run, "--users", tmp_path / "users.csv", "--on-unknown", "skip", "--format", "csv")
    assert set(pl.read_csv(skipped.stdout.encode())["user_id"]) == {"user 1"}
    assert "skipped 1 unknown user" in skipped.stderr
    lists = ["--allow", tmp_path / "allow.csv", "--block", tmp_path / "block.csv", "--seen", "keep"]
    allowed = pl.read_csv(adrec("recommend", run, "--user", "user 1", *lists, "--format", "csv").stdout.encode())
    assert set(allowed["item_id"]) == {"item 1", "item 3"}
    new = pl.read_csv(adrec("recommend", run, "--history", tmp_path / "new.csv", "--format", "csv").stdout.encode())
    assert new["user_id"].unique(maintain_order=True).to_list() == ["zoe", "yan", "xi"]
    assert set(new.filter(pl.col("user_id") == "xi")["source"]) == {"popular"}
    assert not {"item 4", "item 5"} & set(new.filter(pl.col("user_id") == "zoe")["item_id"])
    given = adrec("recommend", run, "--given", "item 4", "--given", "item 5", "--format", "csv")
    zoe = new.filter(pl.col("user_id") == "zoe")["item_id"].to_list()
    assert pl.read_csv(given.stdout.encode())["item_id"].to_list() == zoe


def test_similar(work: Path) -> None:
    result = adrec("similar", "run", "--item", "item 3", "--k", "2", "--format", "csv", cwd=work)
    table = pl.read_csv(result.stdout.encode())
    assert table["rank"].to_list() == [1, 2]
    assert "item 3" not in table["similar_item"].to_list()
    assert "unknown items: 'x'" in refused("similar", "run", "--item", "x", cwd=work)


def test_refit_trains_on_everything(work: Path, tmp_path: Path) -> None:
    result = adrec("refit", work / "run", "--out", tmp_path / "final", "--threads", "1")
    assert result.returncode == 0, result.stderr
    lengths = cyclic_table().group_by("user_id").len()["len"]
    assert f"{(lengths - 1).clip(0, 8).sum()} tokens an epoch" in result.stderr  # all but each first item are learnt
    chosen = {
        stage["stage"]: stage["chosen_epoch"] for stage in json.loads((work / "run/run.json").read_text())["stages"]
    }
    info = json.loads((tmp_path / "final" / "run.json").read_text())
    assert {stage["stage"]: stage["epochs"] for stage in info["stages"]} == chosen
    assert info["split"] == "none"
    assert adrec("recommend", tmp_path / "final", "--user", "user 1").returncode == 0
    assert "nothing was held out" in refused("evaluate", tmp_path / "final")


def test_config_prints_what_has_an_effect() -> None:
    value = json.loads(adrec("config", "published", "--set", "hidden_size=64", "--json").stdout)
    assert value["model"]["hidden_size"] == 64
    assert value["align"]["embedding"] == "decaying"
    shown = adrec("config").stdout
    assert "model.hidden_size" in shown and "D, the width of the item embedding" in shown
    assert "model.diffusion.noise_schedule" in shown
    assert "Left out: augment, model.ablation, pretrain.rows, pretrain.buckets, align.rows" in shown
    assert "noise_schedule" not in (alone := adrec("config", "cam").stdout)
    assert (
        "Left out: augment, model.diffusion, model.ablation, pretrain, align, finetune.rows, finetune.buckets." in alone
    )


HEADER = "user,item,timestamp\n"


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("empty.csv", b"", ["empty.csv is empty"]),
        ("header.csv", HEADER.encode(), ["header.csv has a header but no rows"]),
        (
            "column.csv",
            b"user,film_idd,timestamp\n1,2,3\n",
            ["no item column", "'user', 'film_idd', 'timestamp'", "--item"],
        ),
        ("time.csv", b"user,item,timestamp\n1,a,1\n1,b,yesterday\n", ["time.csv line 3", "'timestamp'", "'yesterday'"]),
        ("null.csv", b"user,item,timestamp\n1,a,1\n,b,2\n", ["null.csv line 3", "column 'user'", "missing"]),
        ("garbage.csv", b"\x00\x01\xff\xfe" * 50, ["garbage.csv is not text but binary"]),
        ("latin.csv", HEADER.encode() + b"caf\xe9,a,1\n", ["latin.csv line 2: the line is not UTF-8"]),
        ("garbage.parquet", b"\x00\x01\xff\xfe" * 50, ["garbage.parquet is not a whole Parquet file"]),
        ("zipped.csv", gzip.compress(HEADER.encode(), mtime=0), ["zipped.csv has a header but no rows"]),
        ("ragged.csv", HEADER.encode() + b"1,a,1\n1,b,2,3,4\n", ["ragged.csv line 3: the line has 5 fields"]),
        ("twice.csv", b"user,item,item,time\n1,2,3,4\n", ["twice.csv has two columns 'item'"]),
        ("table.xlsx", b"PK\x03\x04\x14\x00", ["table.xlsx is not text but binary", "CSV, TSV"]),
        ("oneitem.csv", HEADER.encode() + b"1,a,1\n2,a,2\n", ["one item only"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_tables(tmp_path: Path, name: str, content: bytes, parts: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    sentence = refused("prepare", name, "--out", "data", cwd=tmp_path)
    for part in parts:
        assert part in sentence
    assert names(tmp_path) - {"data.rejected.jsonl"} == {name}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["prepare", "nowhere.csv", "--out", "d"], ["there is no file nowhere.csv"]),
        (["prepare", "folder", "--out", "d"], ["folder is an empty folder"]),
        (["prepare", "data", "--out", "d"], ["data is a prepared data set already"]),
        (["prepare", "table.csv", "--out", "d", "--min-user", "99"], ["everything was filtered away"]),
        (["prepare", "table.csv", "--out", "d", "--min-rating", "4"], ["no rating column"]),
        (["prepare", "table.csv", "--out", "d", "--user", "usr_id"], ["no column 'usr_id'", "did you mean 'user_id'?"]),
        (["prepare", "table.csv", "--out", "folder2"], ["folder2 exists already and is not empty"]),
        (["prepare", "table.csv", "--out", "table.csv"], ["table.csv is a file"]),
        (["train", "nowhere", "--out", "r"], ["no prepared data set nowhere"]),
        (["train", "folder", "--out", "r"], ["folder has no dataset.json"]),
        (["train", "table.csv", "--out", "r"], ["table.csv is a file", "adrec prepare table.csv --out DATA"]),
        (["train", "data"], ["--out"]),
        (["train", "data", "--out", "r", "--preset", "publishd"], ["did you mean 'published'?"]),
        (["train", "data", "--out", "r", "--set", "hiden_size=3"], ["did you mean 'hidden_size'?"]),
        (["train", "data", "--out", "r", "--max-epochs", "0"], ["(--max-epochs) must be a whole number of at least 1"]),
        (["train", "data", "--out", "r", "--device", "abacus"], ["no device 'abacus'"]),
        (["train", "data", "--out", "r", "--seed", "-1"], ["the seed must be a whole number"]),
        (
            [
                "train",
                "data",
                "--out",
                "r",
                "--preset",
                "paper",
                "--set",
                "noise_schedule=linear",
                "--set",
                "num_train_timesteps=4",
                "--set",
                "num_inference_steps=1",
            ],
            ["outside (0, 1]"],
        ),
        (["train", "data", "--out", "run"], ["run holds a run already", "adrec train --resume run"]),
        (["evaluate", "table.csv"], ["table.csv is a file"]),
        (["train", "--resume", "run"], ["finished already"]),
        (["train", "--resume", "run", "--out", "r"], ["--resume takes no --out"]),
        (
            ["train", "--resume", "run", "--max-epochs", "3"],
            ["--resume keeps the model, configuration, seed and device of the run"],
        ),
        (["train", "--resume", "data"], ["data is a prepared data set, not a run"]),
        (["evaluate", "folder"], ["folder is not a run folder"]),
        (["evaluate", "nowhere"], ["no run folder nowhere"]),
        (["evaluate", "run", "--k", "0"], ["from 1 to 1,000,000; it is 0"]),
        (["evaluate", "run", "--k", "five"], ["--k takes whole numbers"]),
        (["recommend", "run", "--k", "0"], ["k, the number of items, must be a whole number of at least 1"]),
        (["recommend", "run", "--out", "out.xlsx"], ["out.xlsx should end in one of .csv, .jsonl, .parquet"]),
        (["recommend", "run", "--user", "user 1", "--given", "item 1"], ["--user and --given exclude each other"]),
        (["recommend", "run", "--data", "nowhere"], ["not at nowhere", "--data"]),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else None,
)
def test_bad_arguments(work: Path, tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    for name in ("table.csv", "data", "run"):
        (tmp_path / name).symlink_to(work / name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder2").mkdir()
    (tmp_path / "folder2" / "precious").write_text("mine")
    before = names(tmp_path)
    sentence = refused(*arguments, cwd=tmp_path)
    for part in parts:
        assert part in sentence
    assert names(tmp_path) == before
    assert names(tmp_path / "folder2") == {"precious"}


def test_another_data_set_is_refused(work: Path, tmp_path: Path) -> None:
    cyclic_table(seed=5).write_csv(tmp_path / "other.csv")
    adrec("prepare", tmp_path / "other.csv", "--out", tmp_path / "other")
    assert "is not the data set" in refused("recommend", work / "run", "--data", tmp_path / "other")


def test_an_altered_data_set_is_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for file in (work / "data").iterdir():
        (tmp_path / "data" / file.name).write_bytes(file.read_bytes())
    items = tmp_path / "data" / "items.npy"
    content = bytearray(items.read_bytes())
    content[-4] ^= 1
    items.write_bytes(bytes(content))
    assert "was altered after it was prepared" in refused("recommend", work / "run", "--data", tmp_path / "data")
    assert "was altered after it was prepared" in refused("train", tmp_path / "data", "--out", tmp_path / "run")
    assert names(tmp_path) == {"data"}


def test_a_run_moved_with_its_data_is_found(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "data", tmp_path / "before" / "data")
    moved = ["train", "before/data", "--out", "before/run", "--max-epochs", "1", *TRAIN_FAST]
    assert adrec(*moved, cwd=tmp_path).returncode == 0
    (tmp_path / "before").rename(tmp_path / "after")
    assert adrec("recommend", "after/run", "--user", "user 1", cwd=tmp_path).returncode == 0


def test_lists_name_their_columns_as_the_prepared_table_did(tmp_path: Path) -> None:
    names = {"user_id": "customer_no", "item_id": "article", "timestamp": "bought_on"}
    table = cyclic_table(num_users=20).rename(names)
    table.write_csv(tmp_path / "mine.csv")
    own = ["--user", "customer_no", "--item", "article", "--time", "bought_on"]
    assert adrec("prepare", "mine.csv", *own, "--out", "data", cwd=tmp_path).returncode == 0
    assert adrec("train", "data", "--out", "run", "--model", "markov", cwd=tmp_path).returncode == 0
    table.select("customer_no").head(1).write_csv(tmp_path / "users.csv")
    table.head(3).with_columns(customer_no=pl.lit("zoe")).write_csv(tmp_path / "new.csv")
    for option, expected in (("--users", table["customer_no"][0]), ("--history", "zoe")):
        done = adrec(
            "recommend", "run", option, {"--users": "users.csv"}.get(option, "new.csv"), "--format", "csv", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert set(pl.read_csv(done.stdout.encode())["customer_no"]) == {expected}
    (tmp_path / "other.csv").write_text("kunde\nx\n")
    said = refused("recommend", "run", "--users", "other.csv", cwd=tmp_path)
    assert "rename one to user_id, or to 'customer_no', as it was when the data was prepared." in said


def test_a_list_without_a_header_is_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("5\n7\n9\n")
    assert "seems to have no header" in refused("recommend", work / "run", "--users", tmp_path / "ids.csv")


def test_weights_cut_in_half_are_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for file in (work / "run").iterdir():
        (tmp_path / "run" / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "run" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert "weights.safetensors is damaged" in refused("recommend", tmp_path / "run")


def test_overwrite_replaces_a_data_set_but_nothing_else(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    for _ in range(2):
        assert adrec("prepare", work / "table.csv", "--out", out, "--overwrite").returncode == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    assert "not empty" in refused("prepare", work / "table.csv", "--out", tmp_path / "mine", "--overwrite")


def test_debug_shows_the_traceback() -> None:
    result = adrec("--debug", "evaluate", "nowhere")
    assert "Traceback" in result.stderr
    assert "RunError" in result.stderr
    assert result.returncode == 2


def test_memory_that_is_used_up_is_said_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy() -> None:
        raise MemoryError

    for arguments, traced in ((["adrec"], False), (["adrec", "--debug"], True)):
        monkeypatch.setattr("adrec.cli.app.app", greedy)
        monkeypatch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert said.splitlines()[-1].startswith("adrec: error: the memory is used up; free some")
        assert ("Traceback" in said) == traced


def test_steps_and_sampler_are_chosen_at_inference(work: Path) -> None:
    shown = adrec("evaluate", "run", "--steps", "4", "--sampler", "ddim", "--threads", "1", cwd=work)
    assert shown.returncode == 0, shown.stderr
    assert "run/ranks-test-4-steps-ddim.parquet" in shown.stderr
    assert pl.read_parquet(work / "run" / "ranks-test-4-steps-ddim.parquet").height == 60
    assert "between 1 and num_train_timesteps = 4; it is 5" in refused("evaluate", "run", "--steps", "5", cwd=work)
    assert "between 1 and" in refused("recommend", "run", "--steps", "0", "--user", "user 1", cwd=work)


def test_plan_tells_time_memory_and_disk(work: Path, tmp_path: Path) -> None:
    shown = adrec(
        *("plan", "data", "--preset", "paper", "--json", tmp_path / "plan.json"),
        *("--set", "hidden_size=16", "--threads", "1"),
        cwd=work,
    )
    assert shown.returncode == 0, shown.stderr
    for part in (
        "60 users, 12 items",
        "pretrain",
        "Adam's two moments",
        "parameters: item_embedding 208",
        "time: at most",
    ):
        assert part in shown.stdout
    assert "Next: adrec train data --preset paper --set hidden_size=16 --threads 1 --out runs/data" in shown.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["peak_memory"] == sum(plan["memory"].values())
    assert plan["total_seconds"] > 0
    assert "nowhere" in refused("plan", "nowhere", cwd=work)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["by default", "as the user says", "or says otherwise"],
)
def test_threads_do_not_spin_for_long(given: dict[str, str], expected: str | None) -> None:
    """Before PyTorch is loaded, as its OpenMP reads it then."""
    code = (
        "import os, sys; from adrec.cli import app; sys.argv = ['adrec', '--version']\n"
        "app.app = lambda: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules); app.run()"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "OMP"))}
    done = subprocess.run([sys.executable, "-c", code], env=clean | given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected), "False"]
