"""Which matrix products a piece of work computes, and how long the machine needs for those alone."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Shape(NamedTuple):
    """A product of [batch, rows, inner] and [batch, inner, columns], and which of the two is stored transposed."""

    batch: int
    rows: int
    inner: int
    columns: int
    left_transposed: bool
    right_transposed: bool

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> Shape:
        """Return the shape of the product of two matrices, or of two batches of them."""
        batch = a.shape[0] if a.dim() == 3 else 1
        return cls(batch, a.shape[-2], a.shape[-1], b.shape[-1], a.stride(-1) != 1, b.stride(-1) != 1)

    def operands(self) -> tuple[Tensor, Tensor]:
        """Return two matrices, or batches of them, that are stored so."""
        x = torch.randn(self.batch, self.inner, self.rows).mT if self.left_transposed else torch.randn(self[:3])
        y = (
            torch.randn(self.batch, self.columns, self.inner).mT
            if self.right_transposed
            else torch.randn(self.batch, self.inner, self.columns)
        )
        return (x, y) if self.batch > 1 else (x[0], y[0])


aten = torch.ops.aten
# Where each operation's two matrices stand among its arguments.
PRODUCTS = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.addmm_: 1, aten.baddbmm: 1}


class Products(TorchDispatchMode):
    """Counts the matrix products that are computed while it is entered.

    Attributes:
        shapes: how often matrices of each shape were multiplied.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[Shape] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note the shapes of a product, and let it be computed."""
        first = PRODUCTS.get(func.overloadpacket)
        if first is not None:
            self.shapes[Shape.of(args[first], args[first + 1])] += 1
        return func(*args, **(kwargs or {}))


def products(work: Callable[[], object]) -> Counter[Shape]:
    """Return the matrix products of ``work``, which is done once."""
    with Products() as counted:
        work()
    return counted.shapes


def flops(shapes: Mapping[Shape, int]) -> float:
    """Return the floating-point operations of the products."""
    return float(sum(2 * math.prod(shape[:4]) * count for shape, count in shapes.items()))


def alone(shapes: Mapping[Shape, int], budget: float = 60.0) -> float:
    """Return the seconds that the products take by themselves: each shape's median of up to 20 repeats.

    A shape repeats in the time that its share of ``budget`` seconds allows, three times at the least.
    """
    total, each = 0.0, budget / max(len(shapes), 1)
    for shape, count in shapes.items():
        x, y = shape.operands()
        multiply = torch.bmm if shape.batch > 1 else torch.mm
        out = multiply(x, y)
        times: list[float] = []
        while len(times) < 3 or (len(times) < 20 and sum(times) < each):
            began = time.perf_counter()
            multiply(x, y, out=out)
            times.append(time.perf_counter() - began)
        total += count * statistics.median(times)
    return total
