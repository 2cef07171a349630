"""Evaluation of what a service has shown, by what its users did next.

A list counts if it is the last one that was shown to the user before an interaction. The item of that interaction has
the rank at which the list has it. Where a shadow was asked too, its list is ranked by the same interaction: a paired
comparison. Models that answered other users are compared without pairs.

What was shown influences what users do, so a list that was shown has an advantage over the list of a shadow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adrec.data.dataset import Dataset
from adrec.data.moments import PER_SECOND
from adrec.data.spans import Int64s
from adrec.evaluate.metrics import BEHIND, Estimate, estimates, metric_names, user_values
from adrec.evaluate.significance import Difference, holm, paired_difference, unpaired_difference
from adrec.utils.errors import DataError


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
        pairs: (digest of the model that answered, digest of its shadow) to the lists of both, in the same order.
        unknown: lists of users who are not in the data set.
        waiting: lists that no interaction follows, or before which another list of the same user stands.
        cutoffs: the k of the metrics, up to the longest list.
    """

    num_lists: int
    models: Mapping[str, Lists]
    pairs: Mapping[tuple[str, str], tuple[Lists, Lists]]
    unknown: int
    waiting: int
    cutoffs: tuple[int, ...]

    def metrics(self, lists: Lists) -> dict[str, Estimate]:
        """Return the metrics of some lists with 95 % intervals over users."""
        return estimates(metric_names(self.cutoffs), _array(lists.ranks), _array(lists.users))

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
            found[own, other, "paired"] = _adjusted(each)
        digests = list(self.models)
        for other in digests[1:]:
            values = [
                user_values(names, _array(self.models[each].ranks), _array(self.models[each].users))
                for each in (digests[0], other)
            ]
            each = {name: unpaired_difference(values[0][:, at], values[1][:, at]) for at, name in enumerate(names)}
            found[digests[0], other, "unpaired"] = _adjusted(each)
        return found


def _adjusted(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    adjusted = holm({name: each.p for name, each in differences.items()})
    return {name: Difference(each.estimate, adjusted[name], each.num_users) for name, each in differences.items()}


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
    lines = _read(log)
    users = {str(each): at for at, each in enumerate(dataset.users.ids.to_list())}
    numbers = {str(each): at for at, each in enumerate(dataset.catalogue.ids.to_list(), start=1)}
    models: dict[str, Lists] = {}
    pairs: dict[tuple[str, str], tuple[Lists, Lists]] = {}
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
    longest = max(length for each in models.values() for length in each.lengths)
    kept = tuple(k for k in cutoffs if k <= longest) or (longest,)
    return Shown(len(lines), models, pairs, unknown, waiting, kept)


def _name(line: Mapping[str, Any]) -> str:
    return f"{line['run']} ({line['model'][:8]})"


def _read(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a log in the order of their times; the last may have been cut by a crash."""
    try:
        texts = log.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{log} cannot be read ({error.strerror}).") from error
    found = []
    for number, text in enumerate(texts[:-1], start=1):
        try:
            line = json.loads(text)
            if not (isinstance(line["time_ms"], int) and isinstance(line["items"], list) and line["items"]):
                raise TypeError
            _name(line)
            str(line["user"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{log} line {number} is no line of a log of adrec serve --log; mend or drop it."
            ) from error
        found.append(line)
    if not found:
        raise DataError(f"{log} has no list that was shown.")
    return sorted(found, key=lambda line: int(line["time_ms"]))
