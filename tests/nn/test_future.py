"""Soft targets: the loss and its gradients against dense logits, and positions of pairs against a slow one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrec.config.adrec import preset
from adrec.data.batch import PackedBatch, training_batch
from adrec.nn.future import future_loss, next_items
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.repeats import Repeats
from adrec.train.step import Step
from adrec.utils.errors import ConfigError
from conftest import paper_model, paper_network

V, D = 9, 6
LISTS = [[1, 2, 1, 3, 3], [4, 5], [5, 5, 5, 6, 1, 2, 9, 5]]
sequences = st.lists(st.lists(st.integers(1, V), min_size=2, max_size=7), min_size=1, max_size=4)


def packed(lists: list[list[int]]) -> PackedBatch:
    ends = np.cumsum([len(each) for each in lists])
    return training_batch(np.concatenate(lists).astype(np.int32), ends - [len(each) for each in lists], ends, 50)


def slow_targets(lists: list[list[int]], number: int, decay: float) -> torch.Tensor:
    """Return the target distribution of each token, [N, V + 1]."""
    rows = []
    for items in lists:
        for place in range(len(items) - 1):
            row = torch.zeros(V + 1, dtype=torch.float64)
            for j, item in enumerate(items[place + 1 : place + 1 + number]):
                row[item] += decay**j
            rows.append(row / row.sum())
    return torch.stack(rows)


@given(sequences, st.integers(1, 5), st.sampled_from([0.3, 1.0]))
def test_the_next_items_and_their_weights(lists: list[list[int]], number: int, decay: float) -> None:
    items, weights = next_items(packed(lists), number, decay)
    found = torch.zeros(len(items), V + 1, dtype=torch.float64).scatter_add_(1, items, weights.double())
    torch.testing.assert_close(found, slow_targets(lists, number, decay), rtol=1e-6, atol=1e-6)


@given(sequences, st.lists(st.integers(1, V), min_size=1, max_size=3))
def test_positions_of_pairs_are_looked_up(lists: list[list[int]], wanted: list[int]) -> None:
    batch = packed(lists)
    repeats = Repeats.of_tokens(batch)
    pairs = list(zip(repeats.rows.tolist(), repeats.items.tolist(), strict=True))
    items = np.tile(np.array(wanted), (len(batch.items), 1))
    found = repeats.positions(batch, items)
    for row, column in np.ndindex(found.shape):
        pair = (row, wanted[column])
        assert found[row, column] == (pairs.index(pair) if pair in pairs else -1)


@pytest.mark.parametrize("kind", ["no bias", "one number", "a number for each pair"])
def test_the_loss_and_its_gradients_are_those_of_soft_targets(kind: str) -> None:
    rng, batch = torch.Generator().manual_seed(0), packed(LISTS)
    repeats = Repeats.of_tokens(batch) if kind != "no bias" else None
    x, e = (torch.randn(*shape, generator=rng).requires_grad_() for shape in ((len(batch.items), D), (V + 1, D)))
    bias = None
    if repeats is not None:
        bias = torch.randn(len(repeats.items) if kind != "one number" else (), generator=rng).requires_grad_()
    inputs = [each for each in (x, e, bias) if each is not None]
    plain = cross_entropy(x, e, batch.targets, padding_class=False, total=len(x), repeat_bias=bias, repeats=repeats)
    ours = plain + future_loss(x, e, batch, 3, 0.5, repeats, bias) / len(x)
    got = torch.autograd.grad(ours, inputs)

    logits = x @ e.T
    if repeats is not None and bias is not None:
        logits = logits.index_put((repeats.rows, repeats.items), bias.expand(len(repeats.items)), accumulate=True)
    log_p = torch.log_softmax(logits[:, 1:].double(), 1)
    expected = -(slow_targets(LISTS, 3, 0.5)[:, 1:] * log_p).sum(1).mean()
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(got, torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    model = paper_network(paper_model(hidden_size=D, num_heads=1, max_length=8, repeat_bias=True), V)
    model.initialize(torch.Generator().manual_seed(1))
    batch, step = packed(LISTS), Step({"ce": 1.0, "mse": 1.0}, future_items=3, future_decay=0.5)
    draws = model.draw(batch, torch.Generator().manual_seed(2))
    found = []
    for max_tokens in (None, 5):
        losses = step.gradients(model, batch, draws, max_tokens=max_tokens)
        found.append((losses["ce"], model.item_embedding.weight.grad.clone()))  # type: ignore[union-attr]
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
    alone = Step({"ce": 1.0, "mse": 1.0}).gradients(model, batch, draws)["ce"]
    assert alone != pytest.approx(float(found[0][0]), rel=1e-3)


def test_what_is_refused() -> None:
    for changes, word in (
        ({"finetune.future_items": 0}, "at least 1"),
        ({"finetune.future_items": 2, "finetune.future_decay": 0.0}, r"\(0, 1\]"),
        ({"finetune.future_items": 2, "finetune.loss": "mse", "finetune.consistency": 0.0}, "cross-entropy"),
        ({"finetune.future_items": 1, "finetune.future_decay": 0.5}, "no effect"),
    ):
        with pytest.raises(ConfigError, match=word):
            preset("default", changes)
