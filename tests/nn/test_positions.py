"""Learned and rotary positions: against plain formulas, and the same from a cache as from whole histories."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from adrec.config.adrec import ModelConfig
from adrec.config.diffusion import AblationConfig, DiffusionConfig
from adrec.data.batch import PackedBatch, history_batch
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import last_tokens
from adrec.nn.kernels.attention import Attention
from adrec.nn.kernels.layout import layout
from adrec.nn.kernels.rotary import rotate, rotations, row_positions
from adrec.utils.errors import ConfigError
from conftest import paper_network

LENGTHS = np.array([3, 7, 1, 5])
SIZE, HEADS, MAX_LENGTH, NUM_ITEMS = 16, 2, 8, 9


def made(device: torch.device, *, causal: bool = True, diffusion: bool = False, **changes: Any) -> ADRecNetwork:
    groups: dict[str, Any] = {"diffusion": DiffusionConfig() if diffusion or not causal else None}
    if not causal:
        groups["ablation"] = AblationConfig(causal=False, ranks_by="sample" if diffusion else "condition")
    config = ModelConfig(hidden_size=SIZE, num_heads=HEADS, max_length=MAX_LENGTH, **groups, **changes)
    network = paper_network(config, NUM_ITEMS)
    rng = torch.Generator().manual_seed(3)
    network.initialize(rng)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return network.to(device)


def batch_of(device: torch.device) -> PackedBatch:
    ends = np.cumsum(LENGTHS)
    items = np.random.default_rng(5).integers(1, NUM_ITEMS + 1, size=ends[-1]).astype(np.int32)
    return history_batch(items, ends - LENGTHS, ends, MAX_LENGTH).to(device)


@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_rotary_attention_turns_each_pair_of_a_head_as_a_complex_number(
    sink: bool, causal: bool, device: torch.device
) -> None:
    rng = torch.Generator().manual_seed(1)
    attention = Attention(SIZE, HEADS, 0.0).double()
    attention.initialize(rng)
    plan = layout(LENGTHS, MAX_LENGTH, heads=HEADS, sink=sink, causal=causal, device=torch.device("cpu"))
    num_rows, head_size = len(plan.row_users), SIZE // HEADS
    x = torch.randn(num_rows, SIZE, generator=rng, dtype=torch.float64)
    where = np.concatenate([*(np.arange(1, length + 1) for length in LENGTHS), np.zeros(num_rows - LENGTHS.sum())])
    speeds = 10_000.0 ** (-np.arange(head_size // 2) * 2 / head_size)

    def turned(rows: torch.Tensor) -> np.ndarray:  # [rows, H, d / 2], complex
        halves = rows.detach().numpy().reshape(num_rows, HEADS, 2, head_size // 2)
        return (halves[:, :, 0] + 1j * halves[:, :, 1]) * np.exp(1j * where[:, None] * speeds)[:, None]

    q, k, v = attention.query_key_value(x).chunk(3, dim=1)
    logits = np.einsum("qhi,khi->hqk", turned(q), turned(k).conj()).real / np.sqrt(head_size)
    users = plan.row_users.numpy()
    mixed = np.zeros((num_rows, HEADS, head_size))
    values = v.detach().numpy().reshape(num_rows, HEADS, head_size)
    for row in range(LENGTHS.sum()):  # what sinks mix is asked by no token, or the same for all
        keys = np.flatnonzero((users == users[row]) & ((where <= where[row]) | (not causal)))
        bias = np.zeros(len(keys))
        if sink:
            padding = MAX_LENGTH - LENGTHS[users[row]]
            bias[where[keys] == 0] = np.log(padding) if padding else -np.inf
        weights = np.exp(logits[:, row, keys] + bias)  # [H, keys]
        mixed[row] = np.einsum("hk,khd->hd", weights / weights.sum(1, keepdims=True), values[keys])
    expected = attention.output(torch.from_numpy(mixed.reshape(num_rows, SIZE)))
    plan = layout(LENGTHS, MAX_LENGTH, heads=HEADS, sink=sink, causal=causal, device=device)
    plan = replace(plan, rotation=rotations(row_positions(plan), head_size))
    got = attention.to(device)(x.to(device), plan, None).cpu()
    tokens = slice(int(LENGTHS.sum()))
    torch.testing.assert_close(got[tokens], expected[tokens].detach(), atol=1e-6, rtol=1e-6)


def test_only_distances_count() -> None:
    rng = torch.Generator().manual_seed(1)
    qkv = torch.randn(6, 3 * SIZE, generator=rng, dtype=torch.float64)
    at, head_size = torch.arange(6), SIZE // HEADS
    logits = []
    for shift in (0, 1000):
        q, k, v = rotate(qkv, rotations(at + shift, head_size), HEADS).chunk(3, dim=1)
        logits.append(q @ k.T)
        assert torch.equal(v, qkv[:, 2 * SIZE :])
    torch.testing.assert_close(logits[0], logits[1], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(logits[0], qkv[:, :SIZE] @ qkv[:, SIZE : 2 * SIZE].T, atol=0.1)


@pytest.mark.parametrize("inference", [False, True])
@torch.no_grad()
def test_the_network_turns_its_queries_and_keys_where_it_is_to(inference: bool, device: torch.device) -> None:
    batch, networks = batch_of(device), {name: made(device, positions=name) for name in ("none", "rotary")}
    networks["none"].load_state_dict(networks["rotary"].state_dict())
    plan = networks["rotary"].plan(batch, inference=inference)
    assert plan.rotation is not None
    torch.testing.assert_close(plan.rotation, rotations(row_positions(plan), SIZE // HEADS))
    assert networks["none"].plan(batch, inference=inference).rotation is None
    with_them, without = (networks[name].predict(batch) for name in ("rotary", "none"))
    assert not torch.allclose(with_them, without, atol=1e-4)


def test_the_gradient_of_a_turn_is_the_turn_back() -> None:
    rng = torch.Generator().manual_seed(1)
    qkv = torch.randn(5, 3 * SIZE, generator=rng, dtype=torch.float64, requires_grad=True)
    rotation = rotations(torch.arange(5), SIZE // HEADS)
    assert torch.autograd.gradcheck(lambda x: rotate(x, rotation, HEADS), (qkv,))


def test_rotary_heads_have_pairs() -> None:
    with pytest.raises(ConfigError, match="in pairs: set model.hidden_size to a multiple of twice model.num_heads"):
        ModelConfig(hidden_size=12, num_heads=4)
    assert ModelConfig(hidden_size=12, num_heads=4, positions="learned").num_heads == 4


def test_places_count_from_a_sequences_first_token_and_its_sink_is_before_it() -> None:
    for one_sink, sinks in ((False, [0, 0]), (True, [0])):
        plan = layout(
            np.array([2, 3]),
            MAX_LENGTH,
            heads=1,
            sink=True,
            causal=True,
            device=torch.device("cpu"),
            one_sink=one_sink,
        )
        assert row_positions(plan).tolist() == [1, 2, 1, 2, 3, *sinks]


@pytest.mark.parametrize("positions", ["none", "learned", "rotary"])
@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_the_last_token_is_decoded_as_with_its_whole_history(
    positions: str, causal: bool, device: torch.device
) -> None:
    network = made(device, positions=positions, causal=causal, diffusion=True)
    batch = batch_of(device)
    denoise = network.denoiser(batch)
    x = torch.randn(len(LENGTHS), SIZE, generator=torch.Generator().manual_seed(2)).to(device)
    plan = network.plan(batch)
    x_t, t = network.clean_targets(batch.targets), torch.zeros_like(batch.targets)
    last = batch.cu_seqlens[1:] - 1
    x_t[last], t[last] = x, 3
    z = network.condition(batch, plan) + network.noisy_input(x_t, t, plan)
    whole = network.adm(z, plan)[: plan.num_tokens]
    torch.testing.assert_close(
        denoise(x[denoise.users], 3), last_tokens(whole, batch)[denoise.users], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("positions", ["none", "learned", "rotary"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("attend_padding", [False, True])
@torch.no_grad()
def test_ranking_computes_of_the_last_block_what_the_last_token_needs(
    positions: str, causal: bool, attend_padding: bool, device: torch.device
) -> None:
    network = made(device, positions=positions, causal=causal, attend_padding=attend_padding)
    batch = batch_of(device)
    whole = network.condition(batch, network.plan(batch))
    torch.testing.assert_close(network.predict(batch), last_tokens(whole, batch), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_learned_positions_count_from_the_end_and_leave_the_sink(device: torch.device) -> None:
    learned, none = (made(device, positions=positions) for positions in ("learned", "none"))
    none.load_state_dict(learned.state_dict(), strict=False)
    batch = batch_of(device)
    assert learned.positions is not None
    vectors = learned.positions.vectors.weight
    assert not torch.allclose(learned.predict(batch), none.predict(batch))
    plan, inputs = none.plan(batch), []
    for network in (none, learned):
        network.history_norm.register_forward_hook(lambda _module, given, _output: inputs.append(given[0]))
        network.condition(batch, plan)
    behind = np.concatenate([np.arange(length)[::-1] for length in LENGTHS])
    added = torch.cat(
        [vectors[MAX_LENGTH - 1 - torch.from_numpy(behind.copy()).to(device)], vectors.new_zeros(4, SIZE)]
    )
    torch.testing.assert_close(inputs[1] - inputs[0], added)
    vectors.zero_()
    assert torch.equal(learned.predict(batch), none.predict(batch))
