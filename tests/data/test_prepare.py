"""From a table to sequences: order, filters and numbering, against slow restatements of what they promise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrec.data.dataset import Dataset
from adrec.data.filters import k_core
from adrec.data.prepare import prepare
from adrec.utils.errors import ConfigError, DataError

DATASETS = Path(__file__).parents[2] / ".." / "shared" / "datasets"
Row = tuple[str, str, int]

interactions = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", " b", "7", "07"]), st.sampled_from(["x", "y", "z", "🎬"]), st.integers(-2, 3)
    ),
    min_size=1,
    max_size=40,
)


def frame(rows: list[Row]) -> pl.DataFrame:
    schema = {"user": pl.String, "item": pl.String, "time": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def sequences(dataset: Dataset) -> dict[str, list[tuple[str, int]]]:
    """Return each user's items and times by their own ids, in the order of the users' indices."""
    items = dataset.catalogue.decode(np.asarray(dataset.items) - 1).to_list()
    bounds = zip(dataset.users.ids, dataset.offsets[:-1], dataset.offsets[1:], strict=True)
    return {
        user: list(zip(items[start:end], dataset.times[start:end].tolist(), strict=True)) for user, start, end in bounds
    }


@settings(deadline=None)
@given(interactions.filter(lambda rows: len({item for _, item, _ in rows}) > 1))
def test_sequences_equal_a_slow_restatement(rows: list[Row]) -> None:
    in_time = sorted(rows, key=lambda row: row[2])  # Python's sort is stable: ties keep the order of the table
    expected: dict[str, list[tuple[str, int]]] = {}
    for user, item, time in in_time:
        expected.setdefault(user, []).append((item, time))
    dataset = prepare(frame(rows))
    assert list(sequences(dataset).items()) == list(expected.items())
    assert dataset.catalogue.ids.to_list() == list(dict.fromkeys(item for _, item, _ in in_time))


@settings(deadline=None)
@given(interactions, st.integers(0, 5), st.integers(0, 5))
def test_k_core_equals_a_slow_restatement(rows: list[Row], min_user: int, min_item: int) -> None:
    kept, before = rows, None
    while kept != before:
        before = kept
        users = Counter(user for user, _, _ in before)
        kept = [row for row in before if users[row[0]] >= min_user]
        items = Counter(item for _, item, _ in kept)
        kept = [row for row in kept if items[row[1]] >= min_item]
    left_out: list[Row] = []
    table = k_core(frame(rows), min_user, min_item, lambda _, rows: left_out.extend(rows.rows()))
    assert table.rows() == kept
    assert Counter(left_out) + Counter(kept) == Counter(rows)


def test_arrays_and_what_is_told_of_them() -> None:
    rows = [("u2", "b", 5), ("u1", "a", 9), ("u2", "a", 1), ("u1", "b", 9), ("u1", "a", 2)]
    dataset = prepare(frame(rows))
    assert dataset.items.tolist() == [1, 2, 1, 1, 2]
    assert dataset.offsets.tolist() == [0, 2, 5]
    assert dataset.times.tolist() == [1, 5, 2, 9, 9]
    assert (dataset.items.dtype, dataset.offsets.dtype, dataset.times.dtype) == (np.int32, np.int64, np.int64)
    assert dataset.history(1).tolist() == [1, 1, 2]
    assert dataset.popularity.tolist() == [0, 3, 2]
    assert (dataset.num_users, dataset.num_items, dataset.num_interactions) == (2, 2, 5)
    info = dataset.info
    assert (info.name, info.num_users, info.num_items, info.num_interactions) == ("interactions", 2, 2, 5)
    assert (info.num_read, info.time_unit, info.sources) == (5, "none", ("the polars table",))


def test_filters_are_applied_and_told(tmp_path: Path) -> None:
    path = tmp_path / "films.csv"
    path.write_text("user,item,time,rating\n1,a,1,5\n1,b,2,4\n1,c,3,1\n2,a,1,5\n2,b,1,3.5\n3,a,1,5\n")
    dataset = prepare(path, min_rating=3.5, min_user=2)
    assert sequences(dataset) == {1: [("a", 1), ("b", 2)], 2: [("a", 1), ("b", 1)]}
    assert dataset.info.name == "films"
    assert {key: dataset.info.preparation[key] for key in ("min_rating", "min_user")} == {
        "min_rating": 3.5,
        "min_user": 2,
    }
    assert (dataset.info.num_read, dataset.info.num_interactions) == (6, 4)


def test_the_fingerprint_tells_contents_apart() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("v", "a", 1)]
    same = prepare(frame(rows)).fingerprint
    assert prepare(frame(rows), name="other").fingerprint == same
    others = (
        [("u", "a", 2), ("u", "b", 1), ("v", "a", 1)],
        [("w", "a", 1), ("w", "b", 2), ("v", "a", 1)],
        [("u", "a", 1), ("u", "c", 2), ("v", "a", 1)],
        [("u", "a", 1), ("u", "b", 2), ("u", "a", 3)],
    )
    assert len({same, *(prepare(frame(other)).fingerprint for other in others)}) == 1 + len(others)


def test_one_user_is_enough_and_one_item_is_not() -> None:
    assert prepare(frame([("u", "a", 1), ("u", "b", 1)])).num_users == 1
    with pytest.raises(DataError, match="nothing to recommend"):
        prepare(frame([("u", "a", 1), ("v", "a", 1)]))


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"min_user": 3}, "3.*filter"),
        ({"min_item": 9}, "9.*filter"),
        ({"min_rating": 3}, "rating"),
        ({"min_user": -1}, "min_user.*-1"),
        ({"min_item": -1}, "min_item.*-1"),
    ],
)
def test_filters_that_cannot_be_met(filters: dict[str, int], said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        prepare(frame([("u", "a", 1), ("u", "b", 1)]), **filters)  # type: ignore[typeddict-item]


def test_ratings_that_are_all_too_low() -> None:
    with pytest.raises(DataError, match="min_rating=4"):
        prepare(frame([("u", "a", 1), ("u", "b", 1)]).with_columns(rating=pl.lit(3.9)), min_rating=4)
    with pytest.raises(DataError, match="rating column"):
        prepare(frame([("u", "a", 1)]), min_rating=4)


@pytest.mark.skipif(not DATASETS.is_dir(), reason="the published data sets are not beside the repository")
@pytest.mark.parametrize(
    ("name", "num_users", "num_items"), [("baby", 11761, 4731), ("beauty", 10553, 6086), ("ml-100k", 938, 1008)]
)
def test_published_data_sets(name: str, num_users: int, num_items: int) -> None:
    path = DATASETS / f"{name}.parquet"
    dataset = prepare(path)
    assert (dataset.num_users, dataset.num_items) == (num_users, num_items)
    table = pl.read_parquet(path)
    assert dataset.num_interactions == table.height
    for user in (0, num_users // 2, num_users - 1):
        own = table.filter(pl.col("user_id") == dataset.users.ids[user]).sort("timestamp", maintain_order=True)
        assert dataset.catalogue.decode(dataset.history(user) - 1).to_list() == own["item_id"].to_list()
