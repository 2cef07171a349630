"""The causal transformer of SASRec and its successors: item and position embeddings, pre-norm blocks, a final norm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, cast

import torch
from torch import Generator, Tensor, nn

from adrec.config.stage import TransformerConfig
from adrec.data.batch import PackedBatch
from adrec.models.baselines.blocks import LiGRBlock, PreNormBlock
from adrec.nn.base import Noise, SequenceNetwork
from adrec.nn.blocks import AttentionBlock, last_outputs
from adrec.nn.kernels.dropout import dropout
from adrec.nn.positions import EMBEDDING_STD, Positions


class CausalTransformer(SequenceNetwork):
    """SASRec's network (Kang and McAuley 2018, section III); subclasses define the loss.

    Attributes:
        block: the class of its blocks.
        normalizes_outputs: whether a layer norm follows the last block.
    """

    block: ClassVar[type[PreNormBlock | LiGRBlock]] = PreNormBlock
    normalizes_outputs: ClassVar[bool] = True
    config: TransformerConfig

    def __init__(self, config: TransformerConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        size = config.hidden_size
        self.positions = Positions(config.max_length, size)
        self.blocks = nn.ModuleList(
            self.block(size, config.num_heads, config.dropout) for _ in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(size) if self.normalizes_outputs else nn.Identity()

    def initialize(self, rng: Generator) -> None:
        """Draw small embeddings and Xavier-normal blocks; layer norms start as the identity."""
        nn.init.normal_(self.item_embedding.weight, std=EMBEDDING_STD, generator=rng)
        self.positions.initialize(rng)
        for block in self.blocks:
            assert isinstance(block, PreNormBlock | LiGRBlock)
            block.initialize(rng)
        if isinstance(self.norm, nn.LayerNorm):
            self.norm.reset_parameters()

    def forward(self, batch: PackedBatch, draws: Any = None, rng: Generator | None = None) -> Tensor:
        """Return the output of every token, [N, D]."""
        plan, x = self.plan(batch), self._inputs(batch, rng)
        for block in self.blocks:
            x = block(x, plan, rng)
        return self.norm(x)

    def _inputs(self, batch: PackedBatch, rng: Generator | None = None) -> Tensor:
        scale = math.sqrt(self.config.hidden_size)  # as in the published code: keeps the items' share in the blocks
        x = scale * self.item_embedding(batch.items) + self.positions(batch)  # [N, D] (equation 1)
        return dropout(x, self.config.embedding_dropout, rng)

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Return each user's last output, [B, D]."""
        blocks = cast("Iterable[AttentionBlock]", self.blocks)
        return self.norm(last_outputs(blocks, self._inputs(batch), self.plan(batch, inference=True)))
