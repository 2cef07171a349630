"""Splits: nothing held out ever trains, nothing later trains where time divides, and every split has a full name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrec.data.dataset import Dataset, open_dataset, write_dataset
from adrec.data.prepare import prepare
from adrec.data.split import Split, Targets, leave_one_out, make_split, no_split
from adrec.evaluate.ranking import held_out
from adrec.utils.errors import ConfigError, DataError, UserError

DAY = 86400


def data(lengths: list[int], **options: Any) -> Dataset:
    rows = [(user, step % 3, step) for user, length in enumerate(lengths) for step in range(length)]
    return prepare(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), **options)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12).filter(lambda lengths: max(lengths) > 1))
def test_leave_one_out_holds_out_the_last_two(lengths: list[int]) -> None:
    dataset = data(lengths)
    split = leave_one_out(dataset)
    validation = dict(zip(split.validation.users.tolist(), split.validation.positions.tolist(), strict=True))
    test = dict(zip(split.test.users.tolist(), split.test.positions.tolist(), strict=True))
    evaluated = [user for user, length in enumerate(lengths) if length >= 3]
    assert list(validation) == list(test) == evaluated
    for user, end in enumerate(split.train_ends.tolist()):
        start, stop = dataset.offsets[user], dataset.offsets[user + 1]
        held_out = [validation[user], test[user]] if user in test else []
        assert [*range(start, end), *held_out] == list(range(start, stop))


def test_no_split_trains_on_everything() -> None:
    dataset = data([1, 4])
    split = no_split(dataset)
    assert split.train_ends.tolist() == dataset.offsets[1:].tolist()
    assert len(split.validation.users) == len(split.test.positions) == 0
    assert (split.name, leave_one_out(dataset).name) == ("none", "leave-one-out")


def test_parts_by_name() -> None:
    split = leave_one_out(data([4]))
    assert split.targets("validation").positions.tolist() == [2]
    assert split.targets("test").positions.tolist() == [3]
    with pytest.raises(UserError, match=r"'tset'.*did you mean 'test'"):
        split.targets("tset")


def test_a_part_without_users_says_why(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("user\n1\n")
    for lengths, asked, part, reason in (
        ([1, 2], "leave-one-out", "validation", "no sequence has the 3 interactions that"),
        ([3, 4], "none", "test", "nothing was held out"),
        ([3, 4], f"users:{tmp_path}/test.csv", "validation", "has no list of validation users"),
        ([5, 5], "ratio:0.8,0,0.2", "validation", "validation's share in"),
        ([9], "time:5,5", "validation", "nobody has an interaction in"),
        ([9], "temporal-leave-one-out:5,5", "validation", "in the period of validation"),
    ):
        split = make_split(data(lengths, split=asked))
        assert len(split.targets(part).users) == 0
        assert reason in split.nobody(part)


@st.composite
def tables(draw: st.DrawFn) -> pl.DataFrame:
    """Tables of few users, items and days, in any order."""
    row = st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 20))
    rows = draw(st.lists(row, min_size=4, max_size=50).filter(lambda rows: len({item for _, item, _ in rows}) > 1))
    return pl.DataFrame(
        [(user, item, 1_600_000_000 + day * DAY) for user, item, day in rows],
        schema=["user", "item", "time"],
        orient="row",
    )


SPLITS = (
    "leave-one-out",
    "time:0.7",
    "time:0.5,0.7",
    "time:2020-09-25",
    "temporal-leave-one-out:0.6",
    "ratio:0.6,0.2,0.2",
    "ratio:0.5",
    "last-basket",
)


def prepared(table: pl.DataFrame, split: str) -> Dataset | None:
    """Return the data set, None where the split leaves nothing."""
    try:
        return prepare(table, split=split)
    except DataError as error:
        assert "leaves" in str(error) or "nothing to train on" in str(error)
        return None


def positions(targets: Targets) -> set[int]:
    return set(targets.positions.tolist())


@given(tables(), st.sampled_from(SPLITS))
def test_nothing_leaks(table: pl.DataFrame, asked: str) -> None:
    dataset = prepared(table, asked)
    if dataset is None:
        return
    split = make_split(dataset)
    starts, ends = dataset.offsets[:-1], dataset.offsets[1:]
    trained = {at for start, end in zip(starts, split.train_ends, strict=True) for at in range(start, end)}
    validated, tested = positions(split.validation), positions(split.test)
    assert not trained & validated
    assert not trained & tested
    assert not validated & tested
    for targets in (split.validation, split.test):
        assert (starts[targets.users] < targets.positions).all()  # there is a history
        assert (targets.positions < ends[targets.users]).all()
        assert len(positions(targets)) == len(targets.positions)
    last_trained = dict(enumerate(split.train_ends.tolist()))
    assert all(at >= last_trained[user] for user, at in zip(split.test.users, split.test.positions, strict=True))
    if asked.startswith(("time", "temporal")):
        check_time(dataset, split, trained, validated, tested)


@given(tables())
def test_last_baskets_are_held_out_whole(table: pl.DataFrame) -> None:
    dataset = prepared(table, "last-basket")
    if dataset is None:
        return
    split = make_split(dataset)
    held_out = {part: targets_of(split.targets(part)) for part in ("validation", "test")}
    for user in range(dataset.num_users):
        start, stop = int(dataset.offsets[user]), int(dataset.offsets[user + 1])
        moments = sorted(set(dataset.times[start:stop].tolist()))
        if len(moments) < 3:
            assert split.train_ends[user] == stop
            assert user not in held_out["validation"] and user not in held_out["test"]
            continue
        at = {moment: [p for p in range(start, stop) if dataset.times[p] == moment] for moment in moments}
        assert held_out["test"][user] == [(p, at[moments[-1]][0]) for p in at[moments[-1]]]
        assert held_out["validation"][user] == [(p, at[moments[-2]][0]) for p in at[moments[-2]]]
        assert split.train_ends[user] == at[moments[-2]][0]


def targets_of(targets: Targets) -> dict[int, list[tuple[int, int]]]:
    """Return the position and the end of the history of each user's held-out interactions."""
    found: dict[int, list[tuple[int, int]]] = {}
    for user, position, end in zip(targets.users.tolist(), targets.positions, targets.ends, strict=True):
        found.setdefault(user, []).append((int(position), int(end)))
    return found


