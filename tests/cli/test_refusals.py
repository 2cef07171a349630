"""What used to be taken without a word: outputs over a run's own files, options without effect, mixed times."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import polars as pl
import pytest

from adrec import ADRec
from adrec.utils.errors import ConfigError
from command import TRAIN_FAST, Running, adrec, refused
from conftest import cyclic_table


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set and a run of the most popular items."""
    folder = tmp_path_factory.mktemp("refusals")
    cyclic_table().write_csv(folder / "table.csv")
    assert adrec("prepare", "table.csv", "--out", "data", cwd=folder).returncode == 0
    assert adrec("train", "data", "--model", "popular", "--out", "run", cwd=folder).returncode == 0
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "run", "--json", "run/run.json"),
        ("evaluate", "run", "--ranks", "data/items.parquet"),
        ("inspect", "data", "--json", "data/dataset.json"),
        ("plan", "data", "--json", "data/dataset.json"),
        ("interactions", "data", "--part", "train", "--out", "data/items.parquet"),
        ("recommend", "run", "--out", "data/items.parquet"),
        ("diagnose", "run", "--json", "run/run.json"),
    ],
)
def test_no_output_replaces_a_part_of_a_run_or_of_data(work: Path, command: tuple[str, ...]) -> None:
    place = work / command[-1]
    before = place.read_bytes()
    said = refused(*command, cwd=work)
    assert f"{command[-2]} {command[-1]} would replace a part of {place.parent.name}; name another file." in said
    assert place.read_bytes() == before


def test_an_output_of_ones_own_may_stand_in_a_run_and_be_replaced(work: Path) -> None:
    for _ in range(2):
        assert adrec("evaluate", "run", "--json", "run/figures.json", cwd=work).returncode == 0


def test_results_are_shown_with_quiet_too(work: Path) -> None:
    for command, shown in (
        (("evaluate", "run"), "ndcg@20"),
        (("inspect", "data"), "users"),
        (("plan", "data"), "epoch"),
    ):
        done = adrec(*command, "--quiet", cwd=work)
        assert done.returncode == 0 and shown in done.stdout and not done.stderr


def test_the_option_that_is_wrong_is_named_before_anything_is_ranked(work: Path) -> None:
    assert "--ranks x.txt should end in one of .csv" in refused("evaluate", "run", "--ranks", "x.txt", cwd=work)


def test_histories_of_several_units_of_time_have_no_order(work: Path) -> None:
    (work / "history.csv").write_text("user,item,time\np,item 1,1600000000\np,item 2,1500000000000\n")
    assert "mix times of several units" in refused("recommend", "run", "--history", "history.csv", cwd=work)


def test_of_a_refit_nothing_can_be_evaluated(work: Path) -> None:
    assert adrec("refit", "run", "--out", "final", cwd=work).returncode == 0
    (work / "few.csv").write_text("user,item,rank\nuser 1,item 1,1\n")
    said = refused("evaluate", "final", "--recommendations", "few.csv", "--k", "1", cwd=work)
    assert "nothing was held out (split none)" in said


def test_unknown_users_are_counted_once(work: Path) -> None:
    (work / "theirs.csv").write_text("user,item,rank\nz,item 1,1\nz,item 2,2\n")
    said = refused("evaluate", "data", "--recommendations", "theirs.csv", "--k", "1", cwd=work)
    assert "recommends to 1 unknown user such as 'z'" in said


def test_users_of_a_split_who_are_not_there_are_told(work: Path) -> None:
    (work / "test.csv").write_text("user\nuser 1\nuser 2\nusr 3\n")
    done = adrec("prepare", "table.csv", "--split", "users:test.csv", "--out", "listed", cwd=work)
    assert done.returncode == 0 and "note: 1 user of test.csv not in the data." in done.stderr
    done = adrec("train", "listed", "--out", "listed-run", "--max-epochs", "1", *TRAIN_FAST, cwd=work)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stderr.split())
    assert "Every epoch is trained and nothing is validated: the split 'users:test.csv(2 users" in told
    assert "has no list of validation users" in told


def test_who_cannot_get_as_many_as_were_asked_for(work: Path) -> None:
    done = adrec("recommend", "run", "--k", "100", "--seen", "keep", "--out", "r.csv", cwd=work)
    assert "60 users cannot get 100 items" in done.stderr
    (work / "none.csv").write_text("item\nnothing\n")
    said = refused("recommend", "run", "--allow", "none.csv", cwd=work)
    assert "leave nothing to recommend. not in the catalogue: 1 allowed item, 'nothing'" in said


