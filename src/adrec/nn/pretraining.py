"""The network of stage 1 of the paper, which pre-trains the item embedding."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from adrec.config.stage import PaddedConfig
from adrec.data.batch import PackedBatch
from adrec.nn.base import Noise
from adrec.nn.blocks import Blocks, last_outputs
from adrec.nn.initialize import normal_linear_layers
from adrec.nn.kernels.dropout import dropout
from adrec.nn.kernels.layout import Layout
from adrec.nn.losses import Objective
from adrec.nn.padded import PaddedNetwork


class PretrainingNetwork(PaddedNetwork):
    """SASRec (Kang and McAuley 2018) without positions, trained with full cross-entropy."""

    reads = frozenset(
        {
            *("hidden_size", "num_blocks", "num_heads", "feed_forward_ratio", "max_length"),
            *("embedding_dropout", "dropout", "attend_padding", "padding_class", "repeat_bias", "repeat_projection"),
        }
    )

    def __init__(self, config: PaddedConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.blocks = Blocks.of(config)

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
        """Return each user's last output, [B, D]; it is deterministic."""
        plan = self.plan(batch, inference=True)
        return last_outputs(self.blocks, self._history(batch, plan), plan)