def test_baskets_are_told_and_one_history_serves_a_basket() -> None:
    rows = [(user, 10 * day + line, day) for user in range(4) for day in range(4) for line in range(3)]
    table = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    (note,) = [note for note in prepare(table).info.notes if "baskets" in note]
    assert note.startswith("100.0% of the interactions are in baskets, 3.0 of a user at one time")
    dataset = prepare(table, split="last-basket")
    assert not [note for note in dataset.info.notes if "baskets" in note]
    histories, items = held_out(dataset, make_split(dataset).test)
    assert dataset.catalogue.decode(items - 1).to_list() == [30, 31, 32] * 4
    assert (histories.ends - histories.starts).tolist() == [9] * 12
    with pytest.raises(DataError, match="nobody to test"):
        data([2, 2], split="last-basket")


def check_time(dataset: Dataset, split: Split, trained: set[int], validated: set[int], tested: set[int]) -> None:
    """Nothing that trains is later than anything held out, and training knows no item that appears later."""
    times = dataset.times
    for earlier, later in ((trained, validated), (trained, tested), (validated, tested)):
        if earlier and later:
            assert max(times[at] for at in earlier) < min(times[at] for at in later)
    assert {int(dataset.items[at]) for at in trained} == set(range(1, split.num_items + 1))


@given(tables())
def test_a_time_split_holds_out_all_that_is_later(table: pl.DataFrame) -> None:
    dataset = prepared(table, "time:2020-09-20,2020-09-25")
    if dataset is None:
        return
    split = make_split(dataset)
    starts = set(dataset.offsets[:-1].tolist())
    first, second = 1_600_560_000, 1_600_992_000
    for positions_of, low, high in ((split.validation, first, second), (split.test, second, 2**60)):
        expected = {at for at, time in enumerate(dataset.times) if low <= time < high and at not in starts}
        assert positions(positions_of) == expected


@given(tables())
def test_temporal_leave_one_out_is_the_last_of_those(table: pl.DataFrame) -> None:
    one, every = prepared(table, "temporal-leave-one-out:0.5,0.7"), prepared(table, "time:0.5,0.7")
    assert (one is None) == (every is None)
    if one is None or every is None:
        return
    for part in ("validation", "test"):
        targets = make_split(every).targets(part)
        last = dict(zip(targets.users.tolist(), targets.positions.tolist(), strict=True))  # later positions win
        found = make_split(one).targets(part)
        assert dict(zip(found.users.tolist(), found.positions.tolist(), strict=True)) == last


