"""What makes a table misleading though every row can be read: duplicates, runs, baskets, one id with too many rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adrec.data.spans import Int64s

if TYPE_CHECKING:
    from adrec.data.dataset import Dataset

MANY = 0.05  # a share of the interactions that changes what metrics mean
IN_BASKETS = 0.2
LARGE, TIMES_MEAN = 0.05, 50  # an id stands out with this share of all rows, and so many times the mean


@dataclass(frozen=True)
class Oddities:
    """Shares of the interactions of a data set.

    Attributes:
        exact: interactions whose user, item and time are those of another one.
        consecutive: interactions with the item of the interaction before.
        in_baskets: interactions at the same time as another one of their user.
        basket_size: the mean number of interactions of these baskets; 0 without any.
        largest: for ``user`` and ``item``, the id with the most interactions, and their share.
    """

    exact: float
    consecutive: float
    in_baskets: float
    basket_size: float
    largest: dict[str, tuple[Any, float]]

    def sentences(
        self, duplicates: str, split: str, seen: str, num_ids: dict[str, int], *, weighed: bool = False
    ) -> Iterator[str]:
        """Yield what is likely to mislead, with a remedy, one sentence each.

        Args:
            duplicates: the option ``duplicates`` that the data was prepared with.
            split: name of the split.
            seen: whether seen items are kept or left out.
            num_ids: the number of users and of items, ``user`` and ``item``.
            weighed: whether events have weights, so that views and purchases are known.
        """
        if self.exact >= MANY and duplicates == "all":
            yield (
                f"{self.exact:.1%} of the interactions have the user, item and time of another one, as exports that "
                "overlap do: --duplicates exact keeps one of each."
            )
        elif self.consecutive >= MANY and duplicates in ("all", "exact") and not weighed:
            which = "which any model predicts" if seen == "keep" else "which are missed, as seen items are left out"
            yield (
                f"{self.consecutive:.1%} of the interactions repeat the item before (a view, then a cart, then a "
                f"purchase?), {which}: --duplicates consecutive makes each run one."
            )
        if self.in_baskets >= IN_BASKETS and split == "leave-one-out":
            yield (
                f"{self.in_baskets:.1%} of the interactions are in baskets, {self.basket_size:.1f} of a user at one "
                "time: leave-one-out predicts the last line of one from the others; --split last-basket holds out "
                "whole baskets."
            )
        for role, (name, share) in self.largest.items():
            if share >= max(LARGE, TIMES_MEAN / num_ids[role]):
                yield (
                    f"{role} {name!r} has {share:.1%} of all interactions: is it one {role}, or a stand-in such as "
                    "'guest'? Leave its rows out if it is."
                )


def oddities(dataset: Dataset) -> Oddities:
    """Return the shares of interactions that are likely to mislead."""
    lengths = np.diff(dataset.offsets)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    items, times = np.asarray(dataset.items), np.asarray(dataset.times)
    same_user = owners[1:] == owners[:-1]
    together = same_user & (times[1:] == times[:-1])
    in_basket = np.append(together, False) | np.append(False, together)
    baskets = int((in_basket & ~np.append(False, together)).sum())
    number = max(dataset.num_interactions, 1)
    return Oddities(
        exact=_exact(owners[in_basket], items[in_basket], times[in_basket]) / number,
        consecutive=int((same_user & (items[1:] == items[:-1])).sum()) / number,
        in_baskets=int(in_basket.sum()) / number,
        basket_size=int(in_basket.sum()) / baskets if baskets else 0.0,
        largest={
            "user": (_plain(dataset.users.ids[int(lengths.argmax())]), int(lengths.max()) / number),
            "item": (
                _plain(dataset.catalogue.ids[int(dataset.popularity[1:].argmax())]),
                int(dataset.popularity[1:].max()) / number,
            ),
        },
    )


def _exact(owners: Int64s, items: np.ndarray[Any, Any], times: np.ndarray[Any, Any]) -> int:
    """Return how many interactions repeat the user, item and time of one before."""
    order = np.lexsort((items, times, owners))
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for values in (owners, items, times):
        same &= values[order][1:] == values[order][:-1]
    return int(same.sum())


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else int(value)
