"""The second projection of the query for the items of the history, against dense logits written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from adrec.config.adrec import preset
from adrec.data.batch import PackedBatch, history_batch
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.evaluate.protocol import evaluate
from adrec.inference.scores import count_above
from adrec.models.adrec import ADRecModel
from adrec.models.network import NetworkScorer
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.kernels import catalogue
from adrec.nn.kernels.pairs import pair_products, plain_pair_products
from adrec.nn.losses import Objective
from adrec.nn.repeats import Repeats
from adrec.runs.fit import fit
from adrec.train.step import Step
from conftest import paper_model, paper_network

V, D = 9, 8
LISTS = [[1, 2, 1, 3], [4], [5, 5, 5, 6, 1, 2, 9]]


def packed(lists: list[list[int]]) -> PackedBatch:
    ends = np.cumsum([len(each) for each in lists])
    batch = history_batch(np.concatenate(lists).astype(np.int32), ends - [len(each) for each in lists], ends, 50)
    targets = torch.randint(1, V + 1, (len(batch.items),), generator=torch.Generator().manual_seed(2))
    return replace(batch, targets=targets)


def network(device: torch.device) -> ADRecNetwork:
    model = paper_model(hidden_size=D, num_heads=2, max_length=8, repeat_bias=True, repeat_projection=True)
    made = paper_network(replace(model, diffusion=None, dropout=0.0, embedding_dropout=0.0), V)
    rng = torch.Generator().manual_seed(1)
    made.initialize(rng)
    assert made.repeat_projection is not None and made.repeat_preference is not None
    assert not made.repeat_projection.any(), "it starts as if it were not there"
    made.repeat_projection.data += torch.randn(D, D, generator=rng)
    made.repeat_preference.data += 0.07
    return made.to(device)


def dense_logits(made: ADRecNetwork, x: torch.Tensor, met: list[set[int]]) -> torch.Tensor:
    """Return the logits of every item for queries [n, D], [n, V + 1]."""
    weight = made.item_embedding.weight
    assert made.repeat_projection is not None and made.repeat_bias is not None
    again = x @ made.repeat_projection @ weight.detach().T + made.repeat_bias
    mask = torch.tensor([[item in each for item in range(V + 1)] for each in met], device=x.device)
    return x @ weight.T + again * mask


def met_by_tokens(lists: list[list[int]]) -> list[set[int]]:
    return [set(each[: place + 1]) for each in lists for place in range(len(each))]


def test_products_of_pairs_and_their_gradient(device: torch.device) -> None:
    repeats = Repeats.of_tokens(packed(LISTS).to(device))
    r = torch.randn(12, D, device=device, requires_grad=True)
    items, weights = torch.randn(V + 1, D, device=device), torch.randn(len(repeats.items), device=device)
    found, expected = pair_products(r, items, repeats), plain_pair_products(r, items, repeats)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad((each * weights).sum(), r)[0] for each in (found, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("chunk", [2, 64])
def test_the_loss_and_its_gradients(chunk: int, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "FEWEST_TOKENS", chunk)
    monkeypatch.setattr(catalogue, "LOGITS", 1)
    made, batch = network(device), packed(LISTS).to(device)
    outputs = made(batch)
    loss = made.losses(outputs, batch, None, Objective(batch))["ce"]
    logits = dense_logits(made, outputs.c, met_by_tokens(LISTS))[:, 1:]
    expected = F.cross_entropy(logits, batch.targets - 1)
    torch.testing.assert_close(loss, expected)
    parameters = tuple(made.parameters())
    ours = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, parameters, materialize_grads=True), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_scores_are_those_of_the_loss_and_ranks_count_them(device: torch.device) -> None:
    made, batch = network(device), packed(LISTS).to(device)
    scores = NetworkScorer(made)(packed(LISTS))
    with torch.no_grad():
        expected = dense_logits(made, made.last_conditions(batch), [set(each) for each in LISTS])
    block = scores.block(slice(0, V + 1))
    torch.testing.assert_close(block, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores.block(slice(3, 7)), block[:, 3:7])
    rows = torch.arange(3, device=device).repeat_interleave(V)
    items = torch.arange(1, V + 1, device=device).repeat(3)
    precise = scores.of(rows, items).view(3, V)
    assert ((precise - block[:, 1:]).abs() <= scores.rounding()).all()
    target = torch.tensor([3, 4, 7], device=device)
    above = [(precise[row] >= precise[row, item - 1]).sum().item() - 1 for row, item in enumerate(target.tolist())]
    assert count_above(scores, target, V)[0].tolist() == above


@pytest.mark.parametrize("consistency", [0.0, 3.0])
@pytest.mark.parametrize("negatives", [0, 4])
def test_parts_of_a_batch_add_up(consistency: float, negatives: int, device: torch.device) -> None:
    made, batch = network(device), packed(LISTS).to(device)
    step = Step(weights={"ce": 1.0}, consistency=consistency, negatives=negatives)
    found = []
    for most in (None, 6):
        rng = torch.Generator(device).manual_seed(5)
        step.gradients(made, batch, None, rng, most)
        assert made.repeat_projection is not None and made.repeat_projection.grad is not None
        found.append(made.repeat_projection.grad.clone())
    assert found[0].any()
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


def staples(num_users: int = 250, num_staples: int = 12, num_others: int = 80) -> pl.DataFrame:
    """Return users who return to three staples of their own, and buy everything else once, in an order."""
    rng, rows = np.random.default_rng(0), []
    for user in range(num_users):
        own, last = rng.choice(num_staples, 3, replace=False), int(rng.integers(num_others))
        for step in range(14):
            returns = rng.random() < 0.5
            last = last if returns else (last + 1) % num_others
            rows.append((user, f"staple {rng.choice(own)}" if returns else f"other {last}", step))
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


@pytest.mark.slow
def test_it_learns_which_items_people_return_to() -> None:
    """One number for all items of the history cannot tell staples from what is bought once."""
    dataset = prepare(staples())
    split, found = leave_one_out(dataset), {}
    for projects in (False, True):
        changes = {"hidden_size": 16, "num_heads": 2, "max_length": 16, "batch_size": 32, "finetune.epochs": 20}
        changes |= {"finetune.learning_rate": 0.01, "finetune.averaging": 0.9, "model.repeat_projection": projects}
        model = ADRecModel(preset("cam", {**changes, "finetune.seen": "keep"}))
        fit(model, dataset, split, seed=0)
        found[projects] = evaluate(model, dataset, split, cutoffs=(5,)).metrics["ndcg@5"]
    assert found[True].low > found[False].high
