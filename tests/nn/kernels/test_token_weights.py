"""Weights of tokens in the losses: a whole weight is that many copies of the token, and 0 is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from adrec.data.batch import PackedBatch, training_batch
from adrec.models.network import NetworkModel
from adrec.models.registry import BUILT_IN, find_model
from adrec.nn.base import make_network
from adrec.nn.future import future_loss, next_items, token_weights
from adrec.nn.kernels import catalogue
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.train.step import Step
from conftest import paper_model, paper_network

V, D = 9, 6
LISTS = [[1, 2, 1, 3, 3], [4, 5], [5, 5, 5, 6, 1, 2, 9, 5]]
WEIGHTS = torch.tensor([1, 0, 2, 1, 3, 0, 0, 1, 2, 1, 1, 4], dtype=torch.float32)  # of the 12 targets


def packed(weights: Tensor | None = WEIGHTS) -> PackedBatch:
    ends = np.cumsum([len(each) for each in LISTS])
    batch = training_batch(np.concatenate(LISTS).astype(np.int32), ends - [len(each) for each in LISTS], ends, 50)
    return replace(batch, weights=weights)


@pytest.mark.parametrize("few", [False, True], ids=["at once", "some tokens at a time"])
@pytest.mark.parametrize("consistency", [0.0, 2.0], ids=["one pass", "two passes"])
def test_a_weight_is_as_many_tokens(consistency: float, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if few:
        monkeypatch.setattr(catalogue, "FEWEST_TOKENS", 5)
        monkeypatch.setattr(catalogue, "LOGITS", 1)
    passes = 2 if consistency else 1
    rng, weights, targets = torch.Generator().manual_seed(0), WEIGHTS.repeat(passes), packed().targets.repeat(passes)
    x, e = (torch.randn(*shape, generator=rng).requires_grad_() for shape in ((len(targets), D), (V + 1, D)))
    options = {"padding_class": False, "consistency": consistency}
    ours = cross_entropy(x, e, targets, weights=weights, total=float(weights.sum()), **options)  # type: ignore[arg-type]
    got = torch.autograd.grad(ours, [x, e])
    copies = weights.long()
    copied = cross_entropy(x.repeat_interleave(copies, 0), e, targets.repeat_interleave(copies), **options)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, copied, rtol=1e-6, atol=0)
    torch.testing.assert_close(got, torch.autograd.grad(copied, [x, e]), rtol=1e-5, atol=1e-6)
    assert (got[0][weights == 0] == 0).all()


def test_each_of_several_next_items_counts_by_its_own_weight() -> None:
    batch, rng = packed(), torch.Generator().manual_seed(0)
    x, e = (torch.randn(*shape, generator=rng).requires_grad_() for shape in ((len(batch.items), D), (V + 1, D)))
    weights = token_weights(batch, 3, 0.5)
    ours = cross_entropy(x, e, batch.targets, padding_class=False, weights=weights, total=1.0) + future_loss(
        x, e, batch, 3, 0.5
    )
    got = torch.autograd.grad(ours, [x, e])
    items, shares = next_items(packed(None), 3, 0.5)
    log_p, expected = torch.log_softmax((x @ e[1:].T).double(), 1), torch.zeros((), dtype=torch.float64)
    for token, (targets, parts) in enumerate(zip(items.tolist(), shares.tolist(), strict=True)):
        for ahead, (item, part) in enumerate(zip(targets, parts, strict=True)):
            if part:
                expected = expected - part * float(WEIGHTS[token + ahead]) * log_p[token, item - 1]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(got, torch.autograd.grad(expected, [x, e]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("consistency", [0.0, 2.0], ids=["one pass", "two passes"])
def test_parts_of_a_batch_add_up_to_the_whole(consistency: float) -> None:
    model = paper_network(paper_model(hidden_size=D, num_heads=1, max_length=8, repeat_bias=True), V)
    model.initialize(torch.Generator().manual_seed(1))
    step = Step({"ce": 1.0, "mse": 1.0}, future_items=3, future_decay=0.5, consistency=consistency)
    found = []
    for max_tokens in (None, 10):
        draws = model.draw(packed(), torch.Generator().manual_seed(2))
        losses = step.gradients(model, packed(), draws, max_tokens=max_tokens)
        found.append((losses["ce"], losses["mse"], model.item_embedding.weight.grad.clone()))  # type: ignore[union-attr]
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


MODELS = {name: model for name in BUILT_IN if issubclass(model := find_model(name), NetworkModel)}
WEIGHING = [name for name, model in MODELS.items() if all(each.weighs_events for each in model.networks.values())]


def test_the_default_and_its_closest_rivals_weigh_events() -> None:
    assert {"adrec", "sasrec", "sasrec+", "gsasrec", "esasrec", "gru4rec"} <= set(WEIGHING)


@pytest.mark.parametrize("name", WEIGHING)
def test_a_network_ignores_targets_of_weight_0_and_ones_change_nothing(name: str) -> None:
    config = MODELS[name].Config()
    kind = next(iter(MODELS[name].networks))  # type: ignore[attr-defined]
    network = make_network(MODELS[name].networks[kind], config.network_of(kind), V)  # type: ignore[attr-defined]
    network.initialize(torch.Generator().manual_seed(1))
    stage = next(iter(config.stages.values()))  # type: ignore[attr-defined]
    step = Step(stage.loss_weights)

    def losses(weights: Tensor | None) -> Tensor:
        batch = packed(weights)
        draws = network.draw(batch, torch.Generator().manual_seed(2))
        return torch.stack(list(step.gradients(network, batch, draws).values()))

    torch.testing.assert_close(losses(torch.ones(12)), losses(None), rtol=1e-6, atol=0)
    assert not torch.allclose(losses(WEIGHTS), losses(None), rtol=1e-4)
    nothing = losses(torch.zeros(12))
    assert (nothing == 0).all()
    gradient = network.item_embedding.weight.grad
    assert gradient is None or not gradient.to_dense().any()
