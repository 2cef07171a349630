"""Leave-one-out never leaks, and a split without held-out parts holds nothing out."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out, no_split
from adrec.errors import UserError


def data(lengths: list[int]) -> Dataset:
    rows = [(user, step % 3, step) for user, length in enumerate(lengths) for step in range(length)]
    return prepare(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"))


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12).filter(lambda lengths: max(lengths) > 1))
def test_leave_one_out_never_leaks(lengths: list[int]) -> None:
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
