"""The inference engine: histories in, scores and the best items out. Every consumer of a model uses it.

A :class:`Scorer` is all that evaluation and recommendation know of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.data.batch import PackedBatch, history_batch
from adrec.data.spans import Int64s, spans
from adrec.errors import RunError
from adrec.nn.networks import ADRecNetwork, SASRecNetwork
from adrec.nn.noise import HistoryNoise


class Scorer(Protocol):
    """Scores the whole catalogue for each history of a batch."""

    @property
    def num_items(self) -> int:
        """V, the size of the catalogue."""

    @property
    def max_length(self) -> int:
        """L, the number of last items of a history that the model sees."""

    def __call__(self, batch: PackedBatch) -> Tensor:
        """Return scores [B, V + 1], on the CPU; column 0 is padding, ``-inf`` where it cannot be ranked."""


class NetworkScorer:
    """Scores with a trained network; nothing it does changes the network or any global generator.

    Args:
        network: ADRecNetwork or its pre-training SASRecNetwork.
        seed: of the noise at inference, which depends on the seed and the history alone.
        num_steps: denoising steps, the configuration's ``num_inference_steps`` by default.
    """

    def __init__(self, network: ADRecNetwork | SASRecNetwork, seed: int = 0, num_steps: int | None = None) -> None:
        self.network, self.seed, self.num_steps = network, seed, num_steps

    @property
    def num_items(self) -> int:
        """V, the size of the catalogue."""
        return self.network.num_items

    @property
    def max_length(self) -> int:
        """L, the number of last items of a history that the model sees."""
        return self.network.config.max_length

    @torch.no_grad()
    def __call__(self, batch: PackedBatch) -> Tensor:
        """Return scores [B, V + 1]."""
        network = self.network
        device = network.item_embedding.weight.device
        batch = batch.to(device)
        if isinstance(network, ADRecNetwork):
            noise = HistoryNoise(batch, network.config.hidden_size, self.seed, device)
            x = network.predict(batch, noise, self.num_steps)  # [B, D]
        else:
            x = network.predict(batch)  # [B, D]
        scores = network.scores(x)  # [B, V + 1]
        if not network.config.padding_class:
            scores[:, 0] = -torch.inf
        return scores.cpu()


@dataclass(frozen=True)
class Histories:
    """Histories as spans of a flat array of item numbers; each that is scored holds one item or more.

    Attributes:
        items: item numbers, 1..V.
        starts: where each history begins, int64 [m].
        ends: where it ends (exclusive), int64 [m].
    """

    items: NDArray[np.integer]
    starts: Int64s
    ends: Int64s

    def __len__(self) -> int:
        return len(self.starts)

    def known(self, num_items: int) -> Histories:
        """Return the histories without items above ``num_items``, which a model does not know; some may be empty."""
        known = self.items <= num_items
        if known.all():
            return self
        before = np.concatenate([[0], np.cumsum(known)])
        return Histories(self.items[known], before[self.starts], before[self.ends])


def users_per_batch(num_items: int) -> int:
    """Return how many users are scored at a time: 512, or fewer where their scores would be above 256 MiB."""
    return max(1, min(512, (1 << 26) // (num_items + 1)))


def scored_batches(
    scorer: Scorer, histories: Histories, batch_size: int | None = None
) -> Iterator[tuple[Int64s, Tensor]]:
    """Yield (which histories [B], their scores [B, V + 1]) for batches of histories of similar length.

    Raises :class:`RunError` where a score is not a number.
    """
    batch_size = batch_size or users_per_batch(scorer.num_items)
    lengths = np.minimum(histories.ends - histories.starts, scorer.max_length)
    order = np.argsort(lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        batch = history_batch(histories.items, histories.starts[chosen], histories.ends[chosen], scorer.max_length)
        scores = scorer(batch)
        if torch.isnan(scores).any():
            raise RunError(
                "the model's scores are not numbers: its training has diverged; train it again with a smaller "
                "learning_rate."
            )
        yield chosen, scores


def mask_seen(scores: Tensor, histories: Histories, chosen: Int64s) -> None:
    """Set the score of every item of a history, the whole of it, to ``-inf`` in place."""
    starts, ends = histories.starts[chosen], histories.ends[chosen]
    rows = np.repeat(np.arange(len(chosen)), ends - starts)
    seen = histories.items[spans(starts, ends - starts)].astype(np.int64)
    scores[torch.from_numpy(rows), torch.from_numpy(seen)] = -torch.inf


def best_items(scores: Tensor, k: int) -> tuple[Int64s, NDArray[np.float32]]:
    """Return the k best item numbers of each row of ``scores`` [B, V + 1], and their scores, [B, k] each.

    Padding is none of them, and its score is set to ``-inf`` in place; slots that nothing fills hold item 0.
    """
    scores[:, 0] = -torch.inf
    best = scores.topk(k, dim=1)
    return torch.where(best.values > -torch.inf, best.indices, 0).numpy(), best.values.numpy()


def top_k(
    scorer: Scorer,
    histories: Histories,
    k: int,
    *,
    filter_seen: bool = True,
    candidates: NDArray[np.bool_] | None = None,
    batch_size: int | None = None,
    on_batch: Callable[[int], None] = lambda users: None,
) -> tuple[Int64s, NDArray[np.float32]]:
    """Return the best items of each history, best first: item numbers and scores, [m, k] each (k at most V).

    Where fewer than k items may be recommended the row ends with item 0 and score ``-inf``.

    Args:
        scorer: the model.
        histories: m histories.
        k: how many items.
        filter_seen: leave out the items of the history.
        candidates: which item numbers may be recommended, bool [V + 1]; all by default.
        batch_size: histories scored at a time; :func:`users_per_batch` by default.
        on_batch: called with the number of histories done after each batch.
    """
    k = min(k, scorer.num_items)
    items = np.zeros((len(histories), k), dtype=np.int64)
    values = np.full((len(histories), k), -np.inf, dtype=np.float32)
    excluded = None if candidates is None else torch.from_numpy(~candidates)
    for chosen, scores in scored_batches(scorer, histories, batch_size):
        if excluded is not None:
            scores[:, excluded] = -torch.inf
        if filter_seen:
            mask_seen(scores, histories, chosen)
        items[chosen], values[chosen] = best_items(scores, k)
        on_batch(len(chosen))
    return items, values
