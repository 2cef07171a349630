"""The scalable cross-entropy against a slow oracle, slot by slot, and against the full softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from adrec.data.batch import PackedBatch, training_batch
from adrec.nn.kernels import buckets as module
from adrec.nn.kernels.buckets import Buckets, bucket_cross_entropy
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.repeats import Repeats

D, ITEMS = 4, 30


def batch() -> PackedBatch:
    items = np.random.default_rng(0).integers(1, 12, 40).astype(np.int32)  # users return to items
    ends = np.array([9, 21, 25, 40])
    return training_batch(items, np.array([0, 9, 21, 25]), ends, 50)


def tensors(num_tokens: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(num_tokens, D, generator=rng), torch.randn(ITEMS + 1, D, generator=rng)


def buckets(cover: float, items: int) -> Buckets:
    return Buckets(cover, items, torch.Generator().manual_seed(7))


def oracle(
    x: Tensor,
    embedding: Tensor,
    whole: PackedBatch,
    given: Buckets,
    first: int,
    weights: Tensor | None,
    bias: Tensor,
    repeats: Repeats,
) -> Tensor:
    pairs = {(int(row), int(item)): at for at, (row, item) in enumerate(zip(repeats.rows, repeats.items, strict=True))}

    def logit(token: int, item: int) -> Tensor:
        score = x[token] @ embedding[item]
        at = pairs.get((token, item))
        return score if at is None else score + (bias[at] if bias.dim() else bias)

    tokens, items = given.divide(x, embedding, first)
    largest: dict[int, Tensor] = {}
    for bucket in range(len(tokens)):
        for token in tokens[bucket].tolist():
            target = int(whole.targets[token])
            others = [logit(token, item) for item in items[bucket].tolist() if item != target]
            own = logit(token, target)
            loss = torch.logsumexp(torch.stack([own, *others]), 0) - own
            if token not in largest or loss > largest[token]:
                largest[token] = loss
    weight = torch.ones(len(x)) if weights is None else weights
    sum_of = sum((weight[token] * loss for token, loss in largest.items()), torch.zeros(()))
    return sum_of * weight.sum() / sum(weight[token] for token in largest)


@pytest.mark.parametrize("per_pair", [False, True])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradients(per_pair: bool, first: int, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCORES", 2 * (ITEMS + 1))  # two buckets at a time
    whole = batch()
    repeats = Repeats.of_tokens(whole)
    x, embedding = tensors(len(whole.items))
    rng = torch.Generator().manual_seed(1)
    bias = torch.randn(len(repeats.items), generator=rng) if per_pair else torch.tensor(-0.7)
    weights = torch.rand(len(x), generator=rng) if weighted else None
    found, gradients = [], []
    for kind in ("kernel", "oracle"):
        own = [each.clone().requires_grad_() for each in (x, embedding, bias)]
        if kind == "kernel":
            loss = bucket_cross_entropy(
                own[0],
                own[1],
                whole.targets,
                buckets(0.5, 6),
                padding_class=first == 0,
                weights=weights,
                repeat_bias=own[2],
                repeats=repeats,
            )
        else:
            loss = oracle(own[0], own[1], whole, buckets(0.5, 6), first, weights, own[2], repeats)
        loss.backward()
        found.append(loss.detach())
        gradients.append([each.grad for each in own])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_one_bucket_of_everything_is_the_full_softmax() -> None:
    whole = batch()
    repeats, (x, embedding) = Repeats.of_tokens(whole), tensors(len(whole.items))
    bias = torch.tensor(0.9)
    everything = buckets(len(x), 10 * ITEMS)
    found = bucket_cross_entropy(x, embedding, whole.targets, everything, repeat_bias=bias, repeats=repeats)
    full = cross_entropy(x, embedding, whole.targets, padding_class=False, total=1.0, repeat_bias=bias, repeats=repeats)
    torch.testing.assert_close(found, full, rtol=1e-5, atol=1e-4)


def test_a_division() -> None:
    x, embedding = tensors(50)
    tokens, items = buckets(2.0, 8).divide(x, embedding, 1)
    count = math.ceil(math.sqrt(2.0 * 50))
    assert tokens.shape == (count, count) and items.shape == (count, 8)
    assert (items >= 1).all() and (items.diff(dim=1) > 0).all()
    centres = torch.randn(count, 50, generator=torch.Generator().manual_seed(7)) @ x
    for bucket in range(count):
        nearest = (x @ centres[bucket]).argsort(descending=True)[:count]
        assert set(nearest.tolist()) == set(tokens[bucket].tolist())
        order = (embedding[1:] @ centres[bucket]).argsort(descending=True)[:8] + 1
        assert set(order.tolist()) == set(items[bucket].tolist())


def test_tokens_without_weight_make_no_loss() -> None:
    whole = batch()
    x, embedding = (each.requires_grad_() for each in tensors(len(whole.items)))
    few = buckets(0.05, 6)
    inside = few.divide(x, embedding, 1)[0]
    weights = torch.full((len(x),), 100.0)
    weights[inside.flatten()] = 0.0
    loss = bucket_cross_entropy(x, embedding, whole.targets, buckets(0.05, 6), weights=weights)
    loss.backward()
    assert loss == 0 and x.grad is not None and x.grad.isfinite().all()


def test_bfloat16_is_near() -> None:
    whole = batch()
    x, embedding = tensors(len(whole.items))
    everything = len(x), 10 * ITEMS
    exact, low = (
        bucket_cross_entropy(query, embedding, whole.targets, buckets(*everything)) for query in (x, x.bfloat16())
    )
    torch.testing.assert_close(low, exact, rtol=5e-3, atol=0)


def test_a_single_token_and_two_items() -> None:
    x, embedding = torch.ones(1, D).requires_grad_(), torch.ones(3, D).requires_grad_()
    loss = bucket_cross_entropy(x, embedding, torch.tensor([2]), buckets(2.0, 256))
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(math.log(2)))
    assert x.grad is not None and x.grad.isfinite().all()
