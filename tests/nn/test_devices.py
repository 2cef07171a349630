"""Everything that computes keeps to the network's device and never waits for it, shown on a GPU that is not there.

Tensors on PyTorch's ``meta`` device have shapes and no numbers. What mixes them with tensors on the CPU would fail on a
GPU, or copy in secret; whoever asks for a number makes the processor wait until a GPU has computed it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adrec.data.batch import history_batch, training_batch
from adrec.evaluate.ranking import ranking
from adrec.inference.rules import Limits
from adrec.inference.scorer import Histories, top_k
from adrec.models.network import NetworkScorer
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import SequenceNetwork, make_network
from adrec.nn.pretraining import PretrainingNetwork
from adrec.train.step import Step
from conftest import paper_model, paper_network

AWAY, CPU = torch.device("meta"), torch.device("cpu")
NUM_ITEMS, MAX_LENGTH, NUM_USERS = 40, 12, 30
SETTINGS: list[dict[str, Any]] = [
    {},
    {"noise_level": "sequence"},
    {"noise_level": "last"},
    {"guidance_scale": 2.0},
    {"causal": False},
    {"decoder": "mlp"},
    {"geodesic": True},
    {"padding_class": True, "attend_padding": False},
    {"kind": "sasrec"},
    {"decoder": "adaptive", "ranks_by": "condition", "unit_targets": True, "repeat_bias": True},
    {"decoder": "adaptive", "unit_targets": True, "repeat_bias": True},
]


class Watch(TorchDispatchMode):
    """Refuses an operation on tensors of two devices, and counts how often the processor waits for the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        away = [each for each in tensors if each.device == AWAY]
        if func is torch.ops.aten._to_copy.default:
            target = kwargs.get("device")
            if target == AWAY and not away:
                self.waits += not kwargs.get("non_blocking")
            if target == CPU and away:
                self.waits += 1
                return torch.zeros(away[0].shape, dtype=kwargs.get("dtype") or away[0].dtype)
        if func is torch.ops.aten._local_scalar_dense.default and away:
            self.waits += 1
            return 0
        assert not away or all(each.device == AWAY or each.ndim == 0 for each in tensors), f"{func} mixes devices"
        return func(*args, **kwargs)


def histories() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    ends = np.cumsum(rng.integers(2, MAX_LENGTH + 5, size=NUM_USERS))
    items = rng.integers(1, NUM_ITEMS + 1, size=ends[-1]).astype(np.int32)
    return items, np.concatenate([[0], ends[:-1]]), ends


def network(kind: str = "adrec", **changes: Any) -> SequenceNetwork:
    sizes = {"hidden_size": 16, "max_length": MAX_LENGTH, "num_train_timesteps": 4, "num_inference_steps": 4}
    config = paper_model(**sizes, **changes)
    return (
        make_network(PretrainingNetwork, config, NUM_ITEMS) if kind == "sasrec" else paper_network(config, NUM_ITEMS)
    ).to(AWAY)


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
@pytest.mark.parametrize("how", [{}, {"pcgrad": True}, {"embedding": "decaying"}, {"precision": "bfloat16"}], ids=str)
def test_a_step_of_training_in_parts(
    changes: dict[str, Any], how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for this device
    model = network(**changes)
    if isinstance(model, PretrainingNetwork):
        how = {**how, "weights": {"ce": 1.0}, "pcgrad": False}
    step = Step(**{"weights": {"ce": 1.0, "mse": 1.0}, "pcgrad": False, "embedding": "train", **how})
    with Watch() as watch:
        batch, rng = training_batch(*histories(), MAX_LENGTH).to(AWAY), torch.Generator()
        draws = model.draw(batch, rng) if isinstance(model, ADRecNetwork) else None
        losses = step.gradients(model, batch, draws, rng, max_tokens=60)
    assert watch.waits == 0
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert {tensor.device for tensor in (*losses.values(), *gradients)} == {AWAY}


@pytest.mark.filterwarnings("ignore:with bidirectional attention")
@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_predicting(changes: dict[str, Any]) -> None:
    scorer = NetworkScorer(network(**changes))
    with Watch() as watch:
        scores = scorer(history_batch(*histories(), MAX_LENGTH))
    assert scores.device == AWAY
    assert watch.waits == 0


@pytest.mark.parametrize("width", [4, 1000])
def test_a_batch_is_waited_for_as_a_whole_however_many_blocks_it_takes(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adrec.inference.scores.FEWEST_ITEMS", width)
    monkeypatch.setattr("adrec.inference.scores.BLOCK", 1)
    scorer, given = NetworkScorer(network()), Histories(*histories())
    with Watch() as watch:
        top_k(scorer, given, 5, limits=Limits(np.arange(NUM_ITEMS + 1) > 3))
    assert watch.waits == 3  # for items and scores, and whether the scores are numbers
    with Watch() as watch:
        ranking(scorer, given, np.ones(NUM_USERS, dtype=np.int64), filter_seen=True, top=5)
    assert watch.waits == 5  # for counts, what is best, and whether the scores are precise
