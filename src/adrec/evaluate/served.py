"""Evaluation of what a service has shown, by what its users did next.

A list counts if it is the last one that was shown to the user before an interaction. The item of that interaction has
the rank at which the list has it. Where a shadow was asked too, its list is ranked by the same interaction: a paired
comparison. Models among which users were divided by a hash are compared without pairs; models that answered one after
the other are not compared, as their users and days differ.

Times are compared in the unit of the data set: in whole seconds, what follows within the same second does not count.

What was shown influences what users do, so a list that was shown has an advantage over the list of a shadow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from adrec.data.dataset import Dataset
from adrec.data.moments import PER_SECOND
from adrec.data.spans import Int64s
from adrec.evaluate.metrics import BEHIND, Estimate, Float64s, estimates, metric_names, user_values
from adrec.evaluate.significance import Difference, holm_adjusted, paired_difference, unpaired_difference
from adrec.utils.errors import DataError

BEGINNING = b'{"time_ms":'  # of each line


@dataclass
class Lists:
    """The lists of one model that are followed by an interaction.

    Attributes:
        name: the run's name and the beginning of its digest.
        users: the user of each list.
        ranks: the rank of the item of the interaction, from 0; :data:`BEHIND` if the list does not have it.
        lengths: the length of each list.
    """

    name: str
    users: list[int] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def add(self, user: int, items: Sequence[Any], item: Any) -> None:
        """Add a list, and the item of the interaction that follows."""
        self.users.append(user)
        self.ranks.append(items.index(item) if item in items else BEHIND)
        self.lengths.append(len(items))


@dataclass(frozen=True)
class Shown:
    """What was found.

    Attributes:
        num_lists: lists in the log.
        models: the lists of each model that answered, by digest.
        shares: the same of models among which users were divided, by the digests of all of them.
        pairs: (digest of the model that answered, digest of its shadow) to the lists of both, in the same order.
        unknown: lists of users who are not in the data set.
        waiting: lists that no interaction follows, or before which another list of the same user stands.
        damaged: lines that are cut, as after a crash.
        cutoffs: the k of the metrics, up to the longest list.
    """

    num_lists: int
    models: Mapping[str, Lists]
    shares: Mapping[tuple[str, ...], Mapping[str, Lists]]
    pairs: Mapping[tuple[str, str], tuple[Lists, Lists]]
    unknown: int
    waiting: int
    damaged: int
    cutoffs: tuple[int, ...]

    def metrics(self, lists: Lists) -> dict[str, Estimate]:
        """Return the metrics of some lists with 95 % intervals over users."""
        return estimates(metric_names(self.cutoffs), _array(lists.ranks), _array(lists.users))

    def of_shares(self, own: str, other: str) -> tuple[Lists, Lists]:
        """Return the lists of two models among which users were divided."""
        return next((each[own], each[other]) for each in self.shares.values() if own in each and other in each)

    def differences(self) -> dict[tuple[str, str, str], dict[str, Difference]]:
        """Return each metric's difference between two models, by (model, other, how they are compared).

        With a shadow they are ``paired``: the p-values are those of :func:`paired_difference`; two models that answered
        different users are ``unpaired``. The p-values of one comparison are adjusted (Holm).
        """
        names = metric_names(self.cutoffs)
        found = {}
        for (own, other), (mine, theirs) in self.pairs.items():
            values = [user_values(names, _array(each.ranks), _array(each.users)) for each in (mine, theirs)]
            each = {name: paired_difference(values[0][:, at], values[1][:, at]) for at, name in enumerate(names)}
            found[own, other, "paired"] = holm_adjusted(each)
        for among in self.shares.values():
            for (own, mine), (other, theirs) in combinations(among.items(), 2):
                both = set(mine.users) & set(theirs.users)  # the shares were changed
                values = [_values(names, each, both) for each in (mine, theirs)]
                if min(map(len, values)):
                    each = {
                        name: unpaired_difference(values[0][:, at], values[1][:, at]) for at, name in enumerate(names)
                    }
                    found[own, other, "unpaired"] = holm_adjusted(each)
        return found


def _values(names: Sequence[str], lists: Lists, without: set[int]) -> Float64s:
    """Return each user's mean of each metric, [users, metrics], without some users."""
    kept = [at for at, user in enumerate(lists.users) if user not in without]
    if not kept:
        return np.empty((0, len(names)))
    return user_values(names, _array(lists.ranks)[kept], _array(lists.users)[kept])


