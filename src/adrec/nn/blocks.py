"""Transformer blocks on packed rows; only attention (see ``layout``) depends on a row's position in its sequence.

Dropout is on if and only if a generator is passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Generator, Tensor, nn

from adrec.config.stage import PaddedConfig
from adrec.nn.initialize import initialize_bias
from adrec.nn.kernels.attention import Attention, Cache
from adrec.nn.kernels.dropout import dropout_
from adrec.nn.kernels.gelu import gelu
from adrec.nn.kernels.layout import Layout


class AttentionBlock(nn.Module):
    """Attention followed by a feed-forward, on whole sequences or on last tokens with a cache of their histories."""

    attention: Attention

    def _before(self, x: Tensor) -> Tensor:
        """Return the input of attention for the rows ``x`` [rows, D]."""
        return x

    def _behind(self, x: Tensor, attended: Tensor, rng: Generator | None) -> Tensor:
        """Return the block's output from ``x`` [rows, D] and the output of attention."""
        raise NotImplementedError

    def forward(self, x: Tensor, layout: Layout, rng: Generator | None = None) -> Tensor:
        """Transform the rows ``x`` [rows, D]."""
        return self._behind(x, self.attention(self._before(x), layout, rng), rng)

    def fill(self, x: Tensor, layout: Layout) -> Cache:
        """Return the keys and values of the rows ``x`` [rows, D]."""
        return self.attention.fill(self._before(x), layout)

    def step(self, x: Tensor, layout: Layout, cache: Cache) -> Tensor:
        """Transform each user's last token ``x`` [B, D], in bucket order, with its history's cache."""
        return self._behind(x, self.attention.step(self._before(x), layout, cache), None)


def last_outputs(blocks: Iterable[AttentionBlock], x: Tensor, layout: Layout) -> Tensor:
    """Return the outputs of causal blocks for each user's last token, without dropout: rows [rows, D] -> [B, D].

    For the other rows the last block computes only keys and values.
    """
    *before, final = blocks
    for block in before:
        x = block(x, layout)
    outputs = final.step(x[layout.last_rows[layout.users]], layout, final.fill(x, layout))  # [B, D], bucket by bucket
    return torch.empty_like(outputs).index_copy_(0, layout.users, outputs)


class Block(AttentionBlock):
    """A post-norm transformer block: attention, then a feed-forward of ``feed_forward_ratio`` D with GELU (tanh)."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float, feed_forward_ratio: int = 4) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention = Attention(hidden_size, num_heads, dropout)
        self.expand = nn.Linear(hidden_size, feed_forward_ratio * hidden_size)
        self.contract = nn.Linear(feed_forward_ratio * hidden_size, hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=1e-12)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=1e-12)

    def initialize(self, rng: Generator) -> None:
        """Draw Xavier-normal weights; layer norms start as the identity."""
        self.attention.initialize(rng)
        for linear in (self.expand, self.contract):
            nn.init.xavier_normal_(linear.weight, generator=rng)
            initialize_bias(linear, rng)
        self.attention_norm.reset_parameters()
        self.feed_forward_norm.reset_parameters()

    def _behind(self, x: Tensor, attended: Tensor, rng: Generator | None) -> Tensor:
        x = self.attention_norm(x + dropout_(attended, self.dropout, rng))
        inner = dropout_(gelu(self.expand(x)), self.dropout, rng)  # [rows, feed_forward_ratio D]
        return self.feed_forward_norm(x + dropout_(self.contract(inner), self.dropout, rng))


class Blocks(nn.ModuleList):
    """A stack of blocks."""

    @classmethod
    def of(cls, config: PaddedConfig, num_blocks: int | None = None) -> Blocks:
        """Return the stack that ``config`` describes, or one of another number of blocks."""
        size, heads = config.hidden_size, config.num_heads
        return cls(num_blocks or config.num_blocks, size, heads, config.dropout, config.feed_forward_ratio)

    def __init__(
        self, num_blocks: int, hidden_size: int, num_heads: int, dropout: float, feed_forward_ratio: int = 4
    ) -> None:
        super().__init__(Block(hidden_size, num_heads, dropout, feed_forward_ratio) for _ in range(num_blocks))

    def __iter__(self) -> Iterator[Block]:
        return cast("Iterator[Block]", super().__iter__())

    def initialize(self, rng: Generator) -> None:
        """Draw the weights of every block."""
        for block in self:
            block.initialize(rng)

    def forward(self, x: Tensor, layout: Layout, rng: Generator | None = None) -> Tensor:
        """Transform the rows ``x`` [rows, D]."""
        for block in self:
            x = block(x, layout, rng)
        return x

    def fill(self, x: Tensor, layout: Layout) -> list[Cache]:
        """Return each block's keys and values of the rows ``x`` [rows, D]."""
        caches = []
        for number, block in enumerate(self, start=1):
            caches.append(block.fill(x, layout))
            if number < len(self):  # the last block needs only keys and values
                x = block(x, layout)
        return caches

    def step(self, x: Tensor, layout: Layout, caches: list[Cache]) -> Tensor:
        """Transform each user's last token ``x`` [B, D], users in bucket order, with the caches."""
        for block, cache in zip(self, caches, strict=True):
            x = block.step(x, layout, cache)
        return x
