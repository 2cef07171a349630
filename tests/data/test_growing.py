"""A vocabulary only grows: old ids keep their numbers, and a run made before goes on recommending."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrec import ADRec
from adrec.data.dataset import Dataset, open_dataset, write_dataset
from adrec.data.prepare import prepare
from adrec.data.split import make_split
from adrec.evaluate.metrics import BEHIND
from adrec.utils.errors import DataError, UserError
from command import TRAIN_FAST, adrec, refused
from conftest import SMALL

rows = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 9)), min_size=2, max_size=30).filter(
    lambda rows: len({item for _, item, _ in rows}) > 1
)


def frame(rows: list[tuple[int, int, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


def sequences(dataset: Dataset) -> dict[int, list[int]]:
    return {
        user: dataset.catalogue.decode(dataset.history(index).astype(int) - 1).to_list()
        for index, user in enumerate(dataset.users.ids)
        if len(dataset.history(index))
    }


@given(rows, rows)
def test_old_ids_stay_and_new_ones_follow(old: list[tuple[int, int, int]], new: list[tuple[int, int, int]]) -> None:
    before = prepare(frame(old))
    after = prepare(frame(new), vocabulary=before)
    for role in ("users", "catalogue"):
        known, grown = getattr(before, role).ids.to_list(), getattr(after, role).ids.to_list()
        fresh = getattr(prepare(frame(new)), role).ids.to_list()
        assert grown == known + [each for each in fresh if each not in known]
    assert sequences(after) == sequences(prepare(frame(new)))
    assert after.catalogue.starts_with(before.catalogue.digest(), before.num_items)


options = st.fixed_dictionaries(
    {},
    optional={
        "min_user": st.just(2),
        "min_item": st.just(2),
        "duplicates": st.sampled_from(["exact", "first", "last"]),
    },
)


def prepared(table: pl.DataFrame, **options: Any) -> Dataset | None:
    try:
        return prepare(table, **options)
    except DataError as error:
        assert "filtered away" in str(error) or "one item only" in str(error)
        return None


@given(rows, rows, rows, options)
def test_extending_is_preparing_at_once(
    first: list[tuple[int, int, int]],
    second: list[tuple[int, int, int]],
    third: list[tuple[int, int, int]],
    given_options: dict[str, Any],
) -> None:
    days = [
        [(user, item, time + 10 * day) for user, item, time in each] for day, each in enumerate((first, second, third))
    ]
    dataset = prepared(frame(days[0]), **given_options)
    if dataset is None:
        return
    ledger = 0
    for number, day in enumerate(days[1:], start=2):
        older = dataset
        dataset = prepare(frame(day), extend=older)
        ledger = older.num_interactions + (0 if older.left_out is None else older.left_out.height) + len(day)
        assert dataset.info.num_read == ledger
        whole = prepare(frame([each for before in days[:number] for each in before]), **given_options)
        assert sequences(dataset) == sequences(whole)
        for role in ("users", "catalogue"):
            known, grown = getattr(older, role).ids.to_list(), getattr(dataset, role).ids.to_list()
            assert grown[: len(known)] == known
            assert set(grown) == set(getattr(whole, role).ids)
    assert dataset.info.num_read == dataset.num_interactions + sum(each["rows"] for each in dataset.info.left_out)


def test_extending_on_the_command_line(tmp_path: Path) -> None:
    day1 = pl.DataFrame(
        {"customer_no": ["a", "a", "b", "c"], "article": [1, 2, 1, 1], "on": [f"0{n}.05.2024" for n in (1, 2, 3, 4)]}
    )
    day2 = day1.with_columns(on=pl.Series([f"0{n}.06.2024" for n in (1, 2, 3, 4)]), article=pl.Series([3, 1, 3, 1]))
    day1.write_csv(tmp_path / "day1.csv", separator=";")
    pl.concat([day1[3:], day2]).write_csv(tmp_path / "day2.csv", separator=";")
    own = ["--user", "customer_no", "--item", "article", "--time", "on", "--time-format", "%d.%m.%Y", "--min-user", "2"]
    assert adrec("prepare", "day1.csv", "--out", "day1", *own, cwd=tmp_path).returncode == 0
    assert open_dataset(tmp_path / "day1").users.ids.to_list() == ["a"]
    done = adrec("prepare", "--extend", "day1", "day2.csv", "--out", "day2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for said in (
        "guessed: user = column 'customer_no', as before",
        "note: as day1 was prepared: time_format=%d.%m.%Y, min_user=2",
        "note: extends day1 by 5 rows",
        "note: 1 new row is in day1 already (user, item and time): --duplicates exact keeps one of each",
        "read 5 rows, besides 4 older interactions",
    ):
        assert said in done.stderr
    extended = open_dataset(tmp_path / "day2")
    assert extended.users.ids.to_list() == ["a", "b", "c"]
    assert sequences(extended) == {"a": [1, 2, 3, 1], "b": [1, 3], "c": [1, 1, 1]}  # type: ignore[comparison-overlap]
    again = refused("prepare", "--extend", "day2", "day2.csv", "--out", "day3", cwd=tmp_path)
    assert again == "day2.csv is in day2 already, and would count twice; leave it out."
    both = refused("prepare", "--extend", "day1", "--vocabulary", "day1", "day2.csv", "--out", "x", cwd=tmp_path)
    assert "exclude each other" in both
    (tmp_path / "order.csv").write_text("customer_no;article;on\na;1;7\n")
    said = refused("prepare", "--extend", "day1", "order.csv", "--out", "x", "--time-format", "%d", cwd=tmp_path)
    assert "order.csv" in said


def test_histories_are_read_as_the_table_was(tmp_path: Path) -> None:
    days = {"a": "01.02.2024", "b": "02.01.2024", "c": "03.02.2024"}
    rows = [*(("ann", item, day) for item, day in days.items()), ("bob", "d", "05.02.2024")]
    (tmp_path / "first.txt").write_text("".join("|".join(row) + "\n" for row in rows))
    own = ("--columns", "who,what,when", "--user", "who", "--item", "what", "--time", "when", "--separator", "|")
    more = ("--time-format", "%d.%m.%Y", "--split", "none")
    done = adrec("prepare", "first.txt", *own, *more, "--out", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert adrec("train", "data", "--out", "run", "--model", "markov", cwd=tmp_path).returncode == 0
    news = [("zoë", "a", "03.02.2024"), ("zoë", "b", "02.01.2024")]  # c follows a, the last item by its date
    (tmp_path / "same.txt").write_text("".join("|".join(row) + "\n" for row in news))
    (tmp_path / "other.csv").write_text("who,what,when\n" + "".join(",".join(row) + "\n" for row in news))
    recommend = ("recommend", "run", "--format", "csv", "--history")
    found = [adrec(*recommend, name, cwd=tmp_path) for name in ("same.txt", "other.csv")]
    assert all(done.returncode == 0 for done in found), found[0].stderr + found[1].stderr
    assert found[0].stdout == found[1].stdout
    assert found[0].stdout.splitlines()[1].startswith("zoë,c,")


def test_rows_that_waited_stand_where_they_stood() -> None:
    """The order within a user is that of the tables, also among equal times and for rows in order."""
    for options in ({"time": "none"}, {}):
        first = pl.DataFrame({"user": ["u", "u", "u", "v", "v"], "item": ["a", "z", "b", "a", "b"], "time": [1] * 5})
        second = pl.DataFrame({"user": ["w", "w", "u"], "item": ["z", "a", "z"], "time": [1] * 3})
        base = prepare(first, min_item=2, **options)  # type: ignore[arg-type]
        assert sequences(base) == {"u": ["a", "b"], "v": ["a", "b"]}  # type: ignore[comparison-overlap]
        extended = prepare(second, extend=base)
        whole = prepare(pl.concat([first, second]), min_item=2, **options)  # type: ignore[arg-type]
        assert sequences(extended) == sequences(whole)
        assert sequences(extended)["u"] == ["a", "z", "b", "z"]  # type: ignore[index,comparison-overlap]


def test_options_of_one_day_are_not_taken_over(tmp_path: Path) -> None:
    times = [1_600_000_000 + n * 86400 for n in range(6)]
    days = pl.DataFrame({"user": ["a"] * 6, "item": list("xyzxyz"), "time": times})
    base = prepare(days[:4], until="2020-09-15T12:26:40Z", encoding="latin-1")
    assert base.num_interactions == 2
    assert prepare(days[4:], extend=base).num_interactions == 4
    days[4:].write_parquet(tmp_path / "later.parquet")
    assert prepare(tmp_path / "later.parquet", extend=base).num_interactions == 4
    with pytest.raises(DataError, match="no row is left to add to interactions"):
        prepare(days[4:], extend=base, where="item = 'gone'")
    assert (
        "2 new rows are older than the latest of interactions" in prepare(days[:2], extend=prepare(days[2:])).info.notes
    )


def test_times_of_another_unit_are_converted_or_refused() -> None:
    base = prepare(pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": [1_600_000_000, 1_600_000_001]}))
    later = prepare(pl.DataFrame({"user": [1], "item": [3], "time": [1_600_000_002_500]}), extend=base)
    assert (later.times.tolist(), later.info.time_unit) == ([1_600_000_000, 1_600_000_001, 1_600_000_002], "s")
    finer = prepare(
        pl.DataFrame({"user": [1], "item": [3], "time": [1_600_000_000]}),
        extend=prepare(pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": [1_600_000_000_000, 1_600_000_000_500]})),
    )
    assert finer.times.tolist() == [1_600_000_000_000, 1_600_000_000_000, 1_600_000_000_500]
    with pytest.raises(DataError, match="only give an order, and those of the older data set are in s"):
        prepare(pl.DataFrame({"user": [1], "item": [3], "time": [7]}), extend=base)
    with pytest.raises(DataError, match="were integers where this vocabulary was made"):
        prepare(pl.DataFrame({"user": ["x"], "item": [3], "time": [1_600_000_002]}), extend=base)


def test_old_items_that_do_not_train_are_told(tmp_path: Path) -> None:
    before = prepare(frame([(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 4, 4)]))
    new = [(1, 1, 1), (1, 5, 2), (2, 1, 1), (2, 3, 8), (2, 6, 9), (1, 3, 9)]  # 2 and 4 are gone, 3 is after the split
    after = prepare(frame(new), vocabulary=before, split="time:3,5")
    assert after.info.notes == (
        "3 items of the older vocabulary have no interaction in the training part, and count as known all the same",
    )
    assert make_split(after).num_items == 5
    assert prepare(frame(new), split="time:3,5").info.notes == ()
    again = prepare(frame([(1, 1, 1), (1, 5, 2), (2, 1, 1), (2, 3, 8)]), vocabulary=after).info.notes
    assert again[0] == "as interactions was prepared: split=time:3,5"
    assert again[1].startswith("3 items")
    whole = prepare(frame([(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 4, 4)]), vocabulary=before, split="none")
    assert whole.info.notes == ()
    write_dataset(before, tmp_path / "old")
    frame(new).write_csv(tmp_path / "new.csv")
    done = adrec("prepare", "new.csv", "--out", "new", "--vocabulary", "old", "--split", "time:3,5", cwd=tmp_path)
    assert f"note: {after.info.notes[0]}\n" in done.stderr
    assert list(open_dataset(tmp_path / "new").info.notes) == list(after.info.notes)


def test_ids_of_another_type() -> None:
    integers = prepare(frame([(1, 1, 1), (1, 2, 2)]))
    texts = pl.DataFrame({"user": ["1", "x"], "item": ["1", "2"], "time": [1, 2]})
    with pytest.raises(DataError, match="user ids were integers.*'x'"):
        prepare(texts, vocabulary=integers)
    assert prepare(frame([(7, 1, 1), (7, 3, 2)]), vocabulary=prepare(texts)).catalogue.ids.to_list() == ["1", "2", "3"]


def with_new_items(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table with a user who only knows new items, and one who has them between old ones."""
    new = pl.DataFrame(
        {
            "user_id": ["newcomer"] * 3 + ["user 0"] * 2,
            "item_id": ["new a", "new b", "new a", "new b", "item 3"],
            "timestamp": [100, 101, 102, 100, 101],
        }
    )
    return pl.concat([table, new])


