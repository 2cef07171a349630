"""Blocks of the catalogue give what the whole of it gives: best items, ranks, masks, ties."""

from __future__ import annotations

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrec.inference.scores import Masked, best_items, count_above, item_blocks, log_total
from adrec.nn.scores import Biased, InnerProducts, ItemPairs, Scores, Table
from adrec.utils.errors import RunError

NUM_ITEMS = 37


def scores(
    kind: str, seed: int, device: torch.device, num_users: int = 5, levels: int = 3
) -> tuple[Scores, torch.Tensor]:
    """Return scores with many ties on ``device``, and all of them on the CPU, [B, V + 1]."""
    rng = np.random.default_rng(seed)
    query, items = (
        torch.from_numpy(rng.integers(-levels, levels + 1, size=(rows, 4)).astype(np.float32))
        for rows in (num_users, NUM_ITEMS + 1)
    )
    whole = query @ items.T  # small integers: exact in any order
    on_device = InnerProducts(query.to(device), items.to(device)) if kind == "products" else Table(whole.to(device))
    return on_device, whole


def in_blocks_of(width: int) -> object:
    return patch.multiple("adrec.inference.scores", FEWEST_ITEMS=width, BLOCK=1)


cases = given(
    kind=st.sampled_from(["products", "table"]),
    seed=st.integers(0, 10_000),
    width=st.integers(1, NUM_ITEMS + 5),
    masked_pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(1, NUM_ITEMS)), max_size=60),
    excluded=st.none() | st.sets(st.integers(1, NUM_ITEMS)),
    k=st.integers(1, NUM_ITEMS + 3),
)


def mask(pairs: list[tuple[int, int]], excluded: set[int] | None) -> tuple[Masked, torch.Tensor]:
    allowed = torch.ones(5, NUM_ITEMS + 1, dtype=torch.bool)
    allowed[:, 0] = False
    for row, item in pairs:
        allowed[row, item] = False
    nobody = torch.zeros(NUM_ITEMS + 1, dtype=torch.bool)
    nobody[list(excluded or ())] = True
    rows, items = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    return Masked.of(rows, items, None if excluded is None else nobody), allowed & ~nobody


@cases
def test_the_best_items_are_those_of_sorting(
    device: torch.device,
    kind: str,
    seed: int,
    width: int,
    masked_pairs: list[tuple[int, int]],
    excluded: set[int] | None,
    k: int,
) -> None:
    made, whole = scores(kind, seed, device)
    masked, allowed = mask(masked_pairs, excluded)
    with in_blocks_of(width):  # type: ignore[attr-defined]
        items, best = best_items(made, k, NUM_ITEMS, masked)
    assert items.shape == best.shape == (5, min(k, NUM_ITEMS))
    for row in range(5):
        expected = sorted(whole[row][allowed[row]].tolist(), reverse=True)[:k]
        real = items[row][items[row] > 0]
        assert best[row][: len(expected)].tolist() == expected
        assert whole[row][real].tolist() == expected
        assert len(set(real.tolist())) == len(real)
        assert allowed[row][real].all()
        assert (items[row][len(expected) :] == 0).all()
        assert (best[row][len(expected) :] == -torch.inf).all()


@cases
def test_ranks_count_everything_that_scores_at_least_as_high(
    device: torch.device,
    kind: str,
    seed: int,
    width: int,
    masked_pairs: list[tuple[int, int]],
    excluded: set[int] | None,
    k: int,
) -> None:
    made, whole = scores(kind, seed, device)
    targets = torch.from_numpy(np.random.default_rng(seed).integers(1, NUM_ITEMS + 1, size=5))
    pairs = [(row, item) for row, item in masked_pairs if item != targets[row]]
    masked, allowed = mask(pairs, None)
    first = int(excluded is None)  # sometimes the padding's row is ranked too
    allowed[:, 0] = first == 0
    with in_blocks_of(width):  # type: ignore[attr-defined]
        counts, top = count_above(made, targets.to(device), NUM_ITEMS, masked, first=first, top=k)
    own = whole.gather(1, targets[:, None])
    assert counts.tolist() == (((whole >= own) & allowed).sum(1) - 1).tolist()
    assert (top != 0).sum(1).tolist() == allowed[:, 1:].sum(1).clamp(max=k).tolist()


