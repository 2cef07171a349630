"""Statistics of a prepared data set, and warnings on likely problems."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adrec.config.adrec import ModelConfig
from adrec.data.dataset import Dataset
from adrec.data.moments import PER_SECOND, written
from adrec.data.oddities import IN_BASKETS, Oddities, oddities
from adrec.data.spans import spans
from adrec.data.split import Split, make_split
from adrec.utils.text import counted

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
MANY_REPEATS = 0.01  # above it, leaving seen items out misses much of what is held out
MANY_NEW = 0.01  # a share of the test items
LARGE_CATALOGUE = 1_000_000  # scores of 512 users over this many items take 2 GB
WINDOW = ModelConfig().max_length
FAR, FEW = 5, 0.1  # times look wrong if they are a tenth or fewer, beyond a gap of 5 spans of the others
FEW_USERS = 300  # below it, an interval of HR@10 near 0.1 is wider than 0.07


@dataclass(frozen=True)
class Facts:
    """Statistics of a data set.

    Attributes:
        name: name of the data set.
        users: number of users with at least one interaction.
        items: number of items in the catalogue.
        interactions: number of interactions, n.
        density: interactions over users times items.
        history_length: history length of users, by quantile.
        popularity: interactions of items, by quantile.
        top_share: share of all interactions that are with the most popular hundredth of the items.
        time_unit: unit of the times.
        first: the earliest time, as a date if the unit is known.
        last: the latest time.
        far_times: number of interactions so far from all others in time that their times look wrong.
        usual: the earliest and the latest time of the others.
        same_time: share of a user's consecutive interactions at the same time, whose order is that of the table.
        repeats: share of interactions with an item that the user had before.
        seen: whether the items of a history are recommended and ranked: ``keep`` or ``leave-out``.
        oddities: shares of interactions that are likely to mislead, such as exact duplicates.
        duplicates: which repeated interactions the preparation kept.
        returning: share of interactions that return to an item (:func:`adrec.data.seen.returning`).
        single: number of users with one interaction, who can be neither trained on nor evaluated.
        never: number of items of an older vocabulary that have no interaction.
        split: name of the split.
        trained: the share of interactions that train.
        held_out: for each part, interactions, users, cold items (never in training) and cold users (with no training).
        max_length: L, the window that the next figures are about.
        window_used: the mean share of the L positions that a training history fills.
        beyond_window: the share of training interactions that are older than the last L + 1 of their user.
    """

    name: str
    users: int
    items: int
    interactions: int
    density: float
    history_length: dict[str, float]
    popularity: dict[str, float]
    top_share: float
    time_unit: str
    first: str
    last: str
    far_times: int
    usual: tuple[str, str]
    same_time: float
    repeats: float
    seen: str
    returning: float
    oddities: Oddities
    duplicates: str
    single: int
    never: int
    split: str
    trained: float
    held_out: dict[str, dict[str, int]]
    max_length: int
    window_used: float
    beyond_window: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def inspect(dataset: Dataset, max_length: int = WINDOW) -> Facts:
    """Return the statistics of a data set.

    Args:
        dataset: the prepared data set.
        max_length: L, the positions that a model sees; the default preset's by default.
    """
    split = make_split(dataset)
    all_lengths = np.diff(dataset.offsets)
    lengths = all_lengths[all_lengths > 0]
    counts = dataset.popularity[1:]
    train_lengths = split.train_ends - np.asarray(dataset.offsets[:-1])
    inputs = train_lengths[train_lengths >= 2] - 1
    most = np.sort(counts)[::-1][: max(1, len(counts) // 100)]
    times, unit = np.sort(dataset.times), dataset.info.time_unit
    usual = _usual(times) if unit in PER_SECOND else times
    return Facts(
        name=dataset.info.name,
        users=len(lengths),
        items=dataset.num_items,
        interactions=dataset.num_interactions,
        density=dataset.num_interactions / (len(lengths) * dataset.num_items),
        history_length=quantiles(lengths),
        popularity=quantiles(counts),
        top_share=float(most.sum() / counts.sum()),
        time_unit=unit,
        first=_moment(times[0].item(), unit),
        last=_moment(times[-1].item(), unit),
        far_times=len(times) - len(usual),
        usual=(_moment(usual[0].item(), unit), _moment(usual[-1].item(), unit)),
        same_time=_same_time(dataset),
        repeats=_repeats(dataset),
        seen=dataset.info.seen,
        returning=dataset.info.returning,
        oddities=oddities(dataset),
        duplicates=dataset.info.preparation.get("duplicates", "all"),
        single=int((lengths == 1).sum()),
        never=int((counts == 0).sum()),
        split=split.name,
        trained=float(train_lengths.sum() / dataset.num_interactions),
        held_out=_held_out(dataset, split, train_lengths),
        max_length=max_length,
        window_used=float(np.minimum(inputs, max_length).mean() / max_length) if len(inputs) else 0.0,
        beyond_window=float(np.maximum(train_lengths - max_length - 1, 0).sum() / max(train_lengths.sum(), 1)),
    )


def quantiles(values: NDArray[np.integer]) -> dict[str, float]:
    """Return the mean and :data:`QUANTILES` of ``values``: ``min``, ``25 %`` .. ``max``."""
    names = ["min", *(f"{share * 100:g} %" for share in QUANTILES[1:-1]), "max"]
    found = np.quantile(values, QUANTILES, method="inverted_cdf").tolist()
    return {"mean": float(values.mean()), **dict(zip(names, map(float, found), strict=True))}


def _moment(moment: float, unit: str) -> str:
    return written(moment if unit not in PER_SECOND else int(moment), unit)


def _usual(times: NDArray[Any]) -> NDArray[Any]:
    """Return sorted times without outliers: the few at both ends that a gap far longer than the rest cuts off.

    The rest grows from the narrowest core of nine tenths, so that outliers at one end do not hide those at the other.
    """
    core = math.ceil((1 - FEW) * len(times))
    first = int(np.argmin(times[core - 1 :] - times[: len(times) - core + 1]))
    last, grew, gaps = first + core - 1, True, np.diff(times)
    while grew:
        far = FAR * (times[last] - times[first])
        below, above = np.flatnonzero(gaps[:first] > far), np.flatnonzero(gaps[last:] > far)
        reached = int(below[-1]) + 1 if len(below) else 0, last + int(above[0]) if len(above) else len(times) - 1
        grew, (first, last) = reached != (first, last), reached
    return times[first : last + 1] if times[last] > times[first] else times


def _owners(dataset: Dataset) -> NDArray[np.int64]:
    return np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))


def _same_time(dataset: Dataset) -> float:
    owners, times = _owners(dataset), np.asarray(dataset.times)
    consecutive = owners[1:] == owners[:-1]
    return float((times[1:] == times[:-1])[consecutive].mean()) if consecutive.any() else 0.0


def _repeats(dataset: Dataset) -> float:
    pairs = _owners(dataset) * (dataset.num_items + 1) + dataset.items
    return 1 - len(np.unique(pairs)) / len(pairs)


def _held_out(dataset: Dataset, split: Split, train_lengths: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    trained = dataset.items[spans(np.asarray(dataset.offsets[:-1]), train_lengths)]
    known = np.zeros(dataset.num_items + 1, dtype=bool)
    known[trained] = True
    parts = {}
    for part in ("validation", "test"):
        targets = split.targets(part)
        users = np.unique(targets.users)
        parts[part] = {
            "interactions": len(targets.positions),
            "users": len(users),
            "cold_items": int((~known[dataset.items[targets.positions]]).sum()),
            "cold_users": int((train_lengths[users] == 0).sum()),
        }
    return parts


def warnings(facts: Facts) -> Iterator[str]:
    """Yield likely problems with a remedy, one sentence each."""
    if facts.seen == "leave-out" and facts.repeats > MANY_REPEATS:
        yield (
            f"{facts.repeats:.1%} of the interactions repeat an item of the same user, and seen items are left out of "
            "recommendations and rankings: prepare with --seen keep, or with --duplicates first."
        )
    if facts.single:
        yield (
            f"{counted(facts.single, 'user')} ({facts.single / facts.users:.1%}) have one interaction: nothing follows "
            "it, so they are neither learned from nor evaluated."
        )
    if facts.items > LARGE_CATALOGUE:
        yield (
            f"the catalogue of {facts.items:,} items is larger than a full softmax bears on an ordinary machine; "
            "--min-item leaves out what is rare."
        )
    if facts.far_times:
        yield (
            f"{counted(facts.far_times, 'interaction is', 'interactions are')} far from all others in time: those run "
            f"from {facts.usual[0]} to {facts.usual[1]}, the data from {facts.first} to {facts.last}. Are the times "
            "right? They decide what comes first and last in a history, and what a split by time holds out."
        )
    ids = {"user": facts.users, "item": facts.items}
    yield from facts.oddities.sentences(facts.duplicates, facts.split, facts.seen, ids)
    if facts.same_time > 0.5 and facts.oddities.in_baskets < IN_BASKETS:
        yield (
            f"{facts.same_time:.1%} of consecutive interactions are at the same time: their order is that of the rows; "
            "is the time column precise?"
        )
    test = facts.held_out["test"]
    if facts.split != "none" and test["users"] < FEW_USERS:
        yield f"{counted(test['users'], 'test user')}: intervals of metrics will be wide."
    if test["cold_items"] > MANY_NEW * max(test["interactions"], 1):
        share = test["cold_items"] / test["interactions"]
        yield f"{share:.1%} of the test items never appear in training: no model of ids can rank them well."
    if facts.beyond_window > 0.2:
        yield (
            f"{facts.beyond_window:.1%} of the training interactions are beyond the last {facts.max_length + 1} of "
            "their user, where the model does not look: a larger model.max_length may pay."
        )
    if facts.never:
        yield f"{counted(facts.never, 'item')} of the vocabulary without any interaction, kept so that numbers stay."
