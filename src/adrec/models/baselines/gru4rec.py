"""GRU4Rec (Hidasi et al. 2016; Hidasi and Karatzoglou 2018): recurrent units over the items of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from adrec.config.base import OneStageConfig
from adrec.config.parsing import require
from adrec.config.stage import NetworkConfig, StageConfig, check_shares
from adrec.data.batch import PackedBatch
from adrec.data.spans import Int64s
from adrec.models.baselines.stage import STAGE
from adrec.models.network import NetworkModel
from adrec.nn.base import Noise, SequenceNetwork, last_tokens
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.kernels.dropout import dropout
from adrec.nn.losses import Objective
from adrec.nn.positions import EMBEDDING_STD


@dataclass(frozen=True)
class GRU4RecNetworkConfig(NetworkConfig):
    """GRU4Rec's network: one embedding for input and output ("constrained", 2018).

    Attributes:
        num_layers: recurrent layers; one is best in the paper.
        embedding_dropout: dropout of the embedded history.
        dropout: dropout of each layer's outputs.
    """

    num_layers: int = 1
    embedding_dropout: float = 0.3
    dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_layers >= 1, f"model.num_layers must be at least 1; it is {self.num_layers}.")
        check_shares(self, "embedding_dropout", "dropout")


@dataclass(frozen=True)
class GRU4RecConfig(OneStageConfig):
    """GRU4Rec's configuration.

    Attributes:
        model: the network.
    """

    model: GRU4RecNetworkConfig = field(default_factory=GRU4RecNetworkConfig)
    train: StageConfig = STAGE


class GRU4RecNetwork(SequenceNetwork):
    """Gated recurrent units and cross-entropy against the whole catalogue.

    The papers score only the other targets of a batch as negatives, for speed. Here all items are scored: their
    cross-entropy, without the approximation.
    """

    config: GRU4RecNetworkConfig
    weighs_events = True

    def __init__(self, config: GRU4RecNetworkConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        size = config.hidden_size
        self.layers = nn.ModuleList(nn.GRU(size, size) for _ in range(config.num_layers))

    def initialize(self, rng: Generator) -> None:
        """Draw a small embedding and, as PyTorch does, layers uniform within 1 / sqrt(D)."""
        nn.init.normal_(self.item_embedding.weight, std=EMBEDDING_STD, generator=rng)
        bound = 1 / math.sqrt(self.config.hidden_size)
        for weight in self.layers.parameters():
            nn.init.uniform_(weight, -bound, bound, generator=rng)

    def forward(self, batch: PackedBatch, draws: Any = None, rng: Generator | None = None) -> Tensor:
        """Return the state after every token, [N, D]."""
        time_order, sizes = by_time(batch.lengths)
        device = batch.items.device
        rows, sizes_of_steps = torch.from_numpy(time_order).to(device), torch.from_numpy(sizes)
        x = self.item_embedding(batch.items[rows])  # [N, D], by time
        x = dropout(x, self.config.embedding_dropout, rng)
        for layer in self.layers:
            with torch.autocast(device.type, enabled=False):  # on a GPU it would be float16, too coarse for gradients
                states, _ = layer(PackedSequence(x.float(), sizes_of_steps))
            x = dropout(states.data, self.config.dropout, rng)  # [N, D]
        back = torch.empty_like(rows)
        back[rows] = torch.arange(len(rows), device=device)
        return x[back]

    def losses(self, outputs: Tensor, batch: PackedBatch, draws: None, objective: Objective) -> dict[str, Tensor]:
        """Return the full cross-entropy."""
        x, embedding = objective.query(outputs), self.item_embedding.weight
        loss = cross_entropy(
            x, embedding, batch.targets, padding_class=False, total=objective.total_weight, weights=batch.weights
        )
        return {"ce": loss}

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Return each user's last state, [B, D]."""
        return last_tokens(self(batch), batch)


def by_time(lengths: Int64s) -> tuple[Int64s, Int64s]:
    """Return the tokens of a packed batch in time order, longer sequences first, [N], and the number at each time."""
    starts = np.cumsum(lengths) - lengths
    times = np.arange(lengths.sum()) - np.repeat(starts, lengths)  # [N]
    longest_first = np.empty_like(lengths)
    longest_first[np.argsort(-lengths, kind="stable")] = np.arange(len(lengths))
    return np.lexsort((np.repeat(longest_first, lengths), times)), np.bincount(times)


class GRU4Rec(NetworkModel):
    """GRU4Rec with full cross-entropy."""

    name = "gru4rec"
    paper = (
        "Hidasi et al.: Session-based Recommendations with Recurrent Neural Networks (ICLR 2016); Hidasi and "
        "Karatzoglou: Recurrent Neural Networks with Top-k Gains for Session-based Recommendations (CIKM 2018)"
    )
    Config = GRU4RecConfig
    networks = MappingProxyType({"network": GRU4RecNetwork})
