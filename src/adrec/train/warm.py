"""Warm start: the weights of an earlier run as the initial weights of a training on a grown catalogue."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.data.sequences import Sequences
from adrec.data.spans import Int64s
from adrec.data.sparse import Matrix, rows_of
from adrec.nn.base import SequenceNetwork
from adrec.train.cooccurrence import few_enough, similarities
from adrec.train.newcomers import predict_vectors, target_counts
from adrec.utils.errors import ConfigError


def start_from_weights(
    network: SequenceNetwork, weights: Mapping[str, Tensor], num_older: int, sequences: Sequences, seed: int
) -> Int64s:
    """Load the weights of a network with the first ``num_older`` items of the catalogue into ``network``.

    A tensor with a row for each item gets new rows: the mean of the rows of the older items that a new item stands
    beside in the training sequences, weighted by :func:`adrec.train.cooccurrence.similarities`. A new item that stands
    beside none keeps its drawn row; the numbers of these items are returned, int64.

    Args:
        network: the network, initialised.
        weights: the earlier network's weights, by name.
        num_older: V of the earlier network.
        sequences: the training sequences.
        seed: draws a sample of the sequences if there are very many.

    Raises:
        ConfigError: if the two networks differ in more than the catalogue.
    """
    own, fits = network.state_dict(), check_weights(network, weights, num_older)
    added = network.num_items - num_older
    grown = {name: weights[name].to(own[name].device) for name in own}
    alone = np.empty(0, dtype=np.int64)
    if added:
        beside = _beside(few_enough(sequences, np.random.default_rng(seed)), num_older, network.num_items)
        for name, more in fits.items():
            if more:
                grown[name] = _grown(own[name], grown[name], beside, num_older)
        alone = num_older + 1 + np.flatnonzero(np.diff(beside.indptr) == 0)
    network.load_state_dict(grown)
    return alone


def start_from_features(
    network: SequenceNetwork, features: NDArray[np.float32], num_older: int, sequences: Sequences, new: Int64s
) -> None:
    """Give ``new`` items the vectors that their features predict from those of older items with interactions.

    Args:
        network: the network, started from the earlier weights.
        features: a vector of each item, [V + 1, F]; NaN where there is none: these items keep their rows.
        num_older: V of the earlier network.
        sequences: the training sequences.
        new: numbers of items.
    """
    counts = target_counts(sequences, network.num_items)
    known = np.flatnonzero(counts[: num_older + 1])
    predict_vectors(network.item_embedding.weight.data, features, counts, known, new)


def check_weights(network: SequenceNetwork, weights: Mapping[str, Tensor], num_older: int) -> Mapping[str, int]:
    """Return by how many rows each tensor of ``network`` is longer than in ``weights``.

    Raises :class:`ConfigError` if the two networks differ in more than the catalogue.
    """
    own = network.state_dict()
    different = sorted(set(own) ^ set(weights)) or [
        name for name in own if own[name].shape[1:] != weights[name].shape[1:]
    ]
    added = network.num_items - num_older
    fits = (
        {name: len(own[name]) - len(weights[name]) if own[name].dim() else 0 for name in own} if not different else {}
    )
    different += [name for name, more in fits.items() if more not in (0, added)]
    if different or added < 0:
        what = f"they differ in {different[0]}" if different else "it has fewer items than the earlier one"
        raise ConfigError(f"the network does not fit the weights that it is to start from: {what}.")
    return fits


def _beside(sequences: Sequences, num_older: int, num_items: int) -> Matrix:
    """Return the weight of each older item in the mean of each new one, [new, older + 1]; rows sum to 1, or to 0."""
    near = similarities(sequences, num_items)[num_older + 1 :, : num_older + 1].tocsr()
    totals = np.asarray(near.sum(axis=1)).reshape(-1)
    near.data /= totals[rows_of(near)]
    return near


def _grown(drawn: Tensor, older: Tensor, beside: Matrix, num_older: int) -> Tensor:
    """Return ``older`` rows, then those of new items, then those that follow the items' (such as a mask's)."""
    rows = older[: num_older + 1]
    means = torch.from_numpy(beside @ rows.reshape(len(rows), -1).float().cpu().numpy())  # [new, ..]
    new = drawn[num_older + 1 : num_older + 1 + means.shape[0]]
    known = torch.from_numpy(np.diff(beside.indptr) > 0).to(drawn.device)
    means = means.to(drawn.device, drawn.dtype).reshape(new.shape)
    means = torch.where(known.reshape(-1, *[1] * (new.dim() - 1)), means, new)
    return torch.cat([rows, means, older[num_older + 1 :]])
