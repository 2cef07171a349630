"""The engine and the ids around it: top-k, masks, lists, unknown people and items, ranks with ties."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.evaluate.metrics import BEHIND
from adrec.evaluate.protocol import evaluate, training_popularity
from adrec.evaluate.ranking import ranking
from adrec.inference import scorer as recommend
from adrec.inference.recommender import Recommender
from adrec.inference.rules import Limits
from adrec.inference.scorer import Histories, top_k
from adrec.inference.similar import similar_items
from adrec.models.baselines.popularity import Popularity
from adrec.nn.scores import Table
from adrec.utils.errors import ConfigError, DataError, RunError

NUM_ITEMS = 6


class LastItemScorer:
    """Scores item j by a fixed table row of the last item: a model whose every answer is known."""

    num_items, max_length, ranks_padding = NUM_ITEMS, 3, False

    def __init__(self, table: np.ndarray, device: torch.device) -> None:
        self.table, self.device = torch.from_numpy(table.astype(np.float32)), device

    def __call__(self, batch: PackedBatch) -> Table:
        return Table(self.table[batch.items[batch.cu_seqlens[1:] - 1]].to(self.device))


def scorer(device: torch.device, seed: int = 0, levels: int = 1000) -> LastItemScorer:
    return LastItemScorer(np.random.default_rng(seed).integers(levels, size=(NUM_ITEMS + 1, NUM_ITEMS + 1)), device)


def dataset() -> Dataset:
    rows = [
        ("ann", "a"),
        ("ann", "b"),
        ("ann", "c"),
        ("bob", "b"),
        ("bob", "d"),
        ("cy", "e"),
        ("cy", "f"),
        ("cy", "b"),
    ]
    return prepare(pl.DataFrame({"user": [u for u, _ in rows], "item": [i for _, i in rows], "time": range(len(rows))}))


@st.composite
def histories(draw: st.DrawFn) -> list[list[int]]:
    item = st.integers(1, NUM_ITEMS)
    return draw(st.lists(st.lists(item, min_size=1, max_size=5), min_size=1, max_size=6))


def packed(lists: list[list[int]]) -> Histories:
    lengths = np.array([len(each) for each in lists])
    ends = np.cumsum(lengths)
    return Histories(np.concatenate(lists).astype(np.int32), ends - lengths, ends)


@given(histories(), st.integers(1, 8), st.booleans(), st.sets(st.integers(1, NUM_ITEMS)), st.integers(1, 3))
def test_top_k_equals_sorting(
    device: torch.device, lists: list[list[int]], k: int, filter_seen: bool, allowed: set[int], batch_size: int
) -> None:
    model = scorer(device)
    candidates = np.zeros(NUM_ITEMS + 1, dtype=bool)
    candidates[list(allowed)] = True
    items, scores, _ = top_k(
        model, packed(lists), k, filter_seen=filter_seen, limits=Limits(candidates), batch_size=batch_size
    )
    for history, row, values in zip(lists, items, scores, strict=True):
        possible = [i for i in allowed if not (filter_seen and i in history)]
        expected = sorted((float(model.table[history[-1], i]) for i in possible), reverse=True)[:k]
        real = row[row > 0]
        assert list(values[: len(expected)]) == expected
        assert [float(model.table[history[-1], i]) for i in real] == expected
        assert set(real) <= set(possible)
        assert (row[len(expected) :] == 0).all()


@given(histories(), st.data(), st.booleans(), st.integers(1, 3), st.integers(1, 5))
def test_ranks_equal_counting(
    device: torch.device, lists: list[list[int]], data: st.DataObject, filter_seen: bool, batch_size: int, levels: int
) -> None:
    model = scorer(device, levels=levels)  # few levels make many ties
    held_out = np.array([data.draw(st.integers(1, NUM_ITEMS)) for _ in lists])
    found = ranking(model, packed(lists), held_out, filter_seen=filter_seen, batch_size=batch_size).ranks
    for history, target, rank in zip(lists, held_out, found, strict=True):
        rivals = [i for i in range(1, NUM_ITEMS + 1) if i != target and not (filter_seen and i in history)]
        table = model.table[history[-1]]
        if filter_seen and target in history:
            assert rank == BEHIND, "left out with its history, it is never shown"
            continue
        assert rank == sum(bool(table[i] >= table[target]) for i in rivals)


def test_held_out_items_of_the_history_are_counted_where_they_are_left_out(device: torch.device) -> None:
    lists, items = packed([[1, 2], [3], [4, 5]]), np.array([2, 3, 6])
    assert ranking(scorer(device), lists, items).num_repeats == 0
    found = ranking(scorer(device), lists, items, filter_seen=True)
    assert found.num_repeats == 2 and found.ranks[:2].tolist() == [BEHIND] * 2


def test_long_histories_are_scored_a_few_at_a_time(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention holds the square of a history's length for each."""
    lists = packed([[1, 2, 3]] * 4 + [[4]] * 4)
    before = top_k(scorer(device), lists, 2)
    monkeypatch.setattr(recommend, "PAIRS", 2 * 4**2)
    sizes = [len(chosen) for chosen, _ in recommend.scored_batches(scorer(device), lists)]
    assert sizes == [4, 2, 2], "the short ones together"
    again = top_k(scorer(device), lists, 2)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, again, strict=True))


