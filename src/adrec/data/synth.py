"""Synthetic interactions of any number, from a process whose best recommender is known.

A user's next item is, with fixed probabilities,

- one of the user's last items again (``repeats``),
- one of the :data:`SUCCESSORS` of the item before (``markov``; an item's successors and their weights are fixed), or
- drawn by popularity, which follows Zipf's law.

Items change their places in the order of popularity with time (``drift``). Interactions come in sessions: minutes apart
within one, days apart between two. The first item of a session is not a successor.

As the probability of every item is known at each step, so is the best ranking, and its NDCG: no recommender can be
expected to be better than :attr:`Synthetic.best` on the last interaction of each user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec.config.parsing import require
from adrec.data.spans import Int64s
from adrec.utils.files import write_json
from adrec.utils.folders import atomic_folder
from adrec.utils.tables import write_parquet

SUCCESSORS = np.array([0.5, 0.25, 0.15, 0.1])  # the weights of the successors of an item
RECENT = 5  # items of a user that are repeated
PERIODS = 10  # of the time, in each of which popularity is constant
START, DAYS = 1_700_000_000, 300  # the first second, and the days
SESSION, WITHIN, BETWEEN = 0.25, 300.0, 5 * 86_400.0  # share of steps that begin a session; mean seconds apart
AT_ONCE = 50_000  # users: bounds the memory
CUTOFFS = (10, 20)


@dataclass(frozen=True)
class Process:
    """The process that interactions are drawn from.

    Attributes:
        users: the number of users.
        items: V, the number of items.
        interactions: the number of interactions; each user has three at least.
        repeats: the probability that an item is one of the user's last :data:`RECENT` ones, in 0..1.
        markov: the probability, within a session, that it is a successor of the item before, in 0..1.
        exponent: of Zipf's law.
        drift: the share of items that change their popularity from each of :data:`PERIODS` periods to the next.
        seed: of all draws.
    """

    users: int
    items: int
    interactions: int
    repeats: float = 0.1
    markov: float = 0.5
    exponent: float = 1.0
    drift: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.users >= 1, f"users must be at least 1; it is {self.users}.")
        require(self.items >= 10, f"items must be at least 10; it is {self.items}.")
        require(
            self.interactions >= 3 * self.users,
            f"interactions must be at least three for each user; {self.interactions:,} are too few for "
            f"{self.users:,} users.",
        )
        for name in ("repeats", "markov", "drift"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is a share, from 0 to 1; it is {value}.")
        total = self.repeats + self.markov
        require(total <= 1, f"repeats and markov are shares of the same steps; together they are {total}, above 1.")
        require(self.exponent >= 0, f"exponent must be 0 or more; it is {self.exponent}.")

    @cached_property
    def zipf(self) -> NDArray[np.float64]:
        """The probability of each place in the order of popularity, [V]."""
        weights = np.arange(1, self.items + 1, dtype=np.float64) ** -self.exponent
        found: NDArray[np.float64] = weights / weights.sum()
        return found

    @cached_property
    def orders(self) -> NDArray[np.int32]:
        """The item at each place in the order of popularity, by period, [periods, V]."""
        rng = np.random.default_rng([self.seed, 0])
        order = rng.permutation(self.items).astype(np.int32)
        found = [order]
        for _ in range(PERIODS - 1):
            order = order.copy()
            moved = np.flatnonzero(rng.random(self.items) < self.drift)
            order[moved] = order[rng.permutation(moved)]
            found.append(order)
        return np.stack(found)

    @cached_property
    def places(self) -> NDArray[np.int32]:
        """The place of each item in the order of popularity, by period, [periods, V]."""
        found = np.empty_like(self.orders)
        for place, order in zip(found, self.orders, strict=True):
            place[order] = np.arange(self.items, dtype=np.int32)
        return found

    @cached_property
    def successors(self) -> NDArray[np.int32]:
        """The successors of each item, [V, successors]: drawn by the first period's popularity."""
        rng = np.random.default_rng([self.seed, 1])
        drawn = self.popular(rng.random((self.items, len(SUCCESSORS))), np.zeros(1, dtype=np.int64))
        return drawn.astype(np.int32)

    def popular(self, u: NDArray[np.float64], periods: Int64s) -> Int64s:
        """Return items drawn by popularity in some ``periods`` [n], from uniform numbers ``u`` [n, ..]."""
        places = np.minimum(np.searchsorted(self._cumulative, u), self.items - 1)
        found: Int64s = self.orders[periods.reshape(-1, *(1,) * (u.ndim - 1)), places].astype(np.int64)
        return found

    @cached_property
    def _cumulative(self) -> NDArray[np.float64]:
        return np.cumsum(self.zipf)


