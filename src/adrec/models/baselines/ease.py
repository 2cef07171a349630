"""EASE: the linear model that best reconstructs each item of a sequence from the others, in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adrec.config.base import Settings
from adrec.config.parsing import require
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.models.base import Model
from adrec.models.baselines.sparse import history_matrix, sequence_items
from adrec.nn.scores import Table
from adrec.utils.errors import DataError

MOST_ITEMS = 30_000  # maximum catalogue: fitting holds about three V x V matrices in float64, 20 GiB at this size


@dataclass(frozen=True)
class EASEConfig(Settings):
    """The regularisation of EASE.

    Attributes:
        regularization: lambda, the weight of the L2 penalty.
    """

    regularization: float = 500.0

    def __post_init__(self) -> None:
        require(self.regularization > 0, f"regularization must be above 0; it is {self.regularization}.")


class EASE(Model):
    """Scores item j by ``sum_i B_ij`` over the items i of the history; their order is ignored.

    With X the users' items in training, B minimises ``|X - X B|^2 + lambda |B|^2`` subject to ``B_jj = 0``:
    ``P = (X'X + lambda I)^-1`` and ``B_ij = -P_ij / P_jj``. B is dense, V x V, so the catalogue is
    limited to 30,000 items.
    """

    name = "ease"
    paper = "Steck: Embarrassingly Shallow Autoencoders for Sparse Data (WWW 2019)"
    Config = EASEConfig
    uses_seed = False
    config: EASEConfig

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Solve for the weights. Raises :class:`DataError` if the catalogue is too large for a dense matrix."""
        check_size(split.num_items)
        users = sequence_items(dataset, split)
        gram = torch.from_numpy((users.T @ users).toarray()).double()  # X'X, [V + 1, V + 1]; padding's row is empty
        gram.diagonal().add_(self.config.regularization)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))  # P
        weights = (inverse / -inverse.diagonal()).float()
        weights.fill_diagonal_(0)
        self.restore({"weights": weights}, split.num_items, device)

    def __call__(self, batch: PackedBatch) -> Table:
        """Return the sums of the weights of each history's items."""
        return Table(torch.from_numpy(history_matrix(batch, self.num_items) @ self._weights.numpy()))

    def state(self) -> Mapping[str, Tensor]:
        """Return the weights B, [V + 1, V + 1]."""
        return {"weights": self._weights}

    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        """Load the weights."""
        weights = state["weights"].cpu().contiguous()
        if weights.shape != (num_items + 1, num_items + 1):
            raise RuntimeError(f"the weights are {list(weights.shape)} where {num_items} items are known.")
        self._weights, self.num_items = weights, num_items


def check_size(num_items: int) -> None:
    """Raise :class:`DataError` if the catalogue is too large for a dense V x V solve."""
    if num_items > MOST_ITEMS:
        raise DataError(
            f"EASE solves for a dense matrix of items by items: {num_items:,} items make {8 * num_items**2:,} bytes, "
            f"and it takes three of these; it goes up to {MOST_ITEMS:,} items, so leave out rare ones (adrec prepare "
            "--min-item), or train itemknn."
        )
