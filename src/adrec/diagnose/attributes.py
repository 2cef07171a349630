"""Colours of items by the most frequent values of an attribute, consistent over all pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adrec.utils.errors import DataError

# Okabe and Ito (2008), which the colour-blind can tell apart; black and a brown stand for the yellow, which white
# paper swallows.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1a1a1a", "#8a5a2b")
ON_DARK = ("#3d9be0", "#f0743e", "#20c997", "#e39bc4", "#e69f00", "#8fd3f7", "#f2f2f2", "#f0e442")
GREY, GREY_ON_DARK = "#9aa3af", "#6b7280"
NOISE, NOISE_ON_DARK = "#5b6675", "#a0aec0"  # the Gaussian reference


@dataclass(frozen=True)
class Attribute:
    """An attribute of the items of a space.

    Attributes:
        name: of the attribute.
        values: one for each row; None where it is not known.
    """

    name: str
    values: Sequence[str | None]


@dataclass(frozen=True, eq=False)
class Colouring:
    """An attribute over several spaces.

    Attributes:
        name: name of the attribute.
        values: the distinct values, most frequent first: the first eight have a colour.
        rows: for each space, the index in ``values`` of each row's value, [n]; -1 if unknown.
    """

    name: str
    values: tuple[str, ...]
    rows: tuple[NDArray[np.int64], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The values that have a colour."""
        return self.values[: len(PALETTE)]

    @property
    def rest(self) -> str:
        """The legend label of grey; empty if nothing is grey."""
        other, unknown = len(self.values) > len(PALETTE), any((rows < 0).any() for rows in self.rows)
        return " or ".join(("other",) * other + ("unknown",) * unknown)


def colouring(attribute: Sequence[Attribute], counts: Sequence[int]) -> Colouring:
    """Return the values of an attribute, given for each space, by their frequency in all of them.

    Raises :class:`DataError` where it has not a value for each of a space's ``counts`` rows.
    """
    if [len(each.values) for each in attribute] != list(counts):
        raise DataError(
            f"the attribute has {[len(each.values) for each in attribute]} values for spaces of {list(counts)} items; "
            "it needs one for each item of each space, None where it is not known."
        )
    frequency = Counter(value for each in attribute for value in each.values if value is not None)
    values = sorted(frequency, key=lambda value: (-frequency[value], value))
    index = {value: k for k, value in enumerate(values)}
    rows = [np.array([-1 if value is None else index[value] for value in each.values]) for each in attribute]
    return Colouring(attribute[0].name, tuple(values), tuple(rows))
