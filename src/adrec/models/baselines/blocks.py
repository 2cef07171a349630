"""Transformer blocks of the baselines' papers, on packed rows; they share ADRec's attention.

Dropout is on if and only if a generator is passed.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from adrec.nn.blocks import AttentionBlock
from adrec.nn.initialize import initialize_bias
from adrec.nn.kernels.attention import Attention
from adrec.nn.kernels.dropout import dropout, dropout_
from adrec.nn.kernels.gelu import gelu
from adrec.nn.kernels.layout import Layout


class _PreNorm(AttentionBlock):
    """A block that normalises the input of its attention."""

    attention_norm: nn.LayerNorm

    def _before(self, x: Tensor) -> Tensor:
        normalized: Tensor = self.attention_norm(x)
        return normalized


class PreNormBlock(_PreNorm):
    """SASRec's block (Kang and McAuley 2018, section III-B): ``x + Dropout(g(LayerNorm(x)))`` for both of its layers.

    The feed-forward keeps the width: ``ReLU(x W1 + b1) W2 + b2`` (equation 5). The attention has an output projection,
    as is usual in transformers; the paper omits it.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = Attention(hidden_size, num_heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(hidden_size)
        self.expand = nn.Linear(hidden_size, hidden_size)
        self.contract = nn.Linear(hidden_size, hidden_size)

    def initialize(self, rng: Generator) -> None:
        """Draw Xavier-normal weights; layer norms start as the identity."""
        initialize_block(self, rng)

    def _behind(self, x: Tensor, attended: Tensor, rng: Generator | None) -> Tensor:
        x = x + dropout_(attended, self.dropout, rng)
        # Dropout before or after the ReLU is equivalent; before it, both can be done in place.
        inner = dropout_(self.expand(self.feed_forward_norm(x)), self.dropout, rng).relu_()  # [rows, D]
        return x + dropout_(self.contract(inner), self.dropout, rng)


class DiffuRecBlock(nn.Module):
    """DiffuRec's block (arXiv 2304.00686, as in its authors' code): pre-norm, a feed-forward of 4 D with GELU (tanh).

    ``Dropout(y + Dropout(f(LayerNorm(y))))`` of ``y = x + Dropout(a(LayerNorm(x)))``: the output is dropped too.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(hidden_size, eps=1e-12)
        self.attention = Attention(hidden_size, num_heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=1e-12)
        self.expand = nn.Linear(hidden_size, 4 * hidden_size)
        self.contract = nn.Linear(4 * hidden_size, hidden_size)

    def forward(self, x: Tensor, layout: Layout, rng: Generator | None = None, *, rows: Tensor | None = None) -> Tensor:
        """Transform the rows ``x`` [rows, D]; if ``rows`` [n] are given, all are attended to, only these kept."""
        attended = dropout_(self.attention(self.attention_norm(x), layout, rng), self.dropout, rng)  # [rows, D]
        x = x + attended if rows is None else x[rows] + attended[rows]
        inner = dropout_(gelu(self.expand(self.feed_forward_norm(x))), self.dropout, rng)  # [rows, 4 D]
        return dropout(x + dropout_(self.contract(inner), self.dropout, rng), self.dropout, rng)


class LiGRBlock(_PreNorm):
    """LiGR's block (Borisyuk et al. 2025, arXiv 2502.03417): the output of each layer is gated by its input.

    ``x + sigmoid(x Wg + bg) * Dropout(g(LayerNorm(x)))`` for the attention and for the feed-forward. The feed-forward
    is eSASRec's (arXiv 2508.06450): SwiGLU of 4 D without biases, ``(SiLU(x W1) * x W3) W2`` (Shazeer 2020).
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = Attention(hidden_size, num_heads, dropout)
        self.attention_gate = nn.Linear(hidden_size, hidden_size)
        self.feed_forward_norm = nn.LayerNorm(hidden_size)
        self.expand = nn.Linear(hidden_size, 8 * hidden_size, bias=False)  # W1 and W3
        self.contract = nn.Linear(4 * hidden_size, hidden_size, bias=False)
        self.feed_forward_gate = nn.Linear(hidden_size, hidden_size)

    def initialize(self, rng: Generator) -> None:
        """Draw Xavier-normal weights; layer norms start as the identity."""
        initialize_block(self, rng)
        for matrix in self.expand.weight.chunk(2):
            nn.init.xavier_normal_(matrix, generator=rng)

    def _behind(self, x: Tensor, attended: Tensor, rng: Generator | None) -> Tensor:
        x = x + torch.sigmoid(self.attention_gate(x)) * dropout_(attended, self.dropout, rng)
        gate, value = self.expand(self.feed_forward_norm(x)).chunk(2, dim=-1)  # [rows, 4 D] each
        inner = dropout_(nn.functional.silu(gate) * value, self.dropout, rng)  # [rows, 4 D]
        fed = self.contract(inner)  # [rows, D]
        return x + torch.sigmoid(self.feed_forward_gate(x)) * dropout_(fed, self.dropout, rng)


def initialize_block(block: nn.Module, rng: Generator) -> None:
    """Draw a block's linear layers Xavier normal and its attention by its own rule; norms start as the identity."""
    for part in block.children():
        if isinstance(part, Attention):
            part.initialize(rng)
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()
        elif isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight, generator=rng)
            if part.bias is not None:
                initialize_bias(part, rng)
