"""The rows of a step: which they are, how a batch is numbered within them, and that they stand for the catalogue."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adrec.data.batch import PackedBatch, training_batch
from adrec.data.sequences import Sequences
from adrec.nn.rows import Draw, RowSampler

NUM_ITEMS = 50


def sequences() -> Sequences:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, 200)
    items = np.minimum(rng.zipf(1.4, lengths.sum()), NUM_ITEMS - 5).astype(np.int32)  # the last five are never met
    ends = np.cumsum(lengths)
    return Sequences(items, ends - lengths, ends, 10)


def batch(users: int = 4) -> PackedBatch:
    whole = sequences()
    return training_batch(whole.items, whole.starts[:users], whole.ends[:users], 10)


def sampler(draw: Draw, count: int) -> RowSampler:
    return RowSampler.of(draw, count, sequences(), NUM_ITEMS, torch.device("cpu"))


@pytest.mark.parametrize("draw", ["uniform", "popularity", "mixed", "batch"])
def test_a_batch_is_numbered_within_its_rows(draw: Draw) -> None:
    whole = batch()
    rows = sampler(draw, 0 if draw == "batch" else 6).rows(whole, torch.Generator().manual_seed(1))
    local = rows.local(whole)
    assert rows.items[0] == 0 and (rows.items.diff() > 0).all()
    assert torch.equal(rows.items[local.items], whole.items) and torch.equal(rows.items[local.targets], whole.targets)
    assert local.numbers is not None and np.array_equal(local.numbers, local.items.numpy())
    assert rows.drawn.sum() == (0 if draw == "batch" else 6)
    assert rows.offsets.isfinite().all()


@pytest.mark.parametrize("draw", ["uniform", "popularity", "mixed"])
def test_the_sum_over_the_rows_is_that_over_the_catalogue_in_expectation(draw: Draw) -> None:
    whole, rng, total = batch(), torch.Generator().manual_seed(1), 0.0
    made, value = sampler(draw, 20), torch.rand(NUM_ITEMS + 1, generator=torch.Generator().manual_seed(2)) + 0.5
    for _ in range(3000):
        rows = made.rows(whole, rng)
        total += float((value[rows.items] * rows.offsets.exp())[1:].sum())
    assert abs(total / 3000 / float(value[1:].sum()) - 1) < 0.03


def test_the_batch_is_a_sample_by_popularity() -> None:
    """Over random batches of independent items, their sum is that over the items that are met."""
    drawn, value = np.random.default_rng(3), torch.rand(NUM_ITEMS + 1, generator=torch.Generator().manual_seed(2)) + 0.5
    made, total = sampler("batch", 0), 0.0
    share = np.diff(made.popularity.numpy(), prepend=0.0)  # type: ignore[union-attr]
    for _ in range(2000):
        items = (drawn.choice(NUM_ITEMS, 40, p=share) + 1).astype(np.int32)
        whole = training_batch(items, np.array([0, 20]), np.array([20, 40]), 20)
        rows = made.rows(whole, torch.Generator())
        total += float((value[rows.items] * rows.offsets.exp())[1:].sum())
    assert abs(total / 2000 / float(value[1:].sum()) - 1) < 0.05


def test_each_item_is_drawn_as_often_as_it_should() -> None:
    made, rng = sampler("popularity", 1000), torch.Generator().manual_seed(5)
    share = np.diff(made.popularity.numpy(), prepend=0.0)  # type: ignore[union-attr]
    times = np.zeros(NUM_ITEMS + 1)
    for _ in range(100):
        rows = made.rows(batch(), rng)
        times[rows.items.numpy()] += rows.drawn.numpy()
    assert np.abs(times[1:] / 100_000 - share).max() < 0.005
    assert (share > 0).all()  # items that are never met too
