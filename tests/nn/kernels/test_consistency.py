"""R-Drop's loss against its formula, and training with it: whole, in parts, and with nothing dropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.kernels import catalogue
from adrec.nn.kernels.consistency import plain_consistent_cross_entropy
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.repeats import Repeats
from adrec.train.step import Step
from conftest import paper_model, paper_network

ALPHA = 3.0


def packed(lists: list[list[int]]) -> PackedBatch:
    lengths = np.array([len(each) for each in lists])
    items = np.concatenate(lists)
    tensors = [torch.from_numpy(each) for each in (items, items % 30 + 1, np.concatenate([[0], np.cumsum(lengths)]))]
    return PackedBatch(tensors[0], tensors[1], lengths, tensors[2], items)


def formula(
    x: Tensor, embedding: Tensor, targets: Tensor, bias: Tensor, repeats: Repeats, offsets: Tensor | float
) -> Tensor:
    """R-Drop, token by token, as its paper writes it."""
    logits = x @ embedding[1:].T + offsets
    raised = logits.index_put((repeats.rows, repeats.items - 1), bias.expand(len(repeats.rows)), accumulate=True)
    log_p, log_q = raised.log_softmax(1).chunk(2)
    total, n = x.new_zeros(()), len(log_p)
    for i in range(n):
        p, q = log_p[i], log_q[i]
        divergences = (p.exp() * (p - q)).sum() + (q.exp() * (q - p)).sum()
        total = total - (p[targets[i] - 1] + q[targets[i] - 1]) / 2 + ALPHA * divergences / 4
    return total / n


@pytest.fixture
def twice(device: torch.device) -> PackedBatch:
    batch = packed([[3, 1, 3, 7, 2], [5, 6], list(range(1, 30)) * 3])
    return batch.select(np.tile(np.arange(3), 2))[0].to(device)


@pytest.mark.parametrize("few", [False, True], ids=["at once", "some tokens at a time"])
@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["usual", "beyond what float32 can hold"])
@pytest.mark.parametrize("shift", [0.0, 3.0], ids=["without offsets", "with offsets"])
def test_it_is_the_formula_and_so_are_its_gradients(
    twice: PackedBatch, device: torch.device, few: bool, scale: float, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if few:  # 7 tokens, which divide nothing here
        monkeypatch.setattr(catalogue, "FEWEST_TOKENS", 7)
        monkeypatch.setattr(catalogue, "LOGITS", 1)
    rng = torch.Generator().manual_seed(3)
    n = len(twice.items)
    numbers = [torch.randn(n, 8, generator=rng), torch.randn(31, 8, generator=rng), torch.tensor(0.7)]
    inputs = [(scale**0.5 * each).to(device).requires_grad_() for each in numbers]
    exact = [each.detach().double().requires_grad_() for each in inputs]
    repeats = Repeats.of_tokens(twice)
    offsets = (shift * torch.rand(30, generator=rng)).to(device)
    options = {"padding_class": False, "total": n, "repeats": repeats, "offsets": offsets if shift else None}
    loss = cross_entropy(
        inputs[0],
        inputs[1],
        twice.targets,
        consistency=ALPHA,
        repeat_bias=inputs[2],
        **options,  # type: ignore[arg-type]
    )
    expected = formula(exact[0], exact[1], twice.targets, exact[2], repeats, offsets.double())
    torch.testing.assert_close(loss.double(), expected, atol=0, rtol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, exact), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-6 * scale**2, rtol=1e-4)


def test_of_equal_passes_it_is_the_cross_entropy(twice: PackedBatch) -> None:
    rng = torch.Generator().manual_seed(3)
    x, embedding = torch.randn(len(twice.items) // 2, 8, generator=rng).repeat(2, 1), torch.randn(31, 8, generator=rng)
    ours = cross_entropy(x, embedding, twice.targets, consistency=9.0, padding_class=True)
    torch.testing.assert_close(ours, cross_entropy(x, embedding, twice.targets, padding_class=True))


def test_the_plain_way_gives_the_same(twice: PackedBatch) -> None:
    rng = torch.Generator().manual_seed(3)
    x, embedding = torch.randn(len(twice.items), 8, generator=rng), torch.randn(31, 8, generator=rng)
    for padding_class in (False, True):
        ours = cross_entropy(x, embedding, twice.targets, consistency=9.0, padding_class=padding_class)
        torch.testing.assert_close(
            ours, plain_consistent_cross_entropy(x, embedding, twice.targets, 9.0, padding_class)
        )


def gradients(network: ADRecNetwork, batch: PackedBatch, dropout_seed: int | None, **more: float) -> list[Tensor]:
    rng = None if dropout_seed is None else torch.Generator().manual_seed(dropout_seed)
    draws = network.draw(batch, torch.Generator().manual_seed(5))
    max_tokens = int(more.pop("max_tokens", 0)) or None
    step = Step({"ce": 1.0, "mse": 1.0}, **more)  # type: ignore[arg-type]
    step.gradients(network, batch, draws, rng, max_tokens)
    return [each.grad.clone() for each in network.parameters() if each.grad is not None]


def test_a_step_with_two_passes(dropping: ADRecNetwork) -> None:
    batch = packed([[3, 1, 3, 7, 2], [5, 6], [1, 2, 3, 4], [9, 8, 7]])
    alone = gradients(dropping, batch, None)
    # With nothing dropped both passes are the same, whole or in parts.
    for max_tokens in (0, 8):
        for ours, theirs in zip(
            gradients(dropping, batch, None, consistency=5.0, max_tokens=max_tokens), alone, strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    # With dropout they differ, the more so the more consistency weighs.
    weak, strong = (gradients(dropping, batch, 1, consistency=alpha) for alpha in (1e-9, 5.0))
    assert any(not torch.allclose(a, b, atol=1e-4) for a, b in zip(weak, strong, strict=True))


@pytest.fixture
def dropping() -> ADRecNetwork:
    network = paper_network(paper_model(dropout=0.4, decoder="adaptive", ranks_by="condition", unit_targets=True), 30)
    network.initialize(torch.Generator().manual_seed(0))
    return network
