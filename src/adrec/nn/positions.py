"""Learned positions of packed sequences."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from adrec.data.batch import PackedBatch

EMBEDDING_STD = 0.02  # as in BERT: what stands before a layer norm may be small


class Positions(nn.Module):
    """A learned vector for each place in the window of the last L tokens.

    Places count from the window's end, as in code that pads to the left: a sequence's last token has place L - 1
    however long the sequence is. So the last token, the one that predicts, always has the same vector.
    """

    def __init__(self, max_length: int, hidden_size: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(max_length, hidden_size)

    def initialize(self, rng: Generator) -> None:
        """Draw small vectors."""
        nn.init.normal_(self.vectors.weight, std=EMBEDDING_STD, generator=rng)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return the vector of every token's place, [N, D]."""
        num_tokens = len(batch.items)
        ends = batch.cu_seqlens[1:].repeat_interleave(batch.cu_seqlens.diff(), output_size=num_tokens)  # [N]
        behind = ends - 1 - torch.arange(num_tokens, device=ends.device)  # how many tokens follow, [N]
        return self.vectors(self.vectors.num_embeddings - 1 - behind)