def _array(values: Sequence[int]) -> Int64s:
    return np.array(values, dtype=np.int64)


def evaluate_served(log: Path, dataset: Dataset, cutoffs: Sequence[int]) -> Shown:
    """Evaluate the lists of a log by the interactions of ``dataset`` that follow them.

    Args:
        log: what ``adrec serve --log`` wrote.
        dataset: a data set with the interactions since, such as one of ``adrec prepare --events``.
        cutoffs: the k of the metrics; those beyond the longest list are left out.

    Raises:
        DataError: for a damaged log, data without times, or if no interaction follows a list.
    """
    unit = PER_SECOND.get(dataset.info.time_unit)
    if unit is None:
        raise DataError(f"the times of {dataset.info.name} only give an order, so nothing says what follows a list.")
    lines, damaged = _read(log)
    users = {str(each): at for at, each in enumerate(dataset.users.ids.to_list())}
    numbers = {str(each): at for at, each in enumerate(dataset.catalogue.ids.to_list(), start=1)}
    models: dict[str, Lists] = {}
    pairs: dict[tuple[str, str], tuple[Lists, Lists]] = {}
    shares: dict[tuple[str, ...], dict[str, Lists]] = {}
    last: dict[tuple[int, int], dict[str, Any]] = {}  # of a user and an interaction
    unknown = waiting = 0
    for line in lines:
        user = users.get(str(line["user"]))
        if user is None:
            unknown += 1
            continue
        start, end = (int(dataset.offsets[user + at]) for at in (0, 1))
        times = np.asarray(dataset.times[start:end]) * (1000 / unit)
        at = start + int(np.searchsorted(times, line["time_ms"], side="right"))
        if at == end:
            waiting += 1
            continue
        waiting += (user, at) in last
        last[user, at] = line
    for (user, at), line in last.items():
        item, own = int(dataset.items[at]), line["model"]
        shown = [numbers.get(str(each), 0) for each in line["items"]]
        models.setdefault(own, Lists(_name(line))).add(user, shown, item)
        if "among" in line:
            share = shares.setdefault(tuple(line["among"]), {})
            share.setdefault(own, Lists(_name(line))).add(user, shown, item)
        shadow = line.get("shadow", {})
        if "items" in shadow:
            both = pairs.setdefault((own, shadow["model"]), (Lists(_name(line)), Lists(_name(shadow))))
            both[0].add(user, shown, item)
            both[1].add(user, [numbers.get(str(each), 0) for each in shadow["items"]], item)
    if not models:
        raise DataError(
            f"no interaction of {dataset.info.name} follows a list of {log}; prepare the interactions since (adrec "
            "prepare --events)."
        )
    longest = max(1, *(length for each in models.values() for length in each.lengths))
    kept = tuple(k for k in cutoffs if k <= longest) or (longest,)
    return Shown(len(lines), models, shares, pairs, unknown, waiting, damaged, kept)


def _name(line: Mapping[str, Any]) -> str:
    return f"{line['run']} ({line['model'][:8]})"


def _read(log: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the lines of a log in the order of their times, and the number of those that a crash has cut."""
    try:
        texts = log.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{log} cannot be read ({error.strerror}).") from error
    found, damaged = [], 0
    for number, text in enumerate(texts, start=1):
        if not text:
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            if not text.startswith(BEGINNING):
                raise _no_line(log, number) from error
            damaged += 1
            continue
        if not _is_line(line):
            raise _no_line(log, number)
        found.append(line)
    if not found:
        raise DataError(f"{log} has no list that was shown.")
    return sorted(found, key=lambda line: int(line["time_ms"])), damaged


def _no_line(log: Path, number: int) -> DataError:
    return DataError(f"{log} line {number} is no line of a log of adrec serve --log; mend or drop it.")


def _is_line(line: Any) -> bool:
    """Return whether a line has what a list needs, with the types that it needs."""
    return (
        isinstance(line, dict)
        and isinstance(line.get("time_ms"), int)
        and isinstance(line.get("items"), list)
        and isinstance(line.get("user"), int | str)
        and isinstance(line.get("run"), str)
        and isinstance(line.get("model"), str)
        and isinstance(line.get("among", []), list)
        and isinstance(line.get("shadow", {}), dict)
    )
