"""Learned positions of packed sequences."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from adrec.data.batch import PackedBatch

EMBEDDING_STD = 0.02  # as in BERT: the input of a layer norm may be small


class Positions(nn.Module):
    """A learned vector for each position in the window of the last L tokens.

    Positions count from the window's end, as in code that pads on the left: a sequence's last token has position
    L - 1, whatever the length of the sequence. The last token, which predicts, therefore always has the same vector.
    """

    def __init__(self, max_length: int, hidden_size: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(max_length, hidden_size)

    def initialize(self, rng: Generator) -> None:
        """Draw small vectors."""
        nn.init.normal_(self.vectors.weight, std=EMBEDDING_STD, generator=rng)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return the vector of every token's position, [N, D]."""
        num_tokens = len(batch.items)
        ends = batch.cu_seqlens[1:].repeat_interleave(batch.cu_seqlens.diff(), output_size=num_tokens)  # [N]
        behind = ends - 1 - torch.arange(num_tokens, device=ends.device)  # how many tokens follow, [N]
        return self.vectors(self.vectors.num_embeddings - 1 - behind)
