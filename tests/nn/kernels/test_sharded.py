"""The softmax over a divided catalogue, of one process that has all of it: PyTorch's own loss is the oracle.

That several processes agree with one is tested in ``tests/train/test_ranked.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from adrec.data.batch import PackedBatch, training_batch
from adrec.nn.kernels import catalogue
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.kernels.sharded import Shard, sharded_cross_entropy
from adrec.nn.ranks import Partition, Ranks
from adrec.nn.repeats import Repeats

NUM_ITEMS, SIZE = 30, 8


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Ranks]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield Ranks(0, 1, torch.device("cpu"))
    dist.destroy_process_group()


def batch() -> PackedBatch:
    rng = np.random.default_rng(0)
    items, ends = rng.integers(1, NUM_ITEMS + 1, 60).astype(np.int32), np.array([10, 25, 31, 60])
    return training_batch(items, np.array([0, 10, 25, 31]), ends, 50)


@pytest.mark.parametrize("weighed", [False, True])
def test_it_is_the_cross_entropy_of_pytorch(ranks: Ranks, weighed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "FEWEST_TOKENS", 5)
    monkeypatch.setattr(catalogue, "LOGITS", 7 * NUM_ITEMS)
    whole, rng = batch(), torch.Generator().manual_seed(1)
    count = len(whole.targets)
    weights = torch.rand(count, generator=rng) if weighed else None
    found = []
    for sharded in (True, False):
        x = torch.randn(count, SIZE, generator=torch.Generator().manual_seed(2)).requires_grad_()
        weight = torch.randn(NUM_ITEMS + 1, SIZE, generator=torch.Generator().manual_seed(3)).requires_grad_()
        if sharded:
            shard = Shard(Partition(NUM_ITEMS, ranks), weight, (np.arange(whole.num_users),), whole)
            loss = sharded_cross_entropy(x, shard, weights, padding_class=False, consistency=0.0, repeat_bias=None)
        else:
            losses = F.linear_cross_entropy(x, weight[1:], whole.targets - 1, reduction="none")
            loss = (losses if weights is None else losses * weights).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss.detach(), x.grad, weight.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_repeats_and_two_passes_are_those_of_one_process(ranks: Ranks) -> None:
    whole = batch()
    twice = whole.select(np.tile(np.arange(whole.num_users), 2))[0]
    found = []
    for sharded in (True, False):
        x = torch.randn(len(twice.targets), SIZE, generator=torch.Generator().manual_seed(2)).requires_grad_()
        weight = torch.randn(NUM_ITEMS + 1, SIZE, generator=torch.Generator().manual_seed(3)).requires_grad_()
        bias = torch.tensor(0.7, requires_grad=True)
        if sharded:
            shard = Shard(Partition(NUM_ITEMS, ranks), weight, (np.arange(whole.num_users),), whole)
            loss = sharded_cross_entropy(x, shard, None, padding_class=True, consistency=3.0, repeat_bias=bias)
        else:
            repeats = Repeats.of_tokens(twice)
            how = {"padding_class": True, "consistency": 3.0, "repeat_bias": bias, "repeats": repeats, "total": 1.0}
            loss = cross_entropy(x, weight, twice.targets, **how)  # type: ignore[arg-type]
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss.detach(), x.grad, weight.grad, bias.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
