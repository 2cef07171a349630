"""The items nearest to a history's last token while it is denoised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from adrec.data.batch import history_batch
from adrec.data.spans import Int64s
from adrec.inference.scores import Masked, best_items
from adrec.models.network import NetworkModel
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.diffusion import samples
from adrec.nn.noise import HistoryNoise
from adrec.utils.errors import ConfigError


@torch.no_grad()
def denoised_items(
    model: NetworkModel, history: NDArray[np.integer], steps_left: Sequence[int], k: int
) -> dict[int, Int64s]:
    """Return the k best items for the last token's sample x at some denoising steps (paper, inference).

    The chain has all T steps and the noise that the model recommends with. Items of the history are left out.

    Args:
        model: a trained ADRec with diffusion, ranked by its sample.
        history: item numbers, oldest first, [n].
        steps_left: the numbers of steps still to be taken: T is pure noise, 0 the final sample.
        k: the number of items.

    Returns:
        Item numbers, best first, [up to k], by the number of steps left.

    Raises:
        ConfigError: if the model does not denoise, or in a way of an ablation, or for more than T steps.
    """
    network = model.network
    if type(network) is not ADRecNetwork or network.config.diffusion is None or not network.uses_noise:
        raise ConfigError("this model denoises nothing, or in a way of model.ablation; take one of the preset default.")
    longest = len(network.schedule.timesteps)
    if not all(0 <= left <= longest for left in steps_left):
        raise ConfigError(f"steps_left are whole numbers from 0 to {longest}; they are {list(steps_left)}.")
    starts, ends = np.zeros(1, dtype=np.int64), np.full(1, len(history))
    batch = history_batch(history, starts, ends, network.config.max_length)
    device = network.item_embedding.weight.device
    noise, there = HistoryNoise(batch, network.config.hidden_size, model.seed, device), batch.to(device)
    seen = Masked.of(np.zeros(len(history), dtype=np.int64), history.astype(np.int64))
    chain = samples(network.denoiser(there), network.schedule, noise, sampler=network.config.diffusion.sampler)
    found = {}
    for left, x in zip(reversed(range(longest + 1)), chain, strict=True):  # x is [1, D]
        if left in steps_left:
            items, _ = best_items(network.scored(x, there), k, network.num_items, seen)
            found[left] = items[0][items[0] > 0].numpy()
    return found
