"""Why items are recommended, as columns of a table: ``because_1``, ``change_1``, ``because_2`` and so on."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec.inference.engine import Engine
from adrec.inference.scorer import Histories, Top
from adrec.utils.errors import ConfigError

MOST = 20  # items of the history that are named


def check_explain(explain: Any) -> None:
    """Raise :class:`ConfigError` where ``explain`` is not a whole number of items that can be named."""
    if isinstance(explain, bool) or not isinstance(explain, int | np.integer) or not 0 <= explain <= MOST:
        raise ConfigError(
            f"explain, the number of items of the history that are named, is from 0 to {MOST}; it is {explain!r}."
        )


def reason_columns(
    engine: Engine, histories: Histories, best: Top, popular: NDArray[np.bool_], most: int
) -> list[pl.Series]:
    """Return the columns for the real items of ``best`` [m, k], row by row: null where there is no such reason.

    Args:
        engine: of the model.
        histories: the history of each row.
        best: the recommended items.
        popular: which rows are the most popular items, which have no reasons, bool [m].
        most: the number of items of the history that are named for each recommended item.
    """
    known = histories.known(engine.num_items)
    items: list[list[Any]] = [[] for _ in range(most)]
    changes: list[list[float | None]] = [[] for _ in range(most)]
    for row, numbers in enumerate(best.items):
        own = [engine.item_of(int(number)) for number in numbers if number]
        history = np.asarray(known.items[known.starts[row] : known.ends[row]]).astype(np.int64)
        found = [[]] * len(own) if popular[row] else engine.reasons(history, own, most)
        for reasons in found:
            for at in range(most):
                items[at].append(reasons[at].item if at < len(reasons) else None)
                changes[at].append(reasons[at].change if at < len(reasons) else None)
    dtype = engine.dataset.catalogue.ids.dtype
    columns = []
    for at in range(most):
        columns.append(pl.Series(f"because_{at + 1}", items[at], dtype=dtype))
        columns.append(pl.Series(f"change_{at + 1}", changes[at], dtype=pl.Float64))
    return columns