@pytest.mark.slow
def test_a_run_made_before_recommends_from_newer_data(tmp_path: Path, interactions: pl.DataFrame) -> None:
    interactions.write_csv(tmp_path / "old.csv")
    with_new_items(interactions.filter(pl.col("user_id") != "user 1")).write_csv(tmp_path / "new.csv")
    for arguments in (
        ["prepare", "old.csv", "--out", "old"],
        ["prepare", "new.csv", "--out", "new", "--vocabulary", "old"],
        ["train", "old", "--out", "run", "--max-epochs", "1", *TRAIN_FAST],
    ):
        done = adrec(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    told = adrec("recommend", "run", "--data", "new", "--out", "r.csv", "--k", "5", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "does not know 2 items of the data yet" in told.stderr
    assert "4 interactions with them" in told.stderr
    table = pl.read_csv(tmp_path / "r.csv")
    assert set(table.filter(pl.col("user_id") == "newcomer")["source"]) == {"popular"}
    assert set(table.filter(pl.col("user_id") == "user 0")["source"]) == {"model"}
    assert not set(table["item_id"]) & {"new a", "new b"}
    assert "user 1" not in set(table["user_id"])  # no interaction is left
    assert adrec("similar", "run", "--data", "new", "--item", "item 3", cwd=tmp_path).returncode == 0
    assert "unknown items: 'new a'" in refused("similar", "run", "--data", "new", "--item", "new a", cwd=tmp_path)
    backtest = adrec("evaluate", "run", "--data", "new", cwd=tmp_path)
    assert backtest.returncode == 0 and "test part of after:" in backtest.stdout, backtest.stderr
    assert adrec("prepare", "old.csv", "--out", "timed", "--split", "time:0.9", cwd=tmp_path).returncode == 0
    other_split = refused("evaluate", "run", "--data", "timed", cwd=tmp_path)
    assert "timed is split as time:" in other_split
    assert "was trained on leave-one-out" in other_split
    refitted = adrec("refit", "run", "--data", "new", "--out", "final", cwd=tmp_path)
    assert refitted.returncode == 0, refitted.stderr
    final = adrec("recommend", "final", "--user", "newcomer", "--format", "csv", cwd=tmp_path)
    assert final.returncode == 0, final.stderr
    assert "model" in final.stdout
    interactions.with_columns(timestamp=-pl.col("timestamp")).write_csv(tmp_path / "other.csv")
    assert adrec("prepare", "other.csv", "--out", "other", cwd=tmp_path).returncode == 0
    assert "nor one prepared into its vocabulary" in refused("recommend", "run", "--data", "other", cwd=tmp_path)


def test_a_model_that_does_not_know_items_of_a_time_split(interactions: pl.DataFrame) -> None:
    table = with_new_items(interactions)
    model = ADRec(changes=SMALL, max_epochs=1, seed=1).fit(table, split="time:50,90")
    assert model.evaluate().num_new_items == 3
    assert model.evaluate().ranks.filter(pl.col("item") == "new b")["rank"].to_list() == [BEHIND + 1] * 2
    with pytest.warns(UserWarning, match="does not know 2 items"):
        recommended = model.recommend(users=["newcomer", "user 0"], k=12)
    assert not set(recommended["item_id"]) & {"new a", "new b"}
    with pytest.warns(UserWarning, match=r"they are not recommended\.$"):  # and nothing of this history is passed over
        model.recommend(histories=[["item 3"]], k=3)
    with pytest.raises(UserError, match="nothing held out"):
        model.refit().evaluate()
