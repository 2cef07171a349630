"""Ranking by several processes, each of which has some rows of the item embedding: every rank counts among its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from adrec.data.batch import PackedBatch
from adrec.data.spans import Int64s
from adrec.evaluate.ranking import ranking
from adrec.inference.scores import Masked, count_above
from adrec.models.network import NetworkScorer
from adrec.nn.base import SequenceNetwork
from adrec.nn.noise import HistoryNoise
from adrec.nn.ranks import Partition
from adrec.nn.scores import ItemPairs, Scores
from adrec.train.lazy import local_rows
from adrec.train.validation import Validation
from adrec.utils import interrupts


class PartScorer(NetworkScorer):
    """Scores the items of this rank with a network whose item embedding is this rank's part.

    Args:
        network: the network; the rows of its item embedding are those of ``partition``.
        partition: the rows of each rank.
        seed: the seed of the noise at inference.
    """

    def __init__(self, network: SequenceNetwork, partition: Partition, seed: int) -> None:
        super().__init__(network, seed)
        self.partition = partition

    @torch.no_grad()
    def __call__(self, batch: PackedBatch) -> Scores:
        """Return the scores of the batch's histories for this rank's items; all ranks call it with the same batch."""
        network, partition = self.network, self.partition
        weight = network.item_embedding.weight
        noise = (
            HistoryNoise(batch, network.config.hidden_size, self.seed, weight.device) if network.uses_noise else None
        )
        there = batch.to(weight.device)
        items = torch.unique(torch.cat([there.items.new_zeros(1), there.items]))
        owned = partition.owned(items)
        values = partition.exchanged(items, weight[partition.local(items[owned])], owned)
        place = torch.searchsorted(items, there.items)
        with local_rows(network, values):
            query = network.predict(_numbered(there, place), noise, self.num_steps)
        others = len(weight)  # one more row, for the items of other ranks
        rows = torch.where(partition.owned(there.items), partition.local(there.items), others)
        with local_rows(network, nn.functional.pad(weight, (0, 0, 0, 1))):
            return network.scored(query, _numbered(there, rows))


def _numbered(batch: PackedBatch, items: Tensor) -> PackedBatch:
    return replace(batch, items=items, targets=torch.zeros_like(items), numbers=items.cpu().numpy())


def count_in_parts(
    partition: Partition,
    scores: Scores,
    targets: Tensor,
    num_items: int,
    masked: Masked,
    *,
    first: int = 1,
    top: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return :func:`count_above` over the items of all ranks, from this rank's scores; there are no top items."""
    assert top == 0
    rows = torch.arange(len(targets), device=targets.device)
    owned = partition.owned(targets)
    local = torch.where(owned, partition.local(targets), -1)
    own = torch.zeros(len(targets), dtype=torch.float64, device=targets.device)
    if owned.any():
        own[owned] = scores.of(rows[owned], local[owned])
    own = partition.ranks.total(own)
    numbers = torch.from_numpy(masked.pairs.numbers)
    here = partition.owned(numbers)
    pairs = ItemPairs.of(masked.pairs.rows.cpu()[here].numpy(), partition.local(numbers[here]).numpy())
    begin = first if partition.ranks.leads else 1
    counts, _ = count_above(scores, local, partition.count(), Masked(pairs), first=begin, own=own)
    return partition.ranks.total(counts.to(targets.device)).cpu(), torch.empty(len(targets), 0, dtype=torch.int64)


class PartValidation(Validation):
    """Validation by several ranks.

    Args:
        whole: the validation of one process.
        partition: the rows of each rank.
    """

    def __init__(self, whole: Validation, partition: Partition) -> None:
        self.__dict__.update(vars(whole))
        self.partition = partition

    def ranks(self, network: SequenceNetwork, left_out: bool) -> Int64s:
        """Return the rank of each validation item, the same on every rank."""
        return ranking(
            PartScorer(network, self.partition, self.seed),
            self.histories,
            self.items,
            filter_seen=left_out,
            count=partial(count_in_parts, self.partition),
            on_batch=lambda _: self._check(),
        ).ranks

    def _check(self) -> None:
        if self.partition.ranks.any(interrupts.waits()):
            interrupts.interrupt()
