"""Rotary positions (Su et al. 2021, arXiv 2104.09864) of packed rows: queries and keys turn with their places.

The product of a query and a key then depends on how far apart they stand. A sink stands before its sequence, at 0; the
sequence's tokens at 1, 2, ...
"""

from __future__ import annotations

import torch
from torch import Tensor

from adrec.nn.layout import Layout

BASE = 10_000.0  # the slowest pair of a head turns once in some 2 pi BASE places


def places(plan: Layout) -> Tensor:
    """Return the place of every row in its sequence, int64 [rows]."""
    tokens = torch.arange(plan.num_tokens, device=plan.last_rows.device)
    before = torch.cat([plan.last_rows.new_full((1,), -1), plan.last_rows[:-1]])  # the last row of the user before, [B]
    of_tokens = tokens - before[plan.row_users[: plan.num_tokens]]
    return torch.cat([of_tokens, of_tokens.new_zeros(len(plan.row_users) - plan.num_tokens)])


def angles(at: Tensor, head_size: int) -> Tensor:
    """Return the angles of ``at`` [rows]: ``at BASE^(-2 i / d)`` for each of the d / 2 pairs, [rows, d / 2]."""
    pairs = torch.arange(head_size // 2, device=at.device)
    return at[:, None] * BASE ** (-2 * pairs / head_size)


def rotate(qkv: Tensor, angle: Tensor, heads: int) -> Tensor:
    """Return ``qkv`` [rows, 3 D] with queries and keys turned by ``angle`` [rows, d / 2]; values stay."""
    rows, both = len(qkv), 2 * qkv.shape[1] // 3
    cos, sin = (each.to(qkv.dtype)[:, None] for each in (angle.cos(), angle.sin()))  # [rows, 1, d / 2]
    a, b = qkv[:, :both].reshape(rows, 2 * heads, 2, -1).unbind(2)  # [rows, 2 H, d / 2]: a pair's two numbers
    turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=2)
    return torch.cat([turned.flatten(1), qkv[:, both:]], dim=1)
