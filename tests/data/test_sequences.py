"""Training sequences: the items of a basket have no order, everything else keeps its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrec.data.prepare import prepare
from adrec.data.sequences import Sequences
from adrec.data.split import basket_begins, make_split
from adrec.train.sequences import training_histories

rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 4)), min_size=9, max_size=40)


def baskets(sequences: Sequences) -> list[list[list[tuple[int, float]]]]:
    """Return the baskets of each sequence, as their items and weights in order."""
    assert sequences.begins is not None
    assert sequences.weights is not None
    found = []
    for start, end in zip(sequences.starts.tolist(), sequences.ends.tolist(), strict=True):
        own: list[list[tuple[int, float]]] = []
        for at in range(start, end):
            if sequences.begins[at]:
                own.append([])
            own[-1].append((int(sequences.items[at]), float(sequences.weights[at])))
        found.append(own)
    return found


@given(rows, st.integers(0, 5))
def test_shuffling_moves_items_within_their_basket_alone(rows: list[tuple[int, int, int]], seed: int) -> None:
    table = pl.DataFrame([*rows, (0, 0, 0), (0, 1, 9)], schema=["user", "item", "time"], orient="row")
    dataset = prepare(table, split="none")
    weights = np.arange(dataset.num_interactions, dtype=np.float32)
    histories = training_histories(dataset, make_split(dataset), 50)
    assert histories.begins is None
    assert histories.shuffled(torch.Generator()) is histories
    whole = replace(histories, begins=basket_begins(dataset), weights=weights)
    shuffled = whole.shuffled(torch.Generator().manual_seed(seed))
    assert [[sorted(basket) for basket in own] for own in baskets(shuffled)] == [
        [sorted(basket) for basket in own] for own in baskets(whole)
    ]


def test_every_order_of_a_basket_is_as_likely() -> None:
    sequences = Sequences(np.array([7, 1, 2, 3, 9], dtype=np.int32), np.array([0]), np.array([5]), 50)
    sequences = replace(sequences, begins=np.array([True, True, False, False, True]))
    rng = torch.Generator().manual_seed(0)
    orders = [tuple(sequences.shuffled(rng).items.tolist()) for _ in range(3000)]
    assert {(first, last) for first, *_, last in orders} == {(7, 9)}
    counts = {order: orders.count(order) for order in set(orders)}
    assert len(counts) == 6
    assert min(counts.values()) > 400  # 500 each, give or take 20


def test_generated_items_before_a_sequence_are_baskets_of_their_own() -> None:
    sequences = Sequences(np.array([1, 2, 3, 4], dtype=np.int32), np.array([0, 2]), np.array([2, 4]), 50)
    sequences = replace(
        sequences, begins=np.array([True, False, True, True]), weights=np.array([0, 1, 0, 1], dtype=np.float32)
    )
    longer = sequences.behind(np.array([[8, 9], [6, 7]]))
    assert longer.items.tolist() == [8, 9, 1, 2, 6, 7, 3, 4]
    assert longer.begins is not None
    assert longer.begins.tolist() == [True, True, True, False, True, True, True, True]
    assert longer.weights is not None
    assert longer.weights.tolist() == [0.5, 0.5, 0, 1, 0.5, 0.5, 0, 1]


def test_baskets_train_in_any_order_where_the_split_holds_them_out_whole() -> None:
    table = pl.DataFrame({"user": [1] * 8, "item": range(8), "time": [1, 1, 2, 2, 3, 3, 4, 4]})
    dataset = prepare(table, split="last-basket")
    histories = training_histories(dataset, make_split(dataset), 50)
    assert histories.begins is not None
    assert histories.begins.tolist() == [True, False] * 4
    assert histories.ends.tolist() == [4]