@pytest.mark.parametrize(
    ("length", "asked", "expected"),
    [
        (10, "ratio:0.8,0.1,0.1", (8, 1, 1)),
        (10, "ratio:0.6", (6, 2, 2)),
        (10, "ratio:0.7,0.1,0.2", (7, 1, 2)),
        (7, "ratio:0.5,0.25,0.25", (5, 1, 1)),
    ],
)
def test_ratios(length: int, asked: str, expected: tuple[int, int, int]) -> None:
    split = make_split(data([length], split=asked))
    assert (int(split.train_ends[0]), len(split.validation.users), len(split.test.users)) == expected


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("leave-one-out", "leave-one-out"),
        ("ratio:0.8", "ratio:0.8,0.1,0.1"),
        ("time:2020-09-20,2020-09-25", "time:2020-09-20T00:00:00Z,2020-09-25T00:00:00Z"),
        ("time:2020-09-25 12:00+02:00", "time:2020-09-23T12:26:40Z,2020-09-25T10:00:00Z"),
        ("time:1600992000", "time:2020-09-23T12:26:40Z,2020-09-25T00:00:00Z"),
        ("time:0.5", "time:2020-09-22T12:26:40Z,2020-09-23T12:26:40Z"),
    ],
)
def test_full_names(tmp_path: Path, asked: str, name: str) -> None:
    table = pl.DataFrame(
        {"user": [1] * 20, "item": range(20), "time": [1_600_000_000 + DAY * day for day in range(20)]}
    )
    dataset = prepare(table, split=asked)
    assert dataset.info.split == make_split(dataset).name == name
    write_dataset(dataset, tmp_path / "data")
    opened = open_dataset(tmp_path / "data")
    again, first = make_split(opened), make_split(dataset)
    assert np.array_equal(again.train_ends, first.train_ends)
    assert np.array_equal(again.test.positions, first.test.positions)
    assert prepare(table, split="none").fingerprint != dataset.fingerprint


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_a_moment_is_the_same_in_every_unit(unit: str, factor: int) -> None:
    times = [(1_600_000_000 + DAY * day) * factor for day in range(20)]
    dataset = prepare(
        pl.DataFrame({"user": [1] * 20, "item": range(20), "time": times}), split="time:2020-09-20,2020-09-25"
    )
    assert dataset.info.time_unit == unit
    assert dataset.info.split == "time:2020-09-20T00:00:00Z,2020-09-25T00:00:00Z"
    assert len(make_split(dataset).test.users) == 8


def test_listed_users_never_train(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("user\n1\n9\n")
    (tmp_path / "validation.csv").write_text("user\n2\n")
    dataset = data([3, 4, 5, 1], split=f"users:{tmp_path}/test.csv,{tmp_path}/validation.csv")
    write_dataset(dataset, tmp_path / "data")
    split = make_split(open_dataset(tmp_path / "data"))
    assert split.name.startswith("users:test.csv(1 users, ")
    assert (split.train_ends - dataset.offsets[:-1]).tolist() == [3, 0, 0, 1]
    assert (split.test.users.tolist(), split.test.positions.tolist()) == ([1], [6])
    assert (split.validation.users.tolist(), split.validation.positions.tolist()) == ([2], [11])
    (tmp_path / "validation.csv").write_text("user\n1\n")
    with pytest.raises(DataError, match="users in common"):
        data([3, 4], split=f"users:{tmp_path}/test.csv,{tmp_path}/validation.csv")
    (tmp_path / "test.csv").write_text("user\n77\n")
    with pytest.raises(DataError, match="none of the users"):
        data([3, 4], split=f"users:{tmp_path}/test.csv")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("leave-one-ot", "did you mean 'leave-one-out'"),
        ("leave-one-out:3", "takes no arguments"),
        ("last-basket:3", "takes no arguments"),
        ("last-basket", "needs a column of times"),
        ("time", "takes one moment or two"),
        ("time:yesterday", "'yesterday' is no moment"),
        ("time:2020-01-01", "only give an order"),
        ("time:0.9,0.5", "the other way round"),
        ("time:1000", "nobody to test"),
        ("time:-5", "nothing to train on"),
        ("ratio:0.8,0.3,0.1", "which make 1"),
        ("ratio:a", "which make 1"),
        ("users:", "a list of test users"),
    ],
)
def test_splits_that_cannot_be(asked: str, said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        data([4, 5, 6], split=asked, **({"time": "none"} if asked == "last-basket" else {}))