@pytest.mark.parametrize("width", [1, 7, 1000])
def test_a_collapsed_embedding_ranks_last_whatever_rounding_does(width: int, device: torch.device) -> None:
    """Every item has the same vector: however a product is rounded, nobody may profit from it."""
    rng = torch.Generator().manual_seed(1)
    query, item = torch.randn(64, 128, generator=rng), torch.randn(1, 128, generator=rng)
    made = InnerProducts(query.to(device), item.expand(2001, 128).contiguous().to(device))
    targets = torch.randint(1, 2001, (64,), generator=rng).to(device)
    with in_blocks_of(width):  # type: ignore[attr-defined]
        counts, _ = count_above(made, targets, 2000)
    assert (counts == 1999).all()


@pytest.mark.parametrize("place", [1, NUM_ITEMS])
def test_what_is_no_number_is_refused_in_any_block(place: int, device: torch.device) -> None:
    _, whole = scores("table", 1, device)
    whole[3, place] = torch.nan
    with in_blocks_of(5), pytest.raises(RunError, match="diverged"):  # type: ignore[attr-defined]
        best_items(Table(whole.to(device)), 3, NUM_ITEMS)
    with in_blocks_of(5), pytest.raises(RunError, match="diverged"):  # type: ignore[attr-defined]
        count_above(Table(whole.to(device)), torch.ones(5, dtype=torch.int64, device=device), NUM_ITEMS)


@pytest.mark.parametrize(("num_users", "num_items"), [(1, 10), (512, 4731), (512, 1_000_000), (1, 1_000_000)])
def test_blocks_cover_the_catalogue_once_and_stay_small(num_users: int, num_items: int) -> None:
    blocks = item_blocks(num_users, 1, num_items)
    assert [number for items in blocks for number in (items.start, items.stop)] == sorted(
        number for items in blocks for number in (items.start, items.stop)
    )
    assert sum(items.stop - items.start for items in blocks) == num_items
    assert max(items.stop - items.start for items in blocks) * num_users <= 1 << 22


@given(
    seed=st.integers(0, 10_000),
    widths=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    rows=st.integers(1, 6),
    biased=st.booleans(),
)
def test_a_rank_depends_neither_on_the_blocks_nor_on_the_batch(
    seed: int, widths: tuple[int, int], rows: int, biased: bool
) -> None:
    """Of scores that rounding cannot tell apart too: many items are copies of others, or all but copies."""
    rng = torch.Generator().manual_seed(seed)
    items = torch.randn(65, 16, generator=rng)
    items[33:] = items[1:33] * (1 + 1e-7 * torch.randint(-1, 2, (32, 1), generator=rng))
    query = torch.randn(6, 16, generator=rng)
    targets = torch.randint(1, 65, (6,), generator=rng)
    pairs = ItemPairs.of(np.array([0, 1, 1, 4]), np.array([3, 5, 40, 64]))

    def made(some: slice) -> Scores:
        products = InnerProducts(query[some], items)
        return Biased(products, pairs, torch.tensor(0.25)) if biased else products

    products = query.double()[:, None] * items.double()  # exact, as the factors are float32
    exact = torch.tensor([[math.fsum(each) for each in row] for row in products.tolist()], dtype=torch.float64)
    if biased:
        exact[pairs.rows, pairs.items] += 0.25
    own = exact.gather(1, targets[:, None])
    expected = (exact[:, 1:] >= own).sum(1) - 1
    for width in widths:
        with in_blocks_of(width):
            assert torch.equal(count_above(made(slice(None)), targets, 64)[0], expected)
    if not biased:
        parts = [slice(first, first + rows) for first in range(0, 6, rows)]
        counts = [count_above(made(part), targets[part], 64)[0] for part in parts]
        assert torch.equal(torch.cat(counts), expected)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 30.0])
def test_the_total_of_a_softmax(temperature: float) -> None:
    scores = 20 * torch.randn(6, 500, generator=torch.Generator().manual_seed(0))
    scores[0, 3:] = -torch.inf
    scores[1] = -torch.inf
    found = log_total(scores, temperature, scores.amax(1))
    expected = (scores.double() / temperature).logsumexp(1).float()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
