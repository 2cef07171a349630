"""Lists with at most some items of each category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adrec.data.vocab import Vocabulary
from adrec.inference.scorer import Choice, Top
from adrec.utils.errors import ConfigError

FEWEST, TIMES = 100, 5  # candidates of a list of k at first: at least FEWEST, and TIMES k


@dataclass(frozen=True)
class Capped:
    """Chooses the best items of which at most ``most`` are of one category.

    Attributes:
        categories: the category of each item number, int64 [V + 1]; 0 is none, which is not limited.
        most: the largest number of items of a category.
    """

    categories: NDArray[np.int64]
    most: int

    def candidates(self, k: int) -> int:
        """Return the number of best items from which ``k`` are chosen at first."""
        return max(FEWEST, TIMES * k)

    def __call__(self, top: Top, k: int) -> Top:
        """Return the best of the items ``top`` [b, C] that the limit allows, [b, k]."""
        category = self.categories[top.items]  # [b, C]
        order = np.argsort(category, axis=1, kind="stable")
        grouped = np.take_along_axis(category, order, 1)
        begins = np.ones_like(grouped, dtype=bool)
        begins[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
        places = np.arange(grouped.shape[1])
        before = np.empty_like(grouped)  # better items of the same category
        np.put_along_axis(before, order, places - np.maximum.accumulate(np.where(begins, places, 0), axis=1), 1)
        allowed = ((before < self.most) | (category == 0)) & (top.items > 0)
        chosen = np.argsort(~allowed, axis=1, kind="stable")[:, :k]
        kept = np.take_along_axis(allowed, chosen, 1)
        items, scores, confidence = (np.take_along_axis(part, chosen, 1) for part in top)
        return Top(np.where(kept, items, 0), np.where(kept, scores, -np.inf), np.where(kept, confidence, np.nan))


@dataclass(frozen=True)
class Chain:
    """Choices one after another."""

    choices: Sequence[Choice]

    def candidates(self, k: int) -> int:
        """Return the number of best items from which ``k`` are chosen."""
        for choice in reversed(self.choices):
            k = choice.candidates(k)
        return k

    def __call__(self, top: Top, k: int) -> Top:
        """Return k of the items ``top`` [b, C], [b, k]."""
        for at, choice in enumerate(self.choices):
            top = choice(top, Chain(self.choices[at + 1 :]).candidates(k))
        return top


def capped(catalogue: Vocabulary, most: int | None, categories: Mapping[Any, Any] | None) -> Capped | None:
    """Return the choice for at most ``most`` items of each of the ``categories`` of ids; None without a limit.

    Raises :class:`ConfigError` if one is given without the other, for a number below 1, or if no item is known.
    """
    if most is None and categories is None:
        return None
    if most is None or categories is None:
        raise ConfigError("per_category and categories go together: how many of each, and which item is of which.")
    if isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 1:
        raise ConfigError(f"per_category is a whole number of at least 1; it is {most!r}.")
    filled = {item: category for item, category in categories.items() if category is not None and category == category}  # noqa: PLR0124 - NaN
    names = {category: number for number, category in enumerate(dict.fromkeys(filled.values()), start=1)}
    items = catalogue.encode(list(filled)) + 1
    numbers = np.zeros(len(catalogue) + 1, dtype=np.int64)
    numbers[items] = [names[category] for category in filled.values()]
    numbers[0] = 0  # of items that are unknown
    if not numbers.any():
        raise ConfigError("no item of categories is in the catalogue; give the categories of its items.")
    return Capped(numbers, int(most))
