"""Similar items: the nearest ones by the cosine of their vectors."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from adrec.data.dataset import Dataset
from adrec.inference.notes import Ids, check_k, examples, missing
from adrec.inference.scorer import BATCH_SIZE
from adrec.inference.scores import Masked, best_items
from adrec.nn.scores import InnerProducts
from adrec.utils.errors import DataError


def similar_items(dataset: Dataset, embedding: NDArray[np.float32], items: Ids, k: int = 10) -> pl.DataFrame:
    """Return the k items nearest to each of ``items`` by the cosine of their embeddings [V + 1, D].

    The table has ``item``, ``similar_item``, ``score`` (the cosine) and ``rank`` (from 1). Raises
    :class:`DataError` for an item that is not in the catalogue.
    """
    check_k(k)
    catalogue = dataset.catalogue
    numbers = catalogue.encode(items) + 1
    unknown = missing(items, np.where(numbers < len(embedding), numbers - 1, -1))
    if unknown:
        raise DataError(f"unknown items: {examples(unknown)}; name items of the catalogue that the model knows.")
    unit = torch.nn.functional.normalize(torch.from_numpy(embedding), dim=1)
    width = min(k, len(embedding) - 2)
    tables = []
    for first in range(0, max(1, len(numbers)), BATCH_SIZE):
        own = numbers[first : first + BATCH_SIZE]
        itself = Masked.of(np.arange(len(own)), own)
        best, cosines = best_items(InnerProducts(unit[own], unit), width, len(unit) - 1, itself)  # [b, width]
        tables.append(
            pl.DataFrame(
                {
                    dataset.info.named("item"): catalogue.decode(np.repeat(own - 1, width)),
                    "similar_item": catalogue.decode(best.flatten().numpy() - 1),
                    "score": cosines.flatten().numpy(),
                    "rank": np.tile(np.arange(1, width + 1), len(own)),
                }
            )
        )
    return pl.concat(tables)
