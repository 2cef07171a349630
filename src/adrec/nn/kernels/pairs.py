"""Inner products of tokens with some items each, from sparse pairs (token, item)."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from adrec.nn.repeats import Repeats


class PairProducts(torch.autograd.Function):
    """``r[row] . items[item]`` of each pair of :class:`Repeats`; only ``r`` gets a gradient."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, items: Tensor, repeats: Repeats) -> Tensor:
        """Return the products [P] of the rows of ``r`` [N, D] and ``items`` [V + 1, D]."""
        pattern = _matrix(repeats, r.new_zeros(len(repeats.items)), len(items))
        ctx.repeats, ctx.items = repeats, items
        products: Tensor = torch.sparse.sampled_addmm(pattern, r, items.T.contiguous(), beta=0.0).values()
        return products

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of ``r``: each token's items, weighted by the gradients of its pairs."""
        return _matrix(ctx.repeats, grad, len(ctx.items)) @ ctx.items, None, None


def pair_products(r: Tensor, items: Tensor, repeats: Repeats) -> Tensor:
    """Return ``r[row] . items[item]`` of each pair, [P], for ``r`` [N, D] and item vectors [V + 1, D] as constants."""
    products: Tensor = PairProducts.apply(r, items.detach(), repeats)  # type: ignore[no-untyped-call]
    return products


def plain_pair_products(r: Tensor, items: Tensor, repeats: Repeats) -> Tensor:
    """Return the same, from a plain reference implementation."""
    return (r[repeats.rows] * items.detach()[repeats.items]).sum(1)


def _matrix(repeats: Repeats, values: Tensor, num_columns: int) -> Tensor:
    """Return a sparse matrix [N, columns] with a value for each pair."""
    starts = torch.from_numpy(repeats.starts).to(values.device, non_blocking=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls its sparse matrices a beta version
        return torch.sparse_csr_tensor(
            starts, repeats.items, values, size=(len(repeats.starts) - 1, num_columns), check_invariants=False
        )
