"""Shared parts of the counting baselines: sparse history matrices, their conversion to and from tensors, and scores.

The matrices are SciPy's and stay on the CPU, whatever device is requested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s, spans
from adrec.data.sparse import Matrix, csr, row_positions
from adrec.data.split import Split
from adrec.models.base import training_sequences

Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class SparseScores:
    """Sparse scores added to a background, which is 0 if none is given.

    Attributes:
        matrix: the sparse part, [B, V + 1] by item number.
        background: the weight of the background in each history, [B, 1], and its score of each item, [V + 1].
    """

    matrix: Matrix
    background: tuple[Tensor, Tensor] | None = None

    @property
    def num_users(self) -> int:
        """B."""
        return int(self.matrix.shape[0])

    @property
    def device(self) -> torch.device:
        """The device of the scores: the CPU."""
        return torch.device("cpu")

    @cached_property
    def _columns(self) -> Matrix:
        return self.matrix.tocsc()  # slicing columns is cheap only in this format

    def block(self, items: slice) -> Tensor:
        """Return the scores of some item numbers, [B, n]."""
        block = torch.from_numpy(self._columns[:, items].toarray(order="C"))
        if self.background is not None:
            weights, scores = self.background
            block += weights * scores[items]
        return block

    def of(self, rows: Tensor, items: Tensor) -> Tensor:
        """Return the score of some pairs, [n]: exactly the numbers in their blocks."""
        found = self.matrix[rows.cpu().numpy().copy(), items.cpu().numpy().copy()]  # SciPy sets a flag of its indices
        own = torch.from_numpy(
            np.asarray(found.todense() if sparse.issparse(found) else found, dtype=np.float32).ravel()
        )
        if self.background is not None:
            weights, scores = self.background
            own += weights[rows, 0] * scores[items]
        return own.double()

    def rounding(self) -> Tensor:
        """Return 0 for each history, [B, 1]."""
        return torch.zeros(self.num_users, 1)


def to_tensors(name: str, matrix: Matrix) -> dict[str, Tensor]:
    """Return the parts of a sparse matrix as tensors that :func:`from_tensors` reads."""
    return {
        f"{name}.values": torch.from_numpy(matrix.data),
        f"{name}.columns": torch.from_numpy(matrix.indices.astype(np.int32)),
        f"{name}.ends": torch.from_numpy(matrix.indptr[1:].astype(np.int64)),
    }


def from_tensors(name: str, state: Mapping[str, Tensor], num_columns: int, num_rows: int | None = None) -> Matrix:
    """Return the sparse matrix of :func:`to_tensors`. Raises KeyError or RuntimeError if it is missing or invalid."""
    values, columns, ends = (state[f"{name}.{part}"].cpu().numpy() for part in ("values", "columns", "ends"))
    if num_rows is not None and len(ends) != num_rows:
        raise RuntimeError(f"{name} has {len(ends)} rows where {num_rows} are expected.")
    try:
        offsets = np.concatenate([[0], ends])
        matrix = sparse.csr_array((values, columns, offsets), shape=(len(ends), num_columns))
        matrix.check_format()
    except ValueError as error:
        raise RuntimeError(f"{name} is no sparse matrix of {num_columns} columns: {error}.") from error
    return matrix


def sequence_items(dataset: Dataset, split: Split) -> Matrix:
    """Return the items of each user's training part as ones, sparse [U, V + 1]."""
    items, offsets = training_sequences(dataset, split)
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    matrix = csr(np.ones(len(items)), rows, items, (len(offsets) - 1, split.num_items + 1))
    matrix.data[:] = 1
    return matrix


def last_uses(batch: PackedBatch) -> tuple[Int64s, Int64s, Int64s]:
    """Return the distinct items of each history: (row, item number, interactions since its last occurrence), [n] each.

    They are sorted by row and item number; the last interaction of a history is 0 ago.
    """
    items, lengths = batch.items.cpu().numpy(), batch.lengths
    rows = np.repeat(np.arange(batch.num_users), lengths)
    ages = np.repeat(lengths, lengths) - 1 - spans(np.zeros_like(lengths), lengths)
    keys = rows * (int(items.max()) + 1) + items
    _, from_end = np.unique(keys[::-1], return_index=True)
    last = len(keys) - 1 - from_end
    return rows[last], items[last], ages[last]


def history_matrix(batch: PackedBatch, num_items: int, decay: float = 1.0) -> Matrix:
    """Return the items of each history, sparse [B, V + 1]: ``decay ** a`` for one that was last a interactions ago."""
    rows, items, ages = last_uses(batch)
    return csr(decay**ages, rows, items, (batch.num_users, num_items + 1))


def strongest(matrix: Matrix, n: int) -> Matrix:
    """Return a sparse matrix with only the n largest entries of each row; ties keep the first columns."""
    rows, position = row_positions(matrix)
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    kept = order[position < n]  # rows are sorted, so the k-th entry of each keeps its index
    return csr(matrix.data[kept], rows[kept], matrix.indices[kept], matrix.shape)
