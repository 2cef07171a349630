"""What a history has met, and the learned number that is added to its scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from adrec.data.batch import PackedBatch, history_batch
from adrec.inference.scores import best_items, count_above
from adrec.models.baselines.sasrec import SASRecPlusNetwork, SASRecPlusNetworkConfig
from adrec.models.network import NetworkScorer
from adrec.nn.base import make_network
from adrec.nn.biased import REPEAT_SCALE
from adrec.nn.kernels import catalogue
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.losses import Objective
from adrec.nn.repeats import Repeats, met_by_histories
from adrec.nn.scores import Biased, InnerProducts
from conftest import paper_model, paper_network

V, D = 9, 6
sequences = st.lists(st.lists(st.integers(1, V), min_size=1, max_size=7), min_size=1, max_size=5)


def packed(lists: list[list[int]]) -> PackedBatch:
    ends = np.cumsum([len(each) for each in lists])
    return history_batch(np.concatenate(lists).astype(np.int32), ends - [len(each) for each in lists], ends, 50)


def slow(lists: list[list[int]]) -> list[set[int]]:
    """Return what each token has met."""
    return [set(each[: place + 1]) for each in lists for place in range(len(each))]


@given(sequences)
def test_each_token_has_met_the_distinct_items_up_to_itself(lists: list[list[int]]) -> None:
    found = Repeats.of_tokens(packed(lists))
    expected = slow(lists)
    pairs = list(zip(found.rows.tolist(), found.items.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(row, item) for row, items in enumerate(expected) for item in items}
    for first, end in ((0, 1), (len(expected) // 2, len(expected))):
        rows, items = found.part(first, end)
        some = {(row - first, item) for row, item in pairs if first <= row < end}
        assert set(zip(rows.tolist(), items.tolist(), strict=True)) == some


@given(sequences)
def test_each_history_has_met_its_items(lists: list[list[int]]) -> None:
    pairs = met_by_histories(packed(lists))
    found = set(zip(pairs.rows.tolist(), pairs.items.tolist(), strict=True))
    assert found == {(row, item) for row, items in enumerate(lists) for item in items}


def dense(lists: list[list[int]], bias: torch.Tensor) -> torch.Tensor:
    """Return what is added to each token's logits, [N, V + 1]."""
    return torch.stack([torch.stack([bias * (item in met) for item in range(V + 1)]) for met in slow(lists)])


