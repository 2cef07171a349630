"""One history at a time: as a table has it, from several threads, and after a fork."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adrec import ADRec
from adrec.inference.recommender import Recommender
from adrec.utils.errors import ConfigError, RunError
from conftest import cyclic_table, tiny_changes

LONG = 60  # seconds


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    model = ADRec("paper", tiny_changes(0, 0, 3), seed=1, device="cpu")
    return model.fit(cyclic_table(num_users=80)).recommender()


def histories(recommender: Recommender) -> list[list[str]]:
    dataset = recommender.dataset
    own = [dataset.catalogue.decode(dataset.history(user).astype(int) - 1).to_list() for user in range(80)]
    return [*own, ["item 3", "nowhere"], ["nowhere"], []]


@pytest.mark.parametrize("seen", ["data", "keep", "leave-out"])
def test_it_is_the_table_of_that_history(recommender: Recommender, seen: Any) -> None:
    for history in histories(recommender):
        table = recommender.for_histories([history], 4, seen=seen).table
        found = recommender.one(history, 4, seen=seen)
        assert [each.item for each in found] == table["item_id"].to_list()
        assert [each.score for each in found] == pytest.approx(table["score"].to_list(), rel=1e-5, abs=1e-5)
        expected = table["confidence"].to_list()
        assert [each.confidence is None for each in found] == [value is None for value in expected]
        assert [each.confidence or 0 for each in found] == pytest.approx([value or 0 for value in expected], abs=1e-5)
    with pytest.raises(ConfigError, match="at least 1; it is 0"):
        recommender.one([], 0)


def test_numbers_and_texts_mean_the_same_ids() -> None:
    table = pl.DataFrame({"user": [1, 1, 1, 2, 2, 2], "item": [7, 8, 9, 8, 9, 7], "time": range(6)})
    numbers = ADRec(model="markov").fit(table).recommender()
    texts = ADRec(model="markov").fit(table.with_columns(pl.col("item").cast(pl.String) + "x")).recommender()
    assert numbers.one([7], 2) == numbers.one(["7"], 2) != numbers.one(["07"], 2)
    assert [each.item for each in texts.one(["8x"], 3)] == texts.for_histories([["8x"]], 3).table["item"].to_list()


def test_from_several_threads(recommender: Recommender) -> None:
    wanted = [recommender.one(history, 5) for history in histories(recommender)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(lambda history: recommender.one(history, 5), histories(recommender))) == wanted


def forked(work: Callable[[], Any]) -> Any:
    """Return what ``work`` returns in a fork of this process."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def child() -> None:
        try:
            there.send(work())
        except Exception as error:
            there.send(error)
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    answered = here.poll(LONG)
    process.kill()
    process.join()
    assert answered, "the fork hangs"
    return here.recv()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_a_fork(recommender: Recommender) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # threads that a fork loses
    try:
        wanted = [recommender.one(history, 5) for history in histories(recommender)]
        found = forked(lambda: [recommender.one(history, 5) for history in histories(recommender)])
        for own, expected in zip(found, wanted, strict=True):  # a product of another number of threads rounds otherwise
            assert [each.item for each in own] == [each.item for each in expected]
            for name in ("score", "confidence"):
                values = [[getattr(each, name) or 0.0 for each in answer] for answer in (own, expected)]
                assert values[0] == pytest.approx(values[1], rel=1e-5, abs=1e-5)
        for table in (
            lambda: recommender.for_histories([["item 3"]], 3),
            lambda: recommender.for_users(None, 3),
            lambda: recommender.score(pl.DataFrame({"user": ["user 1"], "item": ["item 1"]})),
        ):
            said = forked(table)
            assert isinstance(said, RunError) and "load it in this process" in str(said)
    finally:
        torch.set_num_threads(threads)


def test_reasons_are_the_changes_of_scores(recommender: Recommender) -> None:
    engine = recommender.engine
    history = engine.numbers(["item 3", "item 4", "item 3", "item 5"])
    items = [each.item for each in recommender.one(["item 3", "item 4", "item 3", "item 5"], 3, seen="keep")]

    def score(numbers: Any, item: Any) -> float:
        names = [f"item {name}" for name in numbers]
        return next(each.score for each in recommender.one(names, 12, seen="keep") if each.item == item)

    names = ["3", "4", "3", "5"]
    for item, reasons in zip(items, engine.reasons(history, items, 4), strict=True):
        left = {each: score(names, item) - score([name for name in names if name != each], item) for each in "345"}
        order = sorted((each for each in left if left[each] > 0), key=lambda each: -left[each])
        assert [each.item for each in reasons] == [f"item {each}" for each in order]
        assert [each.change for each in reasons] == pytest.approx([left[each] for each in order], abs=1e-5)
    assert engine.reasons(history, items, 1) == [each[:1] for each in engine.reasons(history, items, 4)]
    assert engine.reasons(history[:1], items, 3) == [[], [], []] == engine.reasons(history[[0, 2]], items, 3)


def test_reasons_are_columns_of_the_table(recommender: Recommender) -> None:
    some = [["item 3", "item 4", "item 5"], ["nowhere"], ["item 2"]]
    table = recommender.for_histories(some, 2, explain=2).table
    assert table.columns[-4:] == ["because_1", "change_1", "because_2", "change_2"]
    engine = recommender.engine
    own = table.filter(history=0)
    expected = engine.reasons(engine.numbers(some[0]), own["item_id"].to_list(), 2)
    for row, reasons in zip(own.iter_rows(named=True), expected, strict=True):
        assert [row["because_1"], row["because_2"]] == [*(each.item for each in reasons), None, None][:2]
        changes = [row[name] for name in ("change_1", "change_2") if row[name] is not None]
        assert changes == pytest.approx([each.change for each in reasons], abs=1e-6)
    assert table.filter(pl.col("history") > 0)["because_1"].null_count() == 4
    users = recommender.for_users(["user 1"], 3, explain=1).table
    assert users["because_1"].null_count() < 3
    with pytest.raises(ConfigError, match="from 0 to 20; it is -1"):
        recommender.for_users(["user 1"], 3, explain=-1)


@pytest.mark.slow
def test_ten_thousand_histories_have_the_ids_of_the_table() -> None:
    """Two items whose scores differ by rounding alone may change places; all other ids are equal."""
    table = cyclic_table(num_users=300, num_items=150)
    changes = tiny_changes(0, 0, 3, **{"model.hidden_size": 32, "model.max_length": 50})
    recommender = ADRec("paper", changes, seed=1, device="cpu").fit(table).recommender()
    rng, items = np.random.default_rng(3), recommender.dataset.catalogue.ids.to_list()
    some = [[items[at] for at in rng.integers(0, len(items), rng.integers(1, 50))] for _ in range(10_000)]
    expected = recommender.for_histories(some, 10).table.partition_by("history", maintain_order=True)
    swapped = 0
    for history, wanted in zip(some, expected, strict=True):
        found = recommender.one(history, 10)
        scores = [each.score for each in found]
        assert scores == pytest.approx(wanted["score"].to_list(), abs=2e-5)
        if [each.item for each in found] != wanted["item_id"].to_list():
            swapped += 1
    assert swapped < 20
