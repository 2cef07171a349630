"""The function of Arrow batches: the recommender's own lists, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from adrec import ADRec
from adrec.bulk.batches import histories, output_schema, recommend_batches
from adrec.inference.recommender import Recommender
from adrec.utils.errors import DataError

pa = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def recommender(small_run: Path) -> Recommender:
    return ADRec.load(small_run, device="cpu").recommender()


def test_batches_of_histories_give_what_users_get(recommender: Recommender) -> None:
    batches = list(histories(recommender.dataset, size=50))
    assert [batch.num_rows for batch in batches] == [50, 50, 20]
    found = pl.from_arrow(pa.Table.from_batches(recommend_batches(recommender, batches, 4)))
    assert isinstance(found, pl.DataFrame)
    expected = recommender.for_users(None, 4).table
    columns = ["user_id", "item_id", "rank", "source"]
    assert found.select(columns).equals(expected.select(columns))
    assert (found["score"] - expected["score"]).abs().max() < 1e-4  # type: ignore[operator]


def test_one_batch_is_in_memory_at_a_time(recommender: Recommender) -> None:
    taken: list[int] = []

    def counted() -> Iterator[Any]:
        for number, batch in enumerate(histories(recommender.dataset, size=10)):
            taken.append(number)
            yield batch

    results = recommend_batches(recommender, counted(), 3)
    next(results)
    assert taken == [0]
    assert len(list(results)) == 11 and len(taken) == 12


def test_strangers_nulls_and_empty_batches(recommender: Recommender) -> None:
    batch = pa.RecordBatch.from_pydict(
        {"who": ["a", "b", None], "history": [["item 3", "nowhere"], None, ["item 1"]]},
        schema=pa.schema([("who", pa.string()), ("history", pa.list_(pa.string()))]),
    )
    found = list(recommend_batches(recommender, [batch.slice(0, 0), batch], 2))
    assert len(found) == 1 and found[0].schema == output_schema(recommender)
    assert found[0].column(0).to_pylist() == ["a", "a", "b", "b", None, None]
    assert found[0].column("source").to_pylist() == ["model", "model", "popular", "popular", "model", "model"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"user": ["a"], "items": [["item 1"]]}, "column 'history' of lists"),
        ({"user": ["a"], "history": ["item 1"]}, "give lists of item ids"),
        ({"user": ["a"], "more": [1], "history": [["item 1"]]}, "this one has user, more, history"),
    ],
    ids=str,
)
def test_other_columns_are_refused(recommender: Recommender, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(recommend_batches(recommender, [pa.RecordBatch.from_pydict(columns)]))