@pytest.mark.parametrize("chunk", [2, 64])
@pytest.mark.parametrize("scale", [1.0, 60.0])  # at 60 some probabilities are too small for float32
@pytest.mark.parametrize("padding_class", [False, True])
@pytest.mark.parametrize("shift", [0.0, 4.0], ids=["without offsets", "with offsets"])
def test_cross_entropy_and_its_gradients(
    chunk: int, scale: float, padding_class: bool, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "FEWEST_TOKENS", chunk)
    monkeypatch.setattr(catalogue, "LOGITS", 1)
    rng = torch.Generator().manual_seed(1)
    lists = [[1, 2, 1, 3], [4], [5, 5, 5, 6, 1, 2, 9]]
    batch, first = packed(lists), 0 if padding_class else 1
    n = len(batch.items)
    targets = torch.randint(1, V + 1, (n,), generator=rng)
    x = (scale * torch.randn(n, D, generator=rng)).requires_grad_()
    embedding = torch.randn(V + 1, D, generator=rng).requires_grad_()
    bias = torch.tensor(-1.7, requires_grad=True)
    offsets = shift * torch.rand(V + 1 - first, generator=rng)
    loss = cross_entropy(
        x,
        embedding,
        targets,
        padding_class=padding_class,
        repeat_bias=bias,
        repeats=Repeats.of_tokens(batch),
        offsets=offsets if shift else None,
    )
    found = torch.autograd.grad(loss, (x, embedding, bias))
    logits = (x.double() @ embedding.double().T + dense(lists, bias.double()))[:, first:] + offsets
    expected = F.cross_entropy(logits, targets - first)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(found, torch.autograd.grad(expected, (x, embedding, bias)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@given(sequences, st.floats(-5, 5))
def test_biased_scores_equal_a_matrix(lists: list[list[int]], bias: float) -> None:
    rng = torch.Generator().manual_seed(3)
    query, items = torch.randn(len(lists), D, generator=rng), torch.randn(V + 1, D, generator=rng)
    scores = Biased(InnerProducts(query, items), met_by_histories(packed(lists)), torch.tensor(bias))
    matrix = query @ items.T
    for row, each in enumerate(lists):
        matrix[row, sorted(set(each))] += bias
    torch.testing.assert_close(scores.block(slice(0, V + 1)), matrix)
    torch.testing.assert_close(scores.block(slice(3, 7)), matrix[:, 3:7])
    numbers = torch.randint(1, V + 1, (len(lists), 1), generator=rng)
    found = scores.of(torch.arange(len(lists)), numbers[:, 0])
    torch.testing.assert_close(found.float(), matrix.gather(1, numbers)[:, 0])
    apart = (found[:, None] - scores.block(slice(0, V + 1)).gather(1, numbers)).abs()
    assert (apart <= scores.rounding()).all()
    above = ((matrix[:, 1:] >= matrix.gather(1, numbers)).sum(1) - 1).tolist()
    assert count_above(scores, numbers[:, 0], V)[0].tolist() == above
    best = best_items(scores, 3, V)[0]
    torch.testing.assert_close(matrix.gather(1, best), matrix[:, 1:].topk(3).values)


def test_a_network_ranks_with_its_learned_number() -> None:
    config = paper_model(hidden_size=8, num_heads=2, max_length=4, num_train_timesteps=4, repeat_bias=True)
    network = paper_network(config, V)
    network.initialize(torch.Generator().manual_seed(1))
    batch = packed([[1, 2, 3], [4, 4]])
    before = NetworkScorer(network)(batch).block(slice(0, V + 1))
    assert network.repeat_preference is not None
    network.repeat_preference.data.fill_(-0.3)
    after = NetworkScorer(network)(batch).block(slice(0, V + 1))
    expected = torch.zeros(2, V + 1)
    expected[0, [1, 2, 3]] = expected[1, [4]] = -0.3 * REPEAT_SCALE
    torch.testing.assert_close(after - before, expected, atol=1e-5, rtol=1e-4)


def test_sasrec_plus_can_have_the_number_too() -> None:
    """Its loss is a softmax written out, with the number where an item was met; its scores have it; it is learnt."""
    config = SASRecPlusNetworkConfig(hidden_size=8, max_length=4, dropout=0.0, embedding_dropout=0.0, repeat_bias=True)
    network = make_network(SASRecPlusNetwork, config, V)
    network.initialize(torch.Generator().manual_seed(1))
    assert network.repeat_preference is not None
    network.repeat_preference.data.fill_(-0.2)
    batch = replace(packed([[1, 2, 3], [4, 4, 1]]), targets=torch.tensor([2, 3, 5, 4, 1, 2]))
    outputs = network(batch)
    met = torch.zeros(6, V)
    for row, items in enumerate(({1}, {1, 2}, {1, 2, 3}, {4}, {4}, {4, 1})):
        met[row, [item - 1 for item in items]] = 1
    logits = outputs @ network.item_embedding.weight[1:].T + met * network.repeat_bias
    expected = F.cross_entropy(logits, batch.targets - 1)
    loss = network.losses(outputs, batch, None, Objective(batch))["ce"]
    torch.testing.assert_close(loss, expected)
    (found,) = torch.autograd.grad(loss, network.repeat_preference, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, network.repeat_preference)[0])
    plain = make_network(SASRecPlusNetwork, replace(config, repeat_bias=False), V)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if k != "repeat_preference"})
    raised = NetworkScorer(network)(batch).block(slice(0, V + 1)) - NetworkScorer(plain)(batch).block(slice(0, V + 1))
    where = torch.zeros(2, V + 1)
    where[0, [1, 2, 3]] = where[1, [4, 1]] = -0.2 * REPEAT_SCALE
    torch.testing.assert_close(raised, where, atol=1e-5, rtol=1e-4)
