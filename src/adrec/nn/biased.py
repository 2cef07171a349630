"""A learned bias on the scores of the items of the history."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adrec.data.batch import PackedBatch
from adrec.nn.base import SequenceNetwork
from adrec.nn.kernels.pairs import pair_products
from adrec.nn.repeats import Repeats, met_by_histories
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
        size, projects = config.hidden_size, getattr(config, "repeat_projection", False)
        self.repeat_projection = nn.Parameter(torch.zeros(size, size)) if projects else None

    @property
    def repeat_bias(self) -> Tensor | None:
        """The number added to the scores of the items of the history; None if disabled.

        It is a multiple of the parameter, so that Adam's steps can move it by several logits within an epoch or two.
        """
        return None if self.repeat_preference is None else REPEAT_SCALE * self.repeat_preference

    def repeat_logits(self, x: Tensor, repeats: Repeats | None) -> Tensor | None:
        """Return what is added to the logits of the items of the history: the bias [], or a number for each pair, [P].

        With a projection P the items of the history have the logits ``x . E + bias + (P x) . E``, where E is constant
        in the last term (softmax-CPR in its simplest form, Chang et al. 2024, arXiv 2310.14079).

        Args:
            x: the query of each token, [N, D].
            repeats: the items that each token has seen; None if there is no bias.
        """
        bias = self.repeat_bias
        if bias is None or repeats is None or self.repeat_projection is None:
            return bias
        return bias + pair_products(x.float() @ self.repeat_projection, self.item_embedding.weight, repeats)

    def scored(self, query: Tensor, batch: PackedBatch) -> Scores:
        """Return the inner products of the queries [B, D] with the item embedding, plus the repeat bias."""
        products, bias = super().scored(query, batch), self.repeat_bias
        if bias is None:
            return products
        pairs = met_by_histories(batch)
        if self.repeat_projection is not None:
            # In float64, so that a rank does not depend on the batch.
            projected = query.double() @ self.repeat_projection.detach().double()  # [B, D]
            items = self.item_embedding.weight.detach()[pairs.items]  # [pairs, D]
            bias = bias + (projected[pairs.rows] * items).sum(1)  # [pairs]
        return Biased(products, pairs, bias.detach())
