"""A training step: computed in parts it is the same step, and in half precision nearly so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrec.config.adrec import ModelConfig
from adrec.data.batch import PackedBatch, training_batch
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import make_network
from adrec.nn.pretraining import PretrainingNetwork
from adrec.train.step import Step
from conftest import paper_model, paper_network

NUM_ITEMS, MAX_LENGTH = 40, 12
SIZES = {"hidden_size": 16, "max_length": MAX_LENGTH, "num_train_timesteps": 4, "noise_weight": 0.5}
CONFIG = paper_model(**SIZES)
STEP = Step({"ce": 1.0, "mse": 0.7}, pcgrad=False, embedding="train")


def random_batch(num_users: int, seed: int) -> PackedBatch:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, MAX_LENGTH + 5, size=num_users)
    items = rng.integers(1, NUM_ITEMS + 1, size=int(lengths.sum())).astype(np.int32)
    ends = np.cumsum(lengths)
    return training_batch(items, ends - lengths, ends, MAX_LENGTH)


def computed(
    step: Step,
    config: ModelConfig,
    batch: PackedBatch,
    device: torch.device,
    max_tokens: int | None = None,
    dropout: int | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the losses and the gradients of fresh weights, the same for every call with the same ``config``."""
    own = "mse" in step.weights
    model = paper_network(config, NUM_ITEMS) if own else make_network(PretrainingNetwork, config, NUM_ITEMS)
    model.initialize(torch.Generator().manual_seed(3))
    model, batch = model.to(device), batch.to(device)
    draws = model.draw(batch, torch.Generator(device).manual_seed(4)) if isinstance(model, ADRecNetwork) else None
    rng = None if dropout is None else torch.Generator(device).manual_seed(dropout)
    losses = step.gradients(model, batch, draws, rng, max_tokens)
    gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return {name: loss.cpu() for name, loss in losses.items()}, gradients


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, {}),
        ({"noise_level": "sequence"}, {}),
        ({"noise_level": "last"}, {}),
        ({"detached_targets": True}, {}),
        ({"guidance_scale": 2.0}, {}),
        ({"causal": False}, {}),
        ({"padding_class": True, "attend_padding": False}, {}),
        ({}, {"pcgrad": True}),
        ({}, {"embedding": "decaying"}),
        ({}, {"embedding": "frozen"}),
        ({}, {"weights": {"ce": 1.0}}),
    ],
    ids=str,
)
@pytest.mark.parametrize("max_tokens", [1, 60, 100_000])
def test_the_parts_of_a_batch_add_up_to_it(
    changes: dict[str, Any], how: dict[str, Any], max_tokens: int, device: torch.device
) -> None:
    config, step, batch = paper_model(**SIZES, **changes), replace(STEP, **how), random_batch(30, seed=1)
    losses, gradients = computed(step, config, batch, device)
    in_parts, gradients_of_parts = computed(step, config, batch, device, max_tokens)
    assert losses.keys() == in_parts.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(in_parts[name], loss, atol=1e-6, rtol=1e-5)
    assert gradients.keys() == gradients_of_parts.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_of_parts[name], gradient, atol=2e-6, rtol=1e-4)


def test_parts_draw_their_own_dropout(device: torch.device) -> None:
    batch = random_batch(30, seed=1)
    _, whole = computed(STEP, CONFIG, batch, device, None, dropout=5)
    _, again = computed(STEP, CONFIG, batch, device, 10_000, dropout=5)
    _, parts = computed(STEP, CONFIG, batch, device, 60, dropout=5)
    name = "item_embedding.weight"
    torch.testing.assert_close(again[name], whole[name], **({"rtol": 0, "atol": 0} if device.type == "cpu" else {}))
    assert not torch.allclose(whole[name], parts[name], rtol=1e-2)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_parts_hold_every_user_once_and_keep_to_their_budget(lengths: list[int], max_tokens: int) -> None:
    total = sum(lengths)
    batch = training_batch(
        np.arange(1, total + len(lengths) + 1, dtype=np.int32),
        np.cumsum([0, *(n + 1 for n in lengths)])[:-1],
        np.cumsum([n + 1 for n in lengths]),
        max_length=50,
    )
    parts = batch.parts(max_tokens)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    seen: list[int] = []
    for users in parts:
        part, tokens = batch.select(users)
        assert len(part.items) <= max_tokens or len(users) == 1
        assert part.lengths.tolist() == [lengths[user] for user in users]
        assert part.cu_seqlens.tolist() == [0, *np.cumsum(part.lengths).tolist()]
        assert torch.equal(part.items, batch.items[tokens])
        assert torch.equal(part.targets, batch.targets[tokens])
        for user, first, end in zip(users, part.cu_seqlens[:-1], part.cu_seqlens[1:], strict=True):
            begin = int(batch.cu_seqlens[user])
            assert tokens[first:end].tolist() == list(range(begin, begin + lengths[user]))
        seen += tokens.tolist()
    assert sorted(seen) == list(range(total))


@pytest.mark.parametrize("weights", [{"ce": 1.0}, STEP.weights])
def test_half_precision_is_near(weights: dict[str, float], device: torch.device) -> None:
    """bfloat16 has 8 bits: a relative error of 2^-9 an operation, some per cent after a few layers."""
    step, batch = replace(STEP, weights=weights), random_batch(60, seed=2)
    losses, gradients = computed(step, CONFIG, batch, device)
    low_losses, low_gradients = computed(replace(step, precision="bfloat16"), CONFIG, batch, device)
    for name, value in losses.items():
        assert low_losses[name].dtype == torch.float32
        torch.testing.assert_close(low_losses[name], value, atol=0, rtol=0.01)
        assert not torch.equal(low_losses[name], value) or name != "ce", "nothing was computed in bfloat16"
    for name, gradient in gradients.items():
        low = low_gradients[name]
        assert low.dtype == torch.float32
        error = low - gradient
        if name.endswith("query_key_value.bias"):
            error.chunk(3)[1].zero_()  # the keys' gradient is 0 but for rounding
        assert float(error.norm() / gradient.norm()) < 0.05, name


def test_cross_entropy_alone_needs_no_draws(device: torch.device) -> None:
    model = make_network(PretrainingNetwork, CONFIG, NUM_ITEMS)
    assert isinstance(model, PretrainingNetwork)
    model.initialize(torch.Generator().manual_seed(3))
    batch = random_batch(3, seed=1).to(device)
    assert set(replace(STEP, weights={"ce": 1.0}).gradients(model.to(device), batch)) == {"ce"}
