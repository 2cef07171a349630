"""The policy on seen items: measured, given, recorded, and followed by whatever ranks."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrec.api.model import ADRec
from adrec.data.dataset import Dataset, open_dataset, write_dataset
from adrec.data.prepare import preparation, prepare
from adrec.data.seen import RETURNING, leaves_out, measured, returning, told
from adrec.utils.errors import ConfigError, DataError
from conftest import reseal

Lists = list[list[int]]


def data(lists: Lists, **options: Any) -> Dataset:
    rows = [(user, item, time) for user, items in enumerate(lists) for time, item in enumerate(items)]
    table = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row", strict=False)
    return prepare(table, time_unit="none", **options)


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=8), min_size=1, max_size=4))
def test_returning_is_counted_one_by_one(lists: Lists) -> None:
    lists = [[1, 2], *lists]  # a catalogue has two items
    counted = [
        item in items[:position] and item != items[position - 1]
        for items in lists
        for position, item in enumerate(items)
        if position > 0
    ]
    for rows in (1 << 20, 3):  # all at once, and user by user
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("adrec.data.seen.AT_ONCE", rows)
            assert returning(data(lists)) == pytest.approx(sum(counted) / len(counted))


def test_a_second_line_of_a_receipt_is_no_return() -> None:
    rows = [(user, item, time) for user in "ab" for time, items in enumerate(["xyx", "zx"]) for item in items]
    dataset = prepare(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), time_unit="none")
    assert returning(dataset) == 1 / 4, "of y x z x after the first x, the last alone"


def test_an_item_that_follows_itself_is_no_return() -> None:
    assert returning(data([[1, 1, 1, 2], [2, 2, 3]])) == 0
    assert returning(data([[1, 2, 1]])) == 0.5
    assert returning(data([[1], [2]])) == 0, "nobody has a second interaction"


def test_the_policy_is_measured_unless_it_is_given() -> None:
    films, groceries = [[1, 2, 3, 4]] * 5, [[1, 2, 1, 2]] * 5
    assert data(films).info.seen == "leave-out" and data(groceries).info.seen == "keep"
    assert data(films, seen="keep").info.seen == "keep" and data(groceries, seen="leave-out").info.seen == "leave-out"
    assert (measured(RETURNING), measured(RETURNING - 1e-9)) == ("keep", "leave-out")
    assert data(groceries).info.returning == pytest.approx(2 / 3)


def test_the_policy_is_part_of_the_fingerprint_and_is_kept(tmp_path: Path) -> None:
    films = [[1, 2, 3, 4]] * 5
    one, other = data(films), data(films, seen="keep")
    assert one.fingerprint == data(films, seen="leave-out").fingerprint != other.fingerprint
    write_dataset(other, tmp_path / "data")
    opened = open_dataset(tmp_path / "data")
    assert (opened.info.seen, opened.info.returning) == ("keep", 0.0)
    opened.verify()
    file = tmp_path / "data" / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "seen": "leave-out"}))
    with pytest.raises(Exception, match="altered"):
        open_dataset(tmp_path / "data").verify()


def test_an_unknown_policy_in_the_folder_is_refused(tmp_path: Path) -> None:
    write_dataset(data([[1, 2, 3, 4]] * 5), tmp_path / "data")
    file = tmp_path / "data" / "dataset.json"
    reseal(file, seen="banana")
    with pytest.raises(DataError, match="does not describe a prepared data set"):
        open_dataset(tmp_path / "data")


def test_newer_data_are_treated_as_the_older_data_set(tmp_path: Path) -> None:
    """What was decided once holds for the data of the next day, and for what a run recommends from them."""
    films = [[1, 2, 3, 4], [2, 3, 4, 1], [3, 4, 1, 2]] * 8
    older = data(films, seen="keep")
    newer = data([*films, [4, 3, 2]], vocabulary=older)
    assert newer.info.seen == "keep" and "as in the older data set" in " ".join(newer.info.notes)
    assert data(films, vocabulary=older, seen="leave-out").info.seen == "leave-out"
    assert not any("older data set" in note for note in data(films, vocabulary=data(films)).info.notes)
    write_dataset(older, tmp_path / "old")
    write_dataset(data([*films, [4, 3, 2]], vocabulary=older, seen="leave-out"), tmp_path / "new")
    rows = [(user, item, time) for user, items in enumerate(films) for time, item in enumerate(items)]
    table = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row", strict=False)
    ADRec(model="popular").fit(table, time_unit="none", seen="keep").save(tmp_path / "run")
    for other in (None, tmp_path / "new"):
        found = ADRec.load(tmp_path / "run", data=other).recommend(users=[0], k=4)
        assert found.height == 4, "the run keeps seen items, whatever newer data say"


def test_the_policy_is_told_in_one_line_with_the_way_to_the_other() -> None:
    groceries = data([[1, 2, 1, 2]] * 5)
    (line,) = [each for each in preparation(groceries.info, Path("d"), None) if each.startswith("seen items")]
    assert line == (
        "seen items: kept in recommendations and rankings, as 66.7% of interactions return to one (--seen leave-out "
        "does the opposite)"
    )
    asked = data([[1, 2, 1, 2]] * 5, seen="leave-out").info
    (line,) = [each for each in preparation(asked, Path("d"), None) if each.startswith("seen items")]
    assert line == (
        "seen items: left out of recommendations and rankings, as asked for (66.7% of interactions return to one)"
    )
    assert "--seen keep" in told("leave-out", 0.0)


def test_words() -> None:
    kept = data([[1, 2, 1, 2]] * 5)
    assert [leaves_out(word, kept) for word in ("data", "keep", "leave-out")] == [False, False, True]
    with pytest.raises(ConfigError, match=r"seen must be one of data, keep, leave-out; it is 'leaveout' \(did you"):
        leaves_out("leaveout", kept)
    with pytest.raises(ConfigError, match="seen"):
        data([[1, 2]], seen="never")


@pytest.mark.parametrize("returns", [True, False])
def test_evaluation_and_recommendations_follow_the_data(returns: bool) -> None:
    lists = [[user % 5 + 1, (user + 1) % 5 + 1, (user + 2) % 5 + 1, user % 5 + 1] for user in range(30)]
    if not returns:
        lists = [[*items[:3], items[2] % 5 + 1] for items in lists]
    rows = [(user, item, time) for user, items in enumerate(lists) for time, item in enumerate(items)]
    table = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row", strict=False)
    model = ADRec(model="popular").fit(table)
    assert model.evaluate(cutoffs=(1,)).filter_seen is not returns
    items = model.recommend(users=[0], k=5)["item"].to_list()
    assert bool(set(items) & set(lists[0])) is returns
    opposite: Any = "leave-out" if returns else "keep"
    assert model.evaluate(cutoffs=(1,), seen=opposite).filter_seen is returns
    assert bool(set(model.recommend(users=[0], k=5, seen=opposite)["item"].to_list()) & set(lists[0])) is not returns
