"""A softmax over a part of the catalogue: which part, that it stands for all, and that it trains."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrec.config.adrec import Config, preset
from adrec.data.batch import PackedBatch
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.classes import Classes, draw_classes
from adrec.nn.losses import Objective
from adrec.train import step as step_module
from adrec.train.step import Step
from adrec.utils.errors import ConfigError
from conftest import SMALL, OnEpoch, adrec_trainer, cyclic_table, paper_network

NUM_ITEMS = 40
SETTINGS = {**SMALL, "model.repeat_bias": True, "model.dropout": 0.0, "model.embedding_dropout": 0.0}


def packed(lists: list[list[int]]) -> PackedBatch:
    lengths = np.array([len(each) for each in lists])
    items = np.concatenate(lists)
    tensors = [torch.from_numpy(each) for each in (items, items % NUM_ITEMS + 1, np.append(0, np.cumsum(lengths)))]
    return PackedBatch(tensors[0], tensors[1], lengths, tensors[2], items)


BATCH = packed([[3, 1, 3, 7, 2], [5, 6], [9, 10, 11]])


def network(device: torch.device, padding_class: bool = False) -> ADRecNetwork:
    config = preset("cam", {**SETTINGS, "model.padding_class": padding_class})
    made = paper_network(config.model, NUM_ITEMS)
    made.initialize(torch.Generator().manual_seed(1))
    made.item_embedding.weight.data *= 30  # scores that differ
    assert made.repeat_preference is not None
    made.repeat_preference.data += 0.05
    return made.to(device)


@given(
    st.lists(st.lists(st.integers(1, NUM_ITEMS), min_size=1, max_size=6), min_size=1, max_size=5),
    st.integers(1, 60),
    st.booleans(),
    st.integers(0, 9),
)
def test_all_of_the_batch_and_so_many_others(lists: list[list[int]], count: int, padding: bool, seed: int) -> None:
    batch = packed(lists)
    classes = draw_classes(batch, count, NUM_ITEMS, padding, torch.Generator().manual_seed(seed))
    own = {*batch.items.tolist(), *batch.targets.tolist()} | ({0} if padding else set())
    others = NUM_ITEMS + int(padding) - len(own)
    found = classes.items.tolist()
    assert found == sorted(set(found))
    assert own <= set(found) <= set(range(1 - int(padding), NUM_ITEMS + 1))
    assert len(found) == len(own) + min(count, others)
    offsets = dict(zip(found, classes.offsets.tolist(), strict=True))
    for item, offset in offsets.items():
        assert offset == pytest.approx(0 if item in own else math.log(others / min(count, others)))
    assert classes.items[classes.indices(batch.targets)].tolist() == batch.targets.tolist()


def test_the_drawn_stand_for_the_rest() -> None:
    """The mean over many draws of the sum over the classes is the sum over the catalogue."""
    rng = torch.Generator().manual_seed(2)
    weights = torch.rand(NUM_ITEMS + 1, generator=rng, dtype=torch.float64).exp()
    sums = []
    for _ in range(4000):
        classes = draw_classes(BATCH, 6, NUM_ITEMS, False, rng)
        sums.append(float((weights[classes.items] * classes.offsets.exp()).sum()))
    assert np.mean(sums) == pytest.approx(float(weights[1:].sum()), abs=4 * np.std(sums) / math.sqrt(len(sums)))


def gradients(
    model: ADRecNetwork, negatives: int, consistency: float, max_tokens: int | None, precision: str = "float32"
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    device = model.item_embedding.weight.device
    step = Step({"ce": 1.0}, precision=precision, consistency=consistency, negatives=negatives)  # type: ignore[arg-type]
    rng = torch.Generator(device).manual_seed(0)
    losses = step.gradients(model, BATCH.to(device), None, rng, max_tokens)
    return losses["ce"], [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("consistency", [0.0, 2.0])
@pytest.mark.parametrize("padding_class", [False, True])
def test_with_all_others_drawn_it_is_the_whole_catalogue(
    device: torch.device, consistency: float, padding_class: bool
) -> None:
    model = network(device, padding_class)
    whole, drawn = (gradients(model, negatives, consistency, None) for negatives in (0, NUM_ITEMS))
    torch.testing.assert_close(drawn, whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("consistency", [0.0, 2.0])
@pytest.mark.parametrize("padding_class", [False, True])
def test_the_parts_of_a_batch_share_their_classes(
    device: torch.device, consistency: float, padding_class: bool
) -> None:
    model = network(device, padding_class)
    at_once, in_parts = (gradients(model, 5, consistency, tokens) for tokens in (None, 6))
    torch.testing.assert_close(in_parts, at_once, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(at_once[0], gradients(model, NUM_ITEMS, consistency, None)[0])


@pytest.mark.parametrize("consistency", [0.0, 2.0])
def test_in_half_precision_it_is_nearly_the_same(device: torch.device, consistency: float) -> None:
    model = network(device)
    low, full = (gradients(model, 5, consistency, None, precision)[0] for precision in ("bfloat16", "float32"))
    torch.testing.assert_close(low, full, rtol=0.01, atol=0)


def test_it_is_the_cross_entropy_of_the_classes_and_so_are_its_gradients(device: torch.device) -> None:
    """Against a softmax written out over the classes, the bias of repeats where an item was met before."""
    model, batch = network(device).double(), BATCH.to(device)
    classes = draw_classes(batch, 5, NUM_ITEMS, False, torch.Generator(device).manual_seed(0))
    loss = model.losses(model(batch), batch, None, Objective(batch, weights={"ce": 1.0}, classes=classes))["ce"]
    ours = torch.autograd.grad(loss, tuple(model.parameters()), materialize_grads=True)
    c = model(batch).c
    logits = c @ model.item_embedding.weight[classes.items].T + classes.offsets
    found, bias = classes.items.tolist(), model.repeat_bias
    assert bias is not None
    expected = c.new_zeros(())
    for user in range(batch.num_users):
        first, end = int(batch.cu_seqlens[user]), int(batch.cu_seqlens[user + 1])
        for token in range(first, end):
            met = {*batch.items[first : token + 1].tolist()}
            mask = torch.tensor([item in met for item in found], device=device)
            log_p = (logits[token] + mask * bias).log_softmax(0)
            expected = expected - log_p[found.index(int(batch.targets[token]))] / len(batch.items)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    theirs = torch.autograd.grad(expected, tuple(model.parameters()), materialize_grads=True)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def small(**changes: object) -> Config:
    values = {"hidden_size": 16, "num_heads": 2, "max_length": 8, "batch_size": 2, "finetune.learning_rate": 0.01}
    values |= {"model.dropout": 0.3, "finetune.consistency": 5.0}
    return preset("cam", {**values, "finetune.averaging": 0.5, "finetune.negatives": 4, **changes})


@pytest.mark.slow
def test_it_trains_and_is_the_same_again(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = prepare(cyclic_table(num_users=80, num_items=60))
    config, split = small(**{"finetune.epochs": 12}), leave_one_out(dataset)
    drawn = []
    draw = step_module.draw_classes

    def watched(*given: Any) -> Classes:
        drawn.append(draw(*given))
        return drawn[-1]

    monkeypatch.setattr(step_module, "draw_classes", watched)
    trainers = [adrec_trainer(config, dataset, split, seed=3, device=device) for _ in range(2)]
    rows: list[float] = []
    trainers[0].callbacks.append(
        OnEpoch(lambda row: rows.append(row["validation"]["hr@5"]) if "validation" in row else None)
    )
    weights = [each.run().state_dict() for each in trainers]
    assert max(len(each.items) for each in drawn) < 40 and min(float(each.offsets.max()) for each in drawn) > 1
    assert max(rows) > 0.8
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_negatives_change_what_is_trained(device: torch.device) -> None:
    """Nothing else is drawn here: no dropout, so that the generator's state decides nothing."""
    dataset = prepare(cyclic_table(num_users=20, num_items=60))
    found = []
    for negatives in (0, 4):
        dry = {"embedding_dropout": 0.0, "model.dropout": 0.0, "finetune.negatives": negatives, "finetune.epochs": 1}
        trained = adrec_trainer(small(**dry), dataset, leave_one_out(dataset), seed=3, device=device).run()
        found.append(trained.item_embedding.weight.detach())
    assert not torch.allclose(*found, atol=1e-4)


def test_they_are_the_cross_entropys() -> None:
    stage = preset("paper").finetune
    with pytest.raises(ConfigError, match="negatives are the cross-entropy's"):
        replace(stage, loss="mse", negatives=5)
    with pytest.raises(ConfigError, match="negatives of a stage must not be negative; it is -1"):
        replace(stage, negatives=-1)