@dataclass(frozen=True)
class Synthetic:
    """What was written.

    Attributes:
        process: where interactions come from.
        best: the expected NDCG@k and HR@k of the best ranking of each user's last interaction, in 0..1, with all items
            ranked, those of the history too.
        shards: the number of files.
        items_met: the number of items with interactions.
    """

    process: Process
    best: dict[str, float]
    shards: int
    items_met: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self.process), "best": self.best, "shards": self.shards, "items_met": self.items_met}


def synthesise(process: Process, out: Path, *, on_shard: Callable[[int], None] = lambda users: None) -> Synthetic:
    """Write interactions as Parquet shards of ``user_id``, ``item_id`` and ``timestamp`` (seconds), users in order.

    Memory is that of a shard, and some bytes a user. ``on_shard`` is called after each shard with its number of users.
    The folder's ``_synth.json`` has the process and the best metrics.
    """
    totals = dict.fromkeys((f"{name}@{k}" for name in ("hr", "ndcg") for k in CUTOFFS), 0.0)
    met = np.zeros(process.items, dtype=bool)
    with atomic_folder(out) as folder:
        firsts = range(0, process.users, AT_ONCE)
        for shard, first in enumerate(firsts):
            count = min(AT_ONCE, process.users - first)
            table, ranks = _drawn(process, first, count)
            met[table["item_id"].to_numpy()] = True
            write_parquet(table, folder / f"part-{shard:05}.parquet")
            for k in CUTOFFS:
                hit = ranks < k
                totals[f"hr@{k}"] += float(hit.sum())
                totals[f"ndcg@{k}"] += float((hit / np.log2(ranks + 2)).sum())
            on_shard(count)
        best = {name: total / process.users for name, total in totals.items()}
        found = Synthetic(process, best, len(firsts), int(met.sum()))
        write_json(folder / "_synth.json", found.to_dict())
    return found


def _drawn(process: Process, first: int, count: int) -> tuple[pl.DataFrame, Int64s]:
    """Return the interactions of some users, and the rank of each user's last item in the best ranking."""
    rng = np.random.default_rng([process.seed, 2, first])
    lengths = _lengths(process, first, count)
    longest = int(lengths.max())
    items = np.zeros((count, longest), dtype=np.int64)
    begins = rng.random((count, longest)) < SESSION
    begins[:, 0] = True
    times = _times(begins, lengths, rng)  # seconds since the first one, [count, longest]
    periods = np.minimum((times / (DAYS * 86_400.0) * PERIODS).astype(np.int64), PERIODS - 1)
    last = np.zeros(count, dtype=np.int64)
    for step in range(longest):
        active = np.flatnonzero(lengths > step)
        items[active, step] = _step(process, items[active], step, begins[active, step], periods[active, step], rng)
        last[active] = step
    users = np.repeat(np.arange(first, first + count), lengths)
    real = np.arange(longest) < lengths[:, None]
    table = pl.DataFrame({"user_id": users, "item_id": items[real], "timestamp": START + times[real].astype(np.int64)})
    rows = np.arange(count)
    return table, best_ranks(process, items, last, begins[rows, last], periods[rows, last])


def _lengths(process: Process, first: int, count: int) -> Int64s:
    """Return the number of interactions of some users: geometric, three at least, in all as many as are asked for."""
    more = process.interactions - 3 * process.users
    rng = np.random.default_rng([process.seed, 3])
    # The same draws for every block, so that all blocks together have the number of interactions that is asked for.
    weights = rng.standard_exponential(process.users)
    edges = np.floor(np.cumsum(weights) / weights.sum() * more + 0.5).astype(np.int64)
    edges[-1] = more
    own: Int64s = 3 + np.diff(edges, prepend=0)[first : first + count]
    return own


