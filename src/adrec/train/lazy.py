"""Lazy training of the item embedding: a step reads and changes only the rows of its items.

A row's optimizer state moves on when the row is met. What the steps in between would have done is caught up then: the
weight decay, and the share of the row in the moving average. Adam's moments and the correction of their bias follow
the steps that a row was in. If every step meets every row, this is AdamW and its average, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adrec.config.catalogue import RowsConfig
from adrec.config.stage import StageConfig
from adrec.data.sequences import Sequences
from adrec.nn.base import SequenceNetwork
from adrec.nn.rows import RowSampler

EMBEDDING = "item_embedding.weight"
BLOCK = 1 << 16  # rows caught up at a time
EPSILON = 1e-8  # as in PyTorch's AdamW
BETA1 = 0.9


@contextmanager
def local_rows(network: SequenceNetwork, values: Tensor) -> Iterator[nn.Parameter]:
    """Let ``network`` compute with the item vectors ``values`` [R, D] within the context; yield them as a parameter."""
    whole = network.item_embedding
    part = nn.Embedding.from_pretrained(values, freeze=False, padding_idx=whole.padding_idx)  # type: ignore[no-untyped-call]
    network.item_embedding = part
    try:
        yield part.weight
    finally:
        network.item_embedding = whole


@dataclass
class RowTable:
    """The rows of an item embedding with their optimizer's state.

    Attributes:
        weight: the item vectors, [rows, D]: the network's own, changed in place.
        first: mean gradients, [rows, D].
        second: mean squared gradients, [rows, D].
        met: the number of steps each row was in, int32 [rows].
        decayed: the logarithm of the weight decay of all steps up to the last that each row was in, float64 [rows].
        averaged: the same for the decay of the average.
        totals: the same for all steps up to now: of the weights, and of the average.
        average: the moving average of the rows, [rows, D]; None without one.
        beta2: of AdamW.
        weight_decay: of AdamW.
    """

    weight: Tensor
    first: Tensor
    second: Tensor
    met: Tensor
    decayed: Tensor
    averaged: Tensor
    beta2: float
    weight_decay: float
    totals: list[float] = field(default_factory=lambda: [0.0, 0.0])
    average: Tensor | None = None

    @classmethod
    def of(cls, weight: Tensor, stage: StageConfig) -> RowTable:
        """Return the table of an item embedding at the start of a stage with ``rows``."""
        assert stage.rows is not None
        precision = dtype_of(stage.rows)
        first, second = (torch.zeros_like(weight, dtype=precision) for _ in range(2))
        met = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        decayed, averaged = (torch.zeros_like(met, dtype=torch.float64) for _ in range(2))
        return cls(weight.detach(), first, second, met, decayed, averaged, stage.beta2, stage.weight_decay)

    def start_average(self, average: Tensor | None) -> None:
        """Start an average from now on; ``average`` is a copy of the weights, or None."""
        self.average, self.totals[1] = average, 0.0
        self.averaged.zero_()

    def read(self, items: Tensor) -> Tensor:
        """Return a copy of some rows, [R, D], with the weight decay of the steps since they were met."""
        factor = torch.exp(self.totals[0] - self.decayed[items]).to(self.weight.dtype)
        return self.weight[items] * factor[:, None]

    def update(self, items: Tensor, gradient: Tensor | None, rate: float, share: float) -> None:
        """Make a step of AdamW for the rows ``items`` [R], with their gradient [R, D].

        Without a gradient nothing changes: the embedding is frozen, or the step was unusable.

        Args:
            items: distinct row numbers, int64.
            gradient: the gradient of their values.
            rate: the learning rate.
            share: the share of the new weights in the average; 0 without one.
        """
        before = list(self.totals)
        self.totals[1] += math.log1p(-share) if share < 1 else -math.inf
        if gradient is None:
            return
        self.totals[0] += math.log1p(-rate * self.weight_decay)
        old = self.read(items)  # decayed by this step too
        met = self.met[items] + 1
        first = self.first[items].to(gradient.dtype).lerp_(gradient, 1 - BETA1)
        second = self.second[items].to(gradient.dtype)
        second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        steps = met[:, None].to(torch.float64)
        scale = (rate / (1 - BETA1**steps)).to(gradient.dtype)
        root = (1 - self.beta2**steps).sqrt().to(gradient.dtype)
        new = old - scale * first / (second.sqrt() / root + EPSILON)
        if self.average is not None:
            average = self._caught_up(items, before[1]).lerp_(new, share)
            self.average.index_copy_(0, items, average)
            self.averaged.index_fill_(0, items, self.totals[1])
        self.weight.index_copy_(0, items, new)
        self.first.index_copy_(0, items, first.to(self.first.dtype))
        self.second.index_copy_(0, items, second.to(self.second.dtype))
        self.met.index_copy_(0, items, met)
        self.decayed.index_fill_(0, items, self.totals[0])

    def _caught_up(self, items: Tensor, total: float) -> Tensor:
        """Return the average of some rows [R, D] at ``total``, as if their weights had been constant since."""
        assert self.average is not None
        weight = self.weight[items]
        kept = torch.exp(total - self.averaged[items]).to(weight.dtype)[:, None]
        average = self.average[items]
        return torch.where(kept < 1, weight + (average - weight) * kept, average)

    def catch_up(self) -> None:
        """Bring every row to now: its weight decay, and its average."""
        for start in range(0, len(self.weight), BLOCK):
            items = torch.arange(start, min(start + BLOCK, len(self.weight)), device=self.weight.device)
            some = slice(start, start + BLOCK)
            if self.average is not None:
                self.average[some] = self._caught_up(items, self.totals[1])
            self.weight[some] = self.read(items)
        self.decayed.fill_(self.totals[0])
        self.averaged.fill_(self.totals[1])

    def tensors(self) -> dict[str, Tensor]:
        """Return the state that is not in the weights, for a snapshot."""
        names = ("first", "second", "met", "decayed", "averaged")
        return {
            **{name: getattr(self, name) for name in names},
            "totals": torch.tensor(self.totals, dtype=torch.float64),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the output of :meth:`tensors`; the average is the caller's to restore."""
        for name, value in tensors.items():
            if name != "totals":
                getattr(self, name).copy_(value)
        self.totals = tensors["totals"].tolist()


class LazyRows(NamedTuple):
    """What a stage with ``rows`` trains the item embedding with: its rows, and the sampler of a step's negatives."""

    table: RowTable
    sampler: RowSampler

    @classmethod
    def of(cls, network: SequenceNetwork, stage: StageConfig, sequences: Sequences) -> LazyRows:
        """Return them at the start of a stage of ``network`` on ``sequences``."""
        assert stage.rows is not None
        weight = network.item_embedding.weight
        sampler = RowSampler.of(stage.rows.draw, stage.rows.drawn, sequences, network.num_items, weight.device)
        return cls(RowTable.of(weight, stage), sampler)


def dtype_of(config: RowsConfig) -> torch.dtype:
    """Return the type of the moments."""
    return torch.bfloat16 if config.moments == "bfloat16" else torch.float32
