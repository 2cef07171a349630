"""Sparse matrices of counts: construction from entries, and the positions of the entries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from adrec.data.spans import Int64s, spans

Matrix = Any  # a sparse.csr_array; SciPy has no types


def csr(values: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any], shape: tuple[int, int]) -> Matrix:
    """Return a sparse float32 matrix from its entries in any order; duplicate entries are summed."""
    matrix = sparse.csr_array((values.astype(np.float32, copy=False), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix


def rows_of(matrix: Matrix) -> Int64s:
    """Return the row of each stored entry."""
    rows: Int64s = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return rows


def row_positions(matrix: Matrix) -> tuple[Int64s, Int64s]:
    """Return the row of each stored entry, and its position within the row."""
    lengths = np.diff(matrix.indptr)
    return rows_of(matrix), spans(np.zeros_like(lengths), lengths)
