"""A learned bias on the scores of the items of the history."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adrec.data.batch import PackedBatch
from adrec.nn.base import SequenceNetwork
from adrec.nn.repeats import met_by_histories
from adrec.nn.scores import Biased, Scores

REPEAT_SCALE = 10.0


class RepeatBiased(SequenceNetwork):
    """A network that adds :attr:`repeat_bias` to the scores of the history's items; its losses must add it too.

    The key ``repeat_bias`` of its configuration enables the bias.
    """

    config: Any

    def __init__(self, config: Any, num_items: int, **more: Any) -> None:
        super().__init__(config, num_items, **more)
        self.repeat_preference = nn.Parameter(torch.zeros(())) if config.repeat_bias else None

    @property
    def repeat_bias(self) -> Tensor | None:
        """The number added to the scores of the items of the history; None if disabled.

        It is a multiple of the parameter, so that Adam's steps can move it by several logits within an epoch or two.
        """
        return None if self.repeat_preference is None else REPEAT_SCALE * self.repeat_preference

    def scored(self, query: Tensor, batch: PackedBatch) -> Scores:
        """Return the inner products of the queries [B, D] with the item embedding, plus the repeat bias."""
        products, bias = super().scored(query, batch), self.repeat_bias
        if bias is None:
            return products
        return Biased(products, met_by_histories(batch), bias.detach())