def test_a_model_that_scores_everything_alike_ranks_last(device: torch.device) -> None:
    alike = LastItemScorer(np.ones((NUM_ITEMS + 1, NUM_ITEMS + 1)), device)
    assert ranking(alike, packed([[1], [2]]), np.array([3, 4])).ranks.tolist() == [NUM_ITEMS - 1] * 2


def test_scores_that_are_not_numbers_are_refused(device: torch.device) -> None:
    broken = LastItemScorer(np.full((NUM_ITEMS + 1, NUM_ITEMS + 1), np.nan), device)
    with pytest.raises(RunError, match="diverged"):
        ranking(broken, packed([[1]]), np.array([2]))
    with pytest.raises(RunError, match="diverged"):
        top_k(broken, packed([[1]]), 2)


class TestForUsers:
    def test_ids_are_the_users_own(self, device: torch.device) -> None:
        table = Recommender(scorer(device), dataset()).for_users(["cy", "ann"], 2).table
        assert table.columns == ["user", "item", "score", "rank", "source", "confidence"]
        assert table["user"].to_list() == ["cy", "cy", "ann", "ann"]
        assert table["rank"].to_list() == [1, 2, 1, 2]
        assert set(table.filter(pl.col("user") == "ann")["item"]) <= {"d", "e", "f"}

    def test_all_users_by_default(self, device: torch.device) -> None:
        assert Recommender(scorer(device), dataset()).for_users(k=1).table["user"].to_list() == ["ann", "bob", "cy"]

    def test_seen_items_come_back_when_asked_for(self, device: torch.device) -> None:
        table = Recommender(scorer(device), dataset()).for_users(["ann"], 100, seen="keep").table
        assert sorted(table["item"]) == list("abcdef")

    def test_k_larger_than_the_catalogue_gives_what_there_is(self, device: torch.device) -> None:
        result = Recommender(scorer(device), dataset()).for_users(["ann"], 100)
        assert result.table.height == 3
        assert "1 user cannot get 100 items" in result.notes[0]

    def test_unknown_users_are_named_or_skipped(self, device: torch.device) -> None:
        recommender = Recommender(scorer(device), dataset())
        with pytest.raises(DataError, match="unknown users: 'dan'"):
            recommender.for_users(["ann", "dan"], 2)
        result = recommender.for_users(["ann", "dan"], 2, on_unknown="skip")
        assert result.table["user"].unique().to_list() == ["ann"]
        assert "skipped 1 unknown user: 'dan'" in result.notes[0]

    def test_allow_and_block_lists(self, device: torch.device) -> None:
        recommender = Recommender(scorer(device), dataset())
        result = recommender.for_users(["bob"], 9, items=["a", "e", "nowhere"], exclude=["e"])
        assert result.table["item"].to_list() == ["a"]
        assert "not in the catalogue: 1 allowed item, 'nowhere'" in result.notes[0]
        with pytest.raises(DataError, match="leave nothing"):
            recommender.for_users(["bob"], 9, items=["a"], exclude=["a"])

    def test_on_unknown_is_one_of_two(self, device: torch.device) -> None:
        with pytest.raises(ConfigError, match="'error' or 'skip'"):
            Recommender(scorer(device), dataset()).for_users(["ann"], on_unknown="eror")  # type: ignore[arg-type]

    @pytest.mark.parametrize("k", [0, -1, 2.5, "2", True])
    def test_k_below_one_is_refused(self, k: int, device: torch.device) -> None:
        with pytest.raises(ConfigError, match="at least 1"):
            Recommender(scorer(device), dataset()).for_users(["ann"], k)

    def test_no_users_give_no_rows(self, device: torch.device) -> None:
        assert Recommender(scorer(device), dataset()).for_users([], 3).table.height == 0


