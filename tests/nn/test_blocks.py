"""Dropout, and other properties of the blocks that no reference vector shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adrec.config.adrec import ModelConfig
from adrec.config.diffusion import DiffusionConfig
from adrec.models.adrec import ADRecModel
from adrec.models.baselines.blocks import DiffuRecBlock, initialize_block
from adrec.nn.base import make_network
from adrec.nn.kernels.dropout import dropout
from adrec.nn.kernels.gelu import gelu
from adrec.nn.kernels.layout import layout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.9, 0.999999])
def test_dropout_zeroes_a_share_and_keeps_the_mean(p: float, device: torch.device) -> None:
    x = torch.full((1001, 999), 2.0, device=device)
    dropped = dropout(x, p, torch.Generator(device).manual_seed(7))
    share = float((dropped == 0).double().mean())
    deviation = math.sqrt(p * (1 - p) / x.numel())
    assert abs(share - p) < 5 * deviation + 2**-16
    kept = dropped[dropped != 0]
    assert float(kept.min()) == float(kept.max())
    assert float(kept[0]) * (1 - min(round(p * 65536), 65535) / 65536) == pytest.approx(2.0, rel=1e-6)


def test_dropout_treats_neighbours_apart(device: torch.device) -> None:
    ones = torch.ones(1_000_000, device=device)
    keep = dropout(ones, 0.5, torch.Generator(device).manual_seed(7)).double() - 1
    for distance in (1, 2, 3, 4, 8):
        assert abs(float((keep[distance:] * keep[:-distance]).mean())) < 0.005  # five deviations


def test_dropout_repeats_with_its_generator_and_is_nothing_without(device: torch.device) -> None:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).to(device)
    one, two = (dropout(x, 0.5, torch.Generator(device).manual_seed(seed)) for seed in (3, 3))
    assert torch.equal(one, two)
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, torch.Generator(device)) is x


def test_dropout_sends_gradients_where_it_kept(device: torch.device) -> None:
    x = torch.ones(100, device=device, requires_grad=True)
    dropped = dropout(x, 0.25, torch.Generator(device).manual_seed(5))
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())


def test_gelu_is_the_tanh_form_with_its_gradient(device: torch.device) -> None:
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64, device=device, requires_grad=True)
    expected = torch.nn.functional.gelu(x, approximate="tanh")
    torch.testing.assert_close(gelu(x), expected, atol=1e-12, rtol=1e-12)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(torch.autograd.grad(gelu(x).sum(), x)[0], slope, atol=1e-12, rtol=1e-12)
    single = x.detach().float()
    torch.testing.assert_close(gelu(single), expected.float(), atol=1e-6, rtol=1e-6)
    assert torch.isfinite(gelu(torch.tensor([-1e30, 1e12, 0.0], device=device))).all()


def test_diffurecs_block_drops_what_leaves_it_again(device: torch.device) -> None:
    """Dropout(y + Dropout(f(LayerNorm(y)))) of y = x + Dropout(a(LayerNorm(x))); f drops its inner layer too."""
    heads, size, p = 2, 8, 0.4
    block = DiffuRecBlock(size, heads, p).to(device)
    initialize_block(block, torch.Generator(device).manual_seed(1))
    plan = layout(np.array([3, 5, 1]), 6, heads=heads, sink=True, causal=False, device=device)
    x = torch.randn(len(plan.row_users), size, generator=torch.Generator().manual_seed(2)).to(device)
    rng = torch.Generator(device).manual_seed(3)
    y = x + dropout(block.attention(block.attention_norm(x), plan, rng), p, rng)
    inner = dropout(torch.nn.functional.gelu(block.expand(block.feed_forward_norm(y)), approximate="tanh"), p, rng)
    expected = dropout(y + dropout(block.contract(inner), p, rng), p, rng)
    torch.testing.assert_close(block(x, plan, torch.Generator(device).manual_seed(3)), expected, atol=1e-5, rtol=1e-5)


def test_every_block_has_the_feed_forward_that_is_asked_for() -> None:
    config = ModelConfig(hidden_size=8, num_heads=2, feed_forward_ratio=3, diffusion=DiffusionConfig())
    for kind, parts in {"adrec": ("cam", "adm"), "sasrec": ("blocks",)}.items():
        network = make_network(ADRecModel.networks[kind], config, 5)
        for block in (block for part in parts for block in network.get_submodule(part)):
            assert (block.expand.weight.shape, block.contract.weight.shape) == ((24, 8), (8, 24))