def _times(begins: NDArray[np.bool_], lengths: Int64s, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the seconds of each step since the first moment, within :data:`DAYS`, [users, steps]."""
    gaps = rng.standard_exponential(begins.shape) * np.where(begins, BETWEEN, WITHIN) + 1
    times = np.cumsum(gaps, axis=1)
    end = times[np.arange(len(times)), lengths - 1][:, None]
    span = DAYS * 86_400.0
    shrunk = np.where(end > span, times * (span / end), times)
    late = np.maximum(0, span - shrunk[np.arange(len(times)), lengths - 1])[:, None] * rng.random((len(times), 1))
    found: NDArray[np.float64] = shrunk + late
    return found


def _shares(process: Process, begins: NDArray[np.bool_], step: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probabilities of a repeat and of a successor at a step, [n] each."""
    repeats = np.where(np.asarray(step) > 0, process.repeats, 0.0) + np.zeros(len(begins))
    return repeats, np.where(begins, 0.0, process.markov)


def _step(
    process: Process, items: Int64s, step: int, begins: NDArray[np.bool_], periods: Int64s, rng: np.random.Generator
) -> Int64s:
    """Return the next item of some users, from their ``items`` so far [n, steps]."""
    n = len(items)
    repeats, markov = _shares(process, begins, step)
    u = rng.random(n)
    found = process.popular(rng.random(n), periods)
    if step == 0:
        return found
    again = items[np.arange(n), step - 1 - (rng.random(n) * min(step, RECENT)).astype(np.int64)]
    which = np.searchsorted(np.cumsum(SUCCESSORS)[:-1], rng.random(n))
    follows = process.successors[items[:, step - 1], which].astype(np.int64)
    return np.where(u < repeats, again, np.where(u < repeats + markov, follows, found))


def best_ranks(process: Process, items: Int64s, last: Int64s, begins: NDArray[np.bool_], periods: Int64s) -> Int64s:
    """Return the rank, from 0, of each user's last item in the order of the true probabilities; ties count against it.

    Args:
        process: where the items come from.
        items: the items of each user, [n, steps].
        last: the step of the last one, [n].
        begins: whether it begins a session, [n].
        periods: its period, [n].
    """
    rows = np.arange(len(items))
    target = items[rows, last]
    repeats, markov = _shares(process, begins, last)
    back = np.arange(1, RECENT + 1)
    recent = np.where(
        back <= last[:, None], items[rows[:, None], np.maximum(last[:, None] - back, 0)], -1
    )  # [n, RECENT]
    counts = np.maximum(np.minimum(last, RECENT), 1)
    follows = process.successors[items[rows, np.maximum(last - 1, 0)]].astype(np.int64)
    special = np.concatenate([recent, np.where(begins[:, None], -1, follows)], axis=1)  # [n, special]
    weights = np.concatenate(
        [
            np.where(recent >= 0, (repeats / counts)[:, None], 0.0),
            np.where(begins[:, None], 0.0, markov[:, None] * SUCCESSORS),
        ],
        axis=1,
    )
    rest = (1 - repeats - markov)[:, None]
    places = process.places[periods[:, None], np.maximum(special, 0)]  # [n, special]
    alike = special[:, :, None] == special[:, None, :]
    p = (alike * weights[:, None, :]).sum(2) + rest * process.zipf[places]  # of each special item
    first = (special >= 0) & ~np.tril(alike, -1).any(2)
    own_place = process.places[periods, target]
    own = (np.where(special == target[:, None], weights, 0.0)).sum(1) + rest[:, 0] * process.zipf[own_place]
    above = (first & (special != target[:, None]) & (p >= own[:, None])).sum(1)
    # Items that are drawn by popularity alone: those in places up to the last whose probability is as high.
    threshold = np.divide(own, rest[:, 0], out=np.where(own > 0, np.inf, 0.0), where=rest[:, 0] > 0)
    popular = np.searchsorted(-process.zipf, -threshold * (1 - 1e-12), side="right")
    among = (first & (places < popular[:, None])).sum(1)
    itself = (own_place < popular) & ~(special == target[:, None]).any(1)
    found: Int64s = above + popular - among - itself
    return found
