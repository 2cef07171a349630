"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) of packed rows: a rotation of queries and keys.

The product of a query and a key then depends on the distance of their positions. A sink has position 0, and the tokens
of its sequence have positions 1, 2, ...
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adrec.nn.kernels.layout import Layout

BASE = 10_000.0  # the slowest pair of a head has a period of about 2 pi BASE positions


def row_positions(plan: Layout) -> Tensor:
    """Return the position of every row in its sequence, int64 [rows]."""
    tokens = torch.arange(plan.num_tokens, device=plan.last_rows.device)
    before = torch.cat([plan.last_rows.new_full((1,), -1), plan.last_rows[:-1]])  # the last row of the user before, [B]
    of_tokens = tokens - before[plan.row_users[: plan.num_tokens]]
    return torch.cat([of_tokens, of_tokens.new_zeros(len(plan.row_users) - plan.num_tokens)])


def rotations(positions: Tensor, head_size: int) -> Tensor:
    """Return the cosines and sines of the rotation angles of ``positions`` [rows], [2, rows, d / 2].

    The angle of pair i of the d / 2 pairs is ``position BASE^(-2 i / d)``.
    """
    pairs = torch.arange(head_size // 2, device=positions.device)
    angles = positions[:, None] * BASE ** (-2 * pairs / head_size)  # [rows, d / 2]
    return torch.stack([angles.cos(), angles.sin()])


def rotate(qkv: Tensor, rotation: Tensor, heads: int) -> Tensor:
    """Return ``qkv`` [rows, 3 D] with queries and keys rotated by ``rotation`` [2, rows, d / 2]; values unchanged."""
    cos, sin = rotation.to(qkv.dtype)[:, :, None]  # [rows, 1, d / 2]
    return Rotate.apply(qkv, cos, sin, heads)  # type: ignore[no-untyped-call]


class Rotate(torch.autograd.Function):
    """:func:`turned` in few passes over memory; its gradient is the inverse rotation."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:  # noqa: D102
        ctx.save_for_backward(cos, sin)
        ctx.heads = heads
        return turned(qkv, cos, sin, heads)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: D102
        cos, sin = ctx.saved_tensors
        return turned(grad, cos, -sin, ctx.heads), None, None, None


@torch.no_grad()
def turned(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Return ``qkv`` with each pair (a, b) of queries and keys rotated to (a cos - b sin, a sin + b cos)."""
    rows, both = len(qkv), 2 * qkv.shape[1] // 3
    out = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    a, b = qkv[:, :both].reshape(rows, 2 * heads, 2, -1).unbind(2)  # [rows, 2 H, d / 2]: a pair's two numbers
    first, second = out[:, :both].view(rows, 2 * heads, 2, -1).unbind(2)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(a, sin, out=second).addcmul_(b, cos)
    out[:, both:] = qkv[:, both:]
    return out


def plain_rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Return the queries or keys ``x`` [rows, H, d] rotated by ``angles`` [rows, d / 2], computed in the plain way."""
    a, b = x.chunk(2, dim=-1)  # [rows, H, d / 2]: a pair's two numbers
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