class TestForHistories:
    def test_a_known_history_gives_what_its_user_gets(self, device: torch.device) -> None:
        recommender = Recommender(scorer(device), dataset())
        own = recommender.for_users(["ann"], 3).table.drop("user")
        assert recommender.for_histories([["a", "b", "c"]], 3).table.drop("history").equals(own)

    def test_unknown_items_are_skipped_and_reported(self, device: torch.device) -> None:
        recommender = Recommender(scorer(device), dataset())
        result = recommender.for_histories([["a", "zz", "b", "c"]], 3)
        assert result.table.equals(recommender.for_histories([["a", "b", "c"]], 3).table)
        assert "skipped 1 interaction with unknown items: 'zz'" in result.notes[0]

    def test_empty_histories_get_popular_items_marked_as_such(self, device: torch.device) -> None:
        result = Recommender(scorer(device), dataset()).for_histories([[], ["a"], ["zz"]], 2)
        sources = result.table.group_by("history", maintain_order=True).agg(pl.col("source").unique())
        assert sources["source"].to_list() == [["popular"], ["model"], ["popular"]]
        assert result.table["item"][0] == "b"
        assert result.table["score"][0] == 3
        assert any("no item of 2 histories is known" in note for note in result.notes)

    def test_popular_items_keep_to_the_lists(self, device: torch.device) -> None:
        recommender = Recommender(scorer(device), dataset())
        assert recommender.for_histories([[]], 9, items=["a", "b"], exclude=["b"]).table["item"].to_list() == ["a"]

    def test_only_empty_histories(self, device: torch.device) -> None:
        assert Recommender(scorer(device), dataset()).for_histories([[]], 100).table.height == NUM_ITEMS


class TestSimilar:
    EMBEDDING = np.array([[9, 9], [1, 0], [1, 0.1], [0, 1], [-1, 0], [2, 0], [0.1, 1]], dtype=np.float32)

    def test_nearest_by_cosine_without_itself(self, device: torch.device) -> None:
        table = similar_items(dataset(), self.EMBEDDING, ["a"], 2)
        assert table["similar_item"].to_list() == ["e", "b"]
        assert table["score"][0] == pytest.approx(1)

    def test_of_no_item_there_are_none(self, device: torch.device) -> None:
        table = similar_items(dataset(), self.EMBEDDING, [])
        assert table.columns == ["item", "similar_item", "score", "rank"] and table.height == 0

    def test_unknown_item_is_named(self, device: torch.device) -> None:
        with pytest.raises(DataError, match="unknown items: 'q'"):
            similar_items(dataset(), self.EMBEDDING, ["q"])


class TestEvaluate:
    def test_popularity_by_hand(self) -> None:
        table = pl.DataFrame(
            {"user": list("1111222233"), "item": list("abcdabdcab"), "time": list(range(10))},
        )
        data = prepare(table)
        split = leave_one_out(data)
        counts = training_popularity(data, split)
        assert dict(zip(data.catalogue.ids, counts[1:].tolist(), strict=True)) == {
            "a": 3,
            "b": 3,
            "c": 0,
            "d": 0,
        }
        popular = Popularity()
        popular.fit(data, split)
        result = evaluate(popular, data, split, "test", cutoffs=(2, 4), seen="keep")
        # Users 1 and 2 are tested on d and c, which tie with each other behind a and b: rank 4 of 4.
        assert result.ranks["rank"].to_list() == [4, 4]
        assert result.metrics["hr@2"].mean == 0
        assert result.metrics["mrr@4"].mean == 0.25
        assert result.popularity == {"recommended": 1.5, "held_out": 0.0}
        assert result.coverage == 1.0

    def test_sequences_too_short_to_split_are_said(self) -> None:
        data = prepare(pl.DataFrame({"user": [1, 1, 2], "item": [1, 2, 1], "time": [1, 2, 3]}))
        with pytest.raises(DataError, match="no sequence has the 3 interactions"):
            popular = Popularity()
            popular.fit(data, leave_one_out(data))
            evaluate(popular, data, leave_one_out(data))
