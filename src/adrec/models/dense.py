"""Scores of few histories at a time with ADRec's network: for a service, where overhead decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from adrec.data.spans import Int64s
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.dense import Dense
from adrec.nn.noise import keys_of, unit_noise

OVERHEAD = 20  # rows that could be computed in the time that a forward pass takes beside its products


class DenseScorer:
    """Scores histories with :class:`~adrec.nn.dense.Dense`: the numbers of the network's scorer, but for rounding.

    Args:
        network: ADRec's network without ablations.
        seed: the seed of the noise at inference.
    """

    def __init__(self, network: ADRecNetwork, seed: int) -> None:
        self.dense, self.network, self.seed = Dense(network), network, seed
        self.items = network.item_embedding.weight.detach()[: network.num_items + 1]  # [V + 1, D]
        bias, projection = network.repeat_bias, network.repeat_projection
        self.bias = None if bias is None else float(bias.detach())
        self.projection = None if projection is None else projection.detach()

    @torch.inference_mode()
    def queries(self, histories: Sequence[Int64s]) -> Tensor:
        """Return the query of each history, [B, D]; histories are not empty, and of any length."""
        config, device = self.network.config, self.items.device
        items, lengths = padded(histories, config.max_length)
        noise = None
        if self.network.uses_noise:
            keys = torch.from_numpy(keys_of(items, lengths, self.seed)).to(device)
            noise = unit_noise(keys, config.hidden_size, 1, config.num_inference_steps + 1)  # [S, B, D]
        found: Tensor = self.dense(torch.from_numpy(items).to(device), torch.from_numpy(lengths).to(device), noise)
        return found

    @torch.inference_mode()
    def __call__(self, histories: Sequence[Int64s]) -> Tensor:
        """Return the scores of every item number, float32 [B, V + 1]."""
        scores = torch.empty(len(histories), len(self.items), device=self.items.device)
        for some in groups([min(len(each), self.dense.max_length) for each in histories]):
            query = self.queries([histories[at] for at in some])
            own = query @ self.items.T  # [b, V + 1]
            if self.bias is not None:
                self._add_repeats(own, query, [histories[at] for at in some])
            if len(some) == len(histories):
                return own if some == list(range(len(some))) else own[torch.tensor(np.argsort(some))]
            scores[torch.tensor(some)] = own
        return scores

    @torch.inference_mode()
    def scores_of(self, query: Tensor, history: Int64s, numbers: Int64s) -> Tensor:
        """Return the scores of some item numbers, [n], for the ``query`` [D] of a history."""
        at = torch.from_numpy(numbers).to(self.items.device)
        scores = self.items[at] @ query
        if self.bias is not None:
            met, bias = self._repeats(query, history)
            scores += torch.where(at[:, None] == met, bias, 0.0).sum(1)
        return scores

    def _add_repeats(self, scores: Tensor, query: Tensor, histories: Sequence[Int64s]) -> None:
        """Add the repeat logits of each history, in place."""
        for row, history in enumerate(histories):
            met, bias = self._repeats(query[row], history)
            scores[row, met] += bias

    def _repeats(self, query: Tensor, history: Int64s) -> tuple[Tensor, Tensor]:
        """Return the items that the model sees of a history, once each, and their repeat logits, [n] each."""
        met = torch.from_numpy(np.unique(history[-self.dense.max_length :])).to(self.items.device)
        bias = torch.full((len(met),), self.bias or 0.0, device=self.items.device)
        return met, bias if self.projection is None else bias + self.items[met] @ (query @ self.projection)


def padded(histories: Sequence[Int64s], max_length: int) -> tuple[Int64s, Int64s]:
    """Return the last items of histories in rows, ``items`` [B, n] with 0 behind their ends, and ``lengths`` [B]."""
    lengths = np.array([min(len(each), max_length) for each in histories])
    items = np.zeros((len(histories), int(lengths.max())), dtype=np.int64)
    for row, (history, length) in enumerate(zip(histories, lengths.tolist(), strict=True)):
        items[row, :length] = history[-length:]
    return items, lengths


def groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield indices of histories that are computed together: padding them costs less than another pass."""
    some: list[int] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if some and (lengths[at] - lengths[some[-1]]) * len(some) > OVERHEAD:
            yield some
            some = []
        some.append(at)
    if some:
        yield some
