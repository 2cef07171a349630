"""What ADRec and the SASRec that pre-trains its item embedding share, and that SASRec.

Both obey the contract of :mod:`adrec.nn.base`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Generator, Tensor, nn

from adrec.config.stage import PaddedConfig
from adrec.data.batch import PackedBatch
from adrec.nn.base import Noise, normal_linear_layers
from adrec.nn.biased import RepeatBiased
from adrec.nn.blocks import Blocks, last_outputs
from adrec.nn.kernels.consistency import consistent_cross_entropy
from adrec.nn.kernels.dropout import dropout
from adrec.nn.kernels.layout import Layout
from adrec.nn.losses import Objective, cross_entropy
from adrec.nn.repeats import Repeats


class PaddedNetwork(RepeatBiased):
    """What ADRec and its pre-training share: the published code's way with padding."""

    config: PaddedConfig

    def __init__(self, config: PaddedConfig, num_items: int) -> None:
        # As a class of the softmax the padding row is trained there alone, as in the published code: with padding_idx
        # it enters the input without gradient. Otherwise it is trained as what the sink starts from: with neither,
        # Adam's L2 term would shrink it until the input norm divides by almost nothing.
        super().__init__(config, num_items, padding_idx=0 if config.padding_class else None)
        self.attends_padding, self.ranks_padding = config.attend_padding, config.padding_class

    def embed(self, batch: PackedBatch, plan: Layout) -> Tensor:
        """Return the embedded items of all rows, [rows, D]."""
        return self.item_embedding(plan.with_sinks(batch.items, batch.items.new_zeros(())))

    def scores(self, x: Tensor) -> Tensor:
        """Return the inner products of ``x`` [.., D] with every item, [.., V + 1]; column 0 is padding."""
        return x @ self.item_embedding.weight.T

    def item_cross_entropy(self, x: Tensor, batch: PackedBatch, objective: Objective) -> Tensor:
        """Return the cross-entropy of every token's output, [N, D]; of two passes, with how far they are apart.

        It is against the catalogue, or against the classes that stand for it.
        """
        loss = cross_entropy
        if objective.consistency:
            loss = partial(consistent_cross_entropy, alpha=objective.consistency)
        loss = partial(loss, num_tokens=objective.num_tokens, repeat_bias=self.repeat_bias)
        repeats = Repeats.of_tokens(batch) if self.config.repeat_bias else None
        query, embedding, classes = objective.query(x), self.item_embedding.weight, objective.classes
        if classes is None:
            return loss(query, embedding, batch.targets, padding_class=self.config.padding_class, repeats=repeats)
        if repeats is not None:
            repeats = replace(repeats, items=classes.places(repeats.items))
        some, targets = embedding.index_select(0, classes.items), classes.places(batch.targets)
        return loss(query, some, targets, padding_class=True, repeats=repeats, offsets=classes.offsets)


def blocks_of(config: PaddedConfig) -> Blocks:
    """Return the stack of blocks that ``config`` asks for."""
    return Blocks(config.num_blocks, config.hidden_size, config.num_heads, config.dropout, config.feed_forward_ratio)


class SASRecNetwork(PaddedNetwork):
    """Stage 1: SASRec (Kang and McAuley 2018) without positions, trained with full cross-entropy."""

    reads = frozenset(
        {
            *("hidden_size", "num_blocks", "num_heads", "feed_forward_ratio", "max_length"),
            *("embedding_dropout", "dropout", "attend_padding", "padding_class", "repeat_bias"),
        }
    )

    def __init__(self, config: PaddedConfig, num_items: int) -> None:
        super().__init__(
            config, num_items
        )  # causal also where ADRec's control is not: it must not learn leaked targets
        self.norm = nn.LayerNorm(config.hidden_size)
        self.blocks = blocks_of(config)

    def initialize(self, rng: Generator) -> None:
        """Draw every linear layer and the embedding from N(0, 0.1), biases 0."""
        normal_linear_layers(self, 0.1, rng)

    def forward(self, batch: PackedBatch, draws: None = None, rng: Generator | None = None) -> Tensor:
        """Return the output of every token, [N, D]."""
        plan = self.plan(batch)
        return self.blocks(self._history(batch, plan, rng), plan, rng)[: plan.num_tokens]

    def losses(self, outputs: Tensor, batch: PackedBatch, draws: None, objective: Objective) -> dict[str, Tensor]:
        """Return the full cross-entropy."""
        return {"ce": self.item_cross_entropy(outputs, batch, objective)}

    def _history(self, batch: PackedBatch, plan: Layout, rng: Generator | None = None) -> Tensor:
        return dropout(self.norm(self.embed(batch, plan)), self.config.embedding_dropout, rng)  # [rows, D]

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Return each user's last output, [B, D]; nothing here is random."""
        plan = self.plan(batch, inference=True)
        return last_outputs(self.blocks, self._history(batch, plan), plan)