def test_in_python() -> None:
    for wrong in (1.5, True, 0):
        with pytest.raises(ConfigError, match=r"max_epochs \(--max-epochs\) must be a whole number of at least 1"):
            ADRec(max_epochs=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="changes are given by key"):
        ADRec(changes=["hidden_size=64"])  # type: ignore[arg-type]
    table = cyclic_table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ADRec(model="popular").fit(table)
    with pytest.raises(ConfigError, match="histories are lists of item ids"):
        model.recommend(histories=table)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a table was given; give one of its columns"):
        model.recommend(users=pl.DataFrame({"user": ["user 1"]}))
    for cutoffs in ([], 5, [1.5]):
        with pytest.raises(ConfigError, match="cut-off"):
            model.evaluate(cutoffs=cutoffs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("recommend", "run", "--format", "csv", "--out", "r.jsonl"), "--format says how standard output is written"),
        (("config", "fast", "--preset", "paper"), "the preset is named twice, fast and --preset paper; name it once."),
        (("diagnose", "run", "--pictures", "svg"), "--pictures are of the report; give --out for it."),
        (("diagnose", "run", "--tensor", "items"), "--tensor names a matrix of a safetensors file"),
    ],
)
def test_options_that_would_mean_nothing(work: Path, command: tuple[str, ...], said: str) -> None:
    assert said in refused(*command, cwd=work)


def test_what_is_guessed_says_which_options_are_not_used(work: Path) -> None:
    table = cyclic_table()
    table.write_ndjson(work / "table.jsonl")
    done = adrec("prepare", "table.jsonl", "--out", "lines", "--separator", ";", "--columns", "a,b,c", cwd=work)
    assert "guessed: table.jsonl: JSON lines, by its content; separator and header are not used\n" in done.stderr
    dated = table.with_columns(pl.from_epoch("timestamp"))
    dated.write_csv(work / "dated.csv")
    done = adrec("prepare", "dated.csv", "--out", "dated", "--time-unit", "ms", cwd=work)
    assert "column 'timestamp': dates, not numbers; time_unit 'ms' is not used\n" in done.stderr


def test_a_header_that_is_read_as_a_row_is_told(work: Path) -> None:
    names = "--columns", "user_id,item_id,timestamp"
    done = adrec("prepare", "table.csv", "--out", "named", *names, "--max-rejected", "1", cwd=work)
    assert "table.csv line 1, column 'timestamp': the time cannot be read (a header? where columns are" in done.stderr


def test_a_first_row_whose_time_is_unreadable_is_no_header(work: Path) -> None:
    (work / "dotted.csv").write_text("a,x,24/05/2013\na,y,25/05/2013\na,z,26/05/2013\n")
    said = refused("prepare", "dotted.csv", "--out", "dotted", "--columns", "user_id,item_id,timestamp", cwd=work)
    assert "--time-format '%d/%m/%Y' reads it" in said and "a header?" not in said


def test_nobody_to_test_is_told_when_the_data_are_prepared(work: Path) -> None:
    cyclic_table().group_by("user_id", maintain_order=True).head(2).write_csv(work / "short.csv")
    done = adrec("prepare", "short.csv", "--out", "short", cwd=work)
    assert done.returncode == 0
    assert "note: no user has 3 interactions or more, as leave-one-out needs" in done.stderr


def test_text_of_other_encodings_is_told_the_option(work: Path) -> None:
    text = "user_id,item_id,timestamp,straße\n1,2,3,4\n"
    (work / "wide.csv").write_bytes(text.encode("utf-16"))
    assert "wide.csv is UTF-16 text; pass --encoding utf-16." in refused(
        "prepare", "wide.csv", "--out", "wide", cwd=work
    )
    (work / "western.csv").write_bytes(text.encode("latin-1"))
    assert "line 1 is not UTF-8 text; name its encoding (--encoding, such as latin-1)" in refused(
        "prepare", "western.csv", "--out", "western", cwd=work
    )


def second_of_two() -> None:
    """Make this process one of two that torchrun would have started."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": "1"}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("prepare", "table.csv", "--out", "other"), "prepare is done by one process; start it without torchrun"),
        (("refit", "run", "--out", "other"), "refit is done by one process"),
        (("plan", "data"), "plan is done by one process"),
        (("recommend", "run"), "several processes write shards; add --shard-size"),
        (("evaluate", "data", "--recommendations", "table.csv"), "evaluated by one process"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_one_process_does_is_refused_under_torchrun(work: Path, command: tuple[str, ...], said: str) -> None:
    done = Running(command, work, second_of_two).wait()
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (work / "other").exists()
