"""Which targets are noisy in training, and whether they train the embedding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adrec.config.adrec import ModelConfig
from adrec.data.batch import PackedBatch, history_batch, training_batch
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.losses import squared_error
from conftest import paper_model, paper_network

NUM_ITEMS, LENGTH, SIZE, T = 12, 6, 8, 4
ITEMS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 8, 7])
ENDS = np.array([6, 8, 10])
STARTS = np.array([0, 6, 8])


def config(decoder: str, **changes: object) -> ModelConfig:
    sizes = {"hidden_size": SIZE, "max_length": LENGTH, "num_train_timesteps": T, "num_inference_steps": 1}
    return paper_model(**{**sizes, "noise_weight": 0.7, "decoder": decoder, **changes})


def network(of: ModelConfig) -> ADRecNetwork:
    made = paper_network(of, NUM_ITEMS)
    made.initialize(torch.Generator().manual_seed(0))
    return made.double()


def batch() -> PackedBatch:
    return training_batch(ITEMS, STARTS, ENDS, LENGTH)


@pytest.mark.parametrize("decoder", ["attention", "mlp", "adaptive"])
@pytest.mark.parametrize(
    "changes", [{}, {"causal": False}, {"geodesic": True}, {"attend_padding": False}, {"positions": "rotary"}], ids=str
)
def test_noise_on_the_last_token_alone_is_what_inference_denoises(decoder: str, changes: dict[str, object]) -> None:
    """A history ends one item earlier than its sequence; its targets are the true next items, clean."""
    model, trained = network(config(decoder, noise_level="last", **changes)), batch()
    draws = model.draw(trained, torch.Generator().manual_seed(1))
    assert draws is not None and draws.t.unique().numel() > 1
    last = trained.cu_seqlens[1:] - 1
    x_t = model.forward_process(model.clean_targets(trained.targets[last]), draws.t, draws.eps[last])
    histories = history_batch(ITEMS, STARTS, ENDS - 1, LENGTH)
    assert histories.items.tolist() == trained.items.tolist()
    with torch.no_grad():
        outputs = model(trained, draws)
        denoise = model.denoiser(histories)
        for place, user in enumerate(denoise.users.tolist()):
            expected = denoise(x_t[denoise.users], int(draws.t[user]))[place]
            torch.testing.assert_close(outputs.x0_hat[last[user]], expected)


@pytest.mark.parametrize("detached", [False, True])
def test_detached_targets_train_no_item_that_is_only_a_target(detached: bool) -> None:
    model, trained = network(config("attention", detached_targets=detached)), batch()
    draws = model.draw(trained, torch.Generator().manual_seed(1))
    outputs = model(trained, draws)
    squared_error(outputs.x0_hat, outputs.x0, trained).backward()
    gradient = model.item_embedding.weight.grad
    assert gradient is not None
    only_targets = sorted({*trained.targets.tolist()} - {*trained.items.tolist()})
    assert only_targets == [6, 7, 9]
    assert bool(gradient[only_targets].any()) is not detached
    assert gradient[trained.items].any(dim=1).all()
