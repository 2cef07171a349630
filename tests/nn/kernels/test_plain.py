"""Every kernel equals its plain reference, in values and in gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from adrec.data.batch import history_batch
from adrec.nn.kernels.attention import Attend, plain_attention
from adrec.nn.kernels.cross_entropy import cross_entropy, plain_cross_entropy
from adrec.nn.kernels.dropout import dropout, plain_dropout
from adrec.nn.kernels.gelu import gelu, plain_gelu
from adrec.nn.kernels.layout import layout
from adrec.nn.kernels.rotary import plain_rotate, rotate, rotations
from adrec.nn.kernels.sampled import plain_some_scores, some_scores

RNG = torch.Generator().manual_seed(1)


def same(ours: Tensor, plain: Tensor, *inputs: Tensor) -> None:
    """Check that two results are equal, and so are the gradients of a random combination of each."""
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    left, right = (torch.autograd.grad((each * weights).sum(), inputs, retain_graph=True) for each in (ours, plain))
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RNG).requires_grad_()


@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention(sink: bool, causal: bool) -> None:
    lengths, most, heads, size = np.array([3, 7, 1, 5]), 7, 2, 8
    plan = layout(lengths, most, heads=heads, sink=sink, causal=causal, device=torch.device("cpu"))
    qkv = leaf(len(plan.row_users), 3 * size)
    ours = Attend.apply(qkv, plan, 0.0, None)
    q, k, v = (each.view(len(qkv), heads, -1) for each in qkv.chunk(3, dim=1))
    plain = torch.zeros(len(qkv), heads, size // heads)
    for user, length in enumerate(lengths.tolist()):
        rows = [*([plan.num_tokens + user] if sink else []), *range(int(plan.last_rows[user]) - length + 1, 10**6)]
        rows = rows[: length + sink]
        bias = torch.zeros(len(rows), len(rows))
        if sink:
            bias[1:, 0] = math.log(most - length) if most > length else -math.inf
            if not causal:
                bias[0, 0] = bias[1, 0]
        if causal:
            bias += torch.triu(torch.full_like(bias, -math.inf), diagonal=1)
        for head in range(heads):
            queries = q[rows, head]
            if sink and not causal:  # padding attends to all positions alike
                queries = torch.cat([torch.zeros_like(queries[:1]), queries[1:]])
            part = plain_attention(queries, k[rows, head], v[rows, head], bias)
            plain = plain.index_put((torch.tensor(rows), torch.tensor(head)), part)
    same(ours, plain.flatten(1), qkv)


def test_rotary() -> None:
    heads, size = 2, 8
    qkv, positions = leaf(5, 3 * size), torch.tensor([0, 1, 2, 1, 7])
    rotation = rotations(positions, size // heads)
    angles = positions[:, None] * 10_000.0 ** (-2 * torch.arange(2) / (size // heads))
    q, k, v = qkv.view(5, 3, heads, size // heads).unbind(1)
    plain = torch.stack([plain_rotate(q, angles), plain_rotate(k, angles), v], dim=1).flatten(1)
    same(rotate(qkv, rotation, heads), plain, qkv)


def test_gelu() -> None:
    x = leaf(50, 3)
    same(gelu(x), plain_gelu(x), x)
    with torch.no_grad():
        torch.testing.assert_close(gelu(x.clone()), plain_gelu(x))


def test_dropout_in_distribution() -> None:
    x = torch.ones(200_000)
    ours, plain = (function(x, 0.3, torch.Generator().manual_seed(3)) for function in (dropout, plain_dropout))
    for each in (ours, plain):
        assert each.mean() == pytest.approx(1, abs=0.01)
        assert (each == 0).float().mean() == pytest.approx(0.3, abs=0.01)
        assert each.max() == pytest.approx(1 / 0.7, rel=1e-4)


@pytest.mark.parametrize("padding_class", [False, True])
def test_cross_entropy(padding_class: bool) -> None:
    x, embedding = leaf(40, 8), leaf(31, 8)
    targets = torch.randint(1, 31, (40,), generator=RNG)
    ours = cross_entropy(x, embedding, targets, padding_class=padding_class)
    plain = plain_cross_entropy(x, embedding, targets, padding_class)
    torch.testing.assert_close(ours, plain)
    left, right = (torch.autograd.grad(each, (x, embedding)) for each in (ours, plain))
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("catalogue", [31, 5000], ids=["all scores", "gathered"])
def test_some_scores(catalogue: int) -> None:
    x, embedding = leaf(40, 8), leaf(catalogue, 8)
    items = torch.randint(1, catalogue, (40, 5), generator=RNG)
    same(some_scores(x, embedding, items), plain_some_scores(x, embedding, items), x, embedding)


def test_a_history_is_laid_out_user_after_user() -> None:
    """The rows of the attention test are those of a packed batch."""
    batch = history_batch(np.arange(1, 11), np.array([0, 3]), np.array([3, 10]), 7)
    plan = layout(batch.lengths, 7, heads=1, sink=True, causal=True, device=torch.device("cpu"))
    assert plan.last_rows.tolist() == [2, 9] and plan.row_users.tolist() == [0] * 3 + [1] * 7 + [0, 1]
