"""Splits of interactions into training, validation and test parts. A split has a name, saved with the data.

========================================  ============================================================================
``leave-one-out``                         each user's last interaction tests, the one before validates
``last-basket``                           all of each user's interactions at their last time test, those before validate
``time:MOMENT``                           everything from the moment on tests
``temporal-leave-one-out:MOMENT``         the last interaction of users who have one from the moment on tests
``ratio:0.8,0.1,0.1``                     of each user the first 80 % train, the next 10 % validate, the last test
``users:TEST.csv,VALIDATION.csv``         the last interaction of the users in a list tests; they never train
``none``                                  everything trains
========================================  ============================================================================

``MOMENT`` is an ISO date or time, a number in the data's unit, or a share of all interactions such as ``0.9``. Two
moments, separated by a comma, are the starts of validation and test. With one, the last tenth of the interactions
before it validates. Training ends at the start of validation for all users: later interactions and items that first
appear later are not trained on. Such items are unknown to the model and rank last, unless an older vocabulary has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adrec.data.moments import ticks, two_moments
from adrec.data.spans import Int64s, spans
from adrec.data.split_arguments import listed_users, shares
from adrec.utils.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from adrec.data.dataset import Dataset


@dataclass(frozen=True)
class Targets:
    """Held-out interactions.

    Attributes:
        users: user index of each, int64 [m]; a user may have several.
        positions: their positions in the data set's flat arrays, int64 [m].
        first: the positions where a held-out basket begins, int64 [m]; by default ``positions``.
    """

    users: Int64s
    positions: Int64s
    first: Int64s | None = None

    @property
    def ends(self) -> Int64s:
        """The end of the history of each, ``items[offsets[user] : end]``, which is never empty, int64 [m]."""
        return self.positions if self.first is None else self.first

    def without(self, users: Sequence[int]) -> Targets:
        """Return those of other users."""
        return self.where(~np.isin(self.users, np.asarray(users)))

    def where(self, kept: NDArray[np.bool_]) -> Targets:
        """Return some of them; ``kept`` is a mask, bool [m]."""
        return Targets(self.users[kept], self.positions[kept], None if self.first is None else self.first[kept])


FEWEST = 3  # interactions of a user that leave-one-out evaluates: two held out, and a history of one
LAST_BASKET = "last-basket"
NOBODY = Targets(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Split:
    """The split of a data set.

    Attributes:
        name: name of the split, shown with its metrics; equal names on one data set are equal splits.
        train_ends: end of each user's training part (exclusive) in the flat arrays, int64 [U].
        validation: interactions held out for model selection.
        test: interactions held out for the final evaluation.
        num_items: the largest item number that training may know.
    """

    name: str
    train_ends: Int64s
    validation: Targets
    test: Targets
    num_items: int

    def targets(self, part: str) -> Targets:
        """Return the held-out interactions of ``validation`` or ``test``; :class:`ConfigError` for anything else."""
        parts = {"validation": self.validation, "test": self.test}
        if part not in parts:
            raise ConfigError(f"there is no held-out part {part!r}{did_you_mean(part, parts)}; name one of them.")
        return parts[part]

    def without(self, users: Sequence[int]) -> Split:
        """Return the same split, in which nothing of some users is held out."""
        if not len(users):
            return self
        validation, test = self.validation.without(users), self.test.without(users)
        return replace(self, validation=validation, test=test)

    def knowing_all(self, dataset: Dataset) -> Split:
        """Return the same split, whose training may know all items: those that come later by their features."""
        return replace(self, num_items=dataset.num_items)

    def counted(self, weights: NDArray[np.float32] | None) -> Split:
        """Return the same split without held-out interactions of weight 0, which are no targets."""
        if weights is None:
            return self
        parts = (each.where(np.asarray(weights)[each.positions] > 0) for each in (self.validation, self.test))
        validation, test = parts
        return replace(self, validation=validation, test=test)

    def nobody(self, part: str) -> str:
        """Return the reason why ``part`` holds nothing out."""
        kind = self.name.partition(":")[0]
        if kind == "none":
            return "nothing was held out (split none)"
        if kind == "users":
            return f"the split {self.name!r} has no list of {part} users, or none in it has two interactions"
        if kind == "ratio":
            return f"of nobody is {part}'s share in the split {self.name!r} a whole interaction"
        if kind == LAST_BASKET:
            return f"no user has interactions at the {FEWEST} times that the split {self.name!r} needs"
        if kind in ("time", "temporal-leave-one-out"):
            return f"in the split {self.name!r} nobody has an interaction in the period of {part} and one before it"
        return f"no sequence has the {FEWEST} interactions that the split {self.name!r} needs"


def leave_one_out(dataset: Dataset) -> Split:
    """The last interaction of each user tests, the one before validates, those before that train.

    With event weights, interactions of weight 0 are passed over: the last two others are held out. Users without two
    such interactions and one before them train with all they have and are not evaluated.
    """
    tested, validated = _last_targets(dataset, 1), _last_targets(dataset, 2)
    users = np.flatnonzero(validated > np.asarray(dataset.offsets[:-1]))
    train_ends = np.array(dataset.offsets[1:])
    train_ends[users] = validated[users]
    validation, test = Targets(users, validated[users]), Targets(users, tested[users])
    return Split("leave-one-out", train_ends, validation, test, dataset.num_items)


def _last_targets(dataset: Dataset, number: int) -> Int64s:
    """Return the position of each user's last, or ``number``-th last, interaction of a weight above 0, [U]; else -1."""
    if dataset.weights is None:
        positions = np.arange(dataset.num_interactions)
    else:
        positions = np.flatnonzero(np.asarray(dataset.weights) > 0)
    before, after = (np.searchsorted(positions, bounds) for bounds in (dataset.offsets[:-1], dataset.offsets[1:]))
    found = after - number
    return np.where(found >= before, positions[np.maximum(found, 0)] if len(positions) else -1, -1)


def last_basket(dataset: Dataset) -> Split:
    """All interactions of a user at their last time test, those at the time before validate, the others train.

    The history of each ends before its basket. Users with fewer than :data:`FEWEST` times are not evaluated.
    """
    ends = np.asarray(dataset.offsets)[1:].copy()
    starts = np.flatnonzero(basket_begins(dataset))
    after = np.searchsorted(starts, ends)  # the number of baskets up to each user's end
    users = np.flatnonzero(np.diff(np.append(0, after)) >= FEWEST)
    validated, tested = starts[after[users] - 2], starts[after[users] - 1]
    train_ends = ends.copy()
    train_ends[users] = validated
    parts = (_baskets(users, validated, tested), _baskets(users, tested, ends[users]))
    return Split(LAST_BASKET, train_ends, *parts, dataset.num_items)


def basket_begins(dataset: Dataset) -> NDArray[np.bool_]:
    """Return whether each interaction begins a basket, the interactions of a user at one time, bool [n]."""
    offsets, times = np.asarray(dataset.offsets), np.asarray(dataset.times)
    begins = np.ones(dataset.num_interactions, dtype=bool)
    begins[1:] = times[1:] != times[:-1]
    begins[offsets[:-1][np.diff(offsets) > 0]] = True
    return begins


def no_split(dataset: Dataset) -> Split:
    """Everything trains, nothing is held out."""
    return Split("none", np.array(dataset.offsets[1:]), NOBODY, NOBODY, dataset.num_items)


def time_split(dataset: Dataset, arguments: str) -> Split:
    """Interactions from one moment on validate, from another on they test; only earlier items are known to training."""
    train_ends, validation_ends = _cuts(dataset, arguments)
    ends = np.array(dataset.offsets[1:])
    validation = _with_history(dataset, train_ends, validation_ends)
    test = _with_history(dataset, validation_ends, ends)
    return Split(f"time:{arguments}", train_ends, validation, test, _known_items(dataset, train_ends))


def temporal_leave_one_out(dataset: Dataset, arguments: str) -> Split:
    """Like :func:`time_split`, with one held-out interaction per user and part: the last one."""
    whole = time_split(dataset, arguments)
    whole = whole.counted(dataset.weights)
    validation, test = _last_of_each(whole.validation), _last_of_each(whole.test)
    return Split(f"temporal-leave-one-out:{arguments}", whole.train_ends, validation, test, whole.num_items)


def ratio_split(dataset: Dataset, arguments: str) -> Split:
    """Split each user's interactions by shares, in order; the remainder trains."""
    _, for_validation, for_test = (float(share) for share in arguments.split(","))
    starts, ends = np.array(dataset.offsets[:-1]), np.array(dataset.offsets[1:])
    lengths = ends - starts
    test_starts = ends - np.floor(np.round(lengths * for_test, 9)).astype(np.int64)
    train_ends = test_starts - np.floor(np.round(lengths * for_validation, 9)).astype(np.int64)
    validation = _with_history(dataset, train_ends, test_starts)
    test = _with_history(dataset, test_starts, ends)
    return Split(f"ratio:{arguments}", train_ends, validation, test, dataset.num_items)


def users_split(dataset: Dataset, arguments: str) -> Split:
    """The last interaction of listed users is held out, and nothing of theirs trains."""
    starts, ends = np.array(dataset.offsets[:-1]), np.array(dataset.offsets[1:])
    train_ends, last = ends.copy(), _last_targets(dataset, 1)
    parts = {}
    for part in ("validation", "test"):
        users = dataset.held_out.get(part, NOBODY.users)
        train_ends[users] = starts[users]
        users = users[last[users] > starts[users]]
        parts[part] = Targets(users, last[users])
    return Split(f"users:{arguments}", train_ends, parts["validation"], parts["test"], dataset.num_items)


SPLITS: Mapping[str, Callable[[Dataset, str], Split]] = {
    "leave-one-out": lambda dataset, _: leave_one_out(dataset),
    LAST_BASKET: lambda dataset, _: last_basket(dataset),
    "none": lambda dataset, _: no_split(dataset),
    "time": time_split,
    "temporal-leave-one-out": temporal_leave_one_out,
    "ratio": ratio_split,
    "users": users_split,
}


def make_split(dataset: Dataset, name: str | None = None) -> Split:
    """Return the split of a data set by its full name; its own by default."""
    kind, _, arguments = (name or dataset.info.split).partition(":")
    return SPLITS[kind](dataset, arguments).counted(dataset.weights)


def resolved(asked: str, dataset: Dataset) -> tuple[str, dict[str, Int64s]]:
    """Return the full name of the requested split, and the users it lists by part.

    Raises:
        ConfigError: for an unknown split, or invalid arguments.
        DataError: if the split leaves nothing to train on, or nothing to test.
    """
    kind, _, text = asked.partition(":")
    if kind not in SPLITS:
        raise ConfigError(f"there is no split {kind!r}{did_you_mean(kind, SPLITS)}; there are {', '.join(SPLITS)}.")
    held_out: dict[str, Int64s] = {}
    if kind in ("leave-one-out", LAST_BASKET, "none") and text:
        raise ConfigError(f"the split {kind} takes no arguments; it was given {text!r}.")
    if kind in ("leave-one-out", "none"):
        return kind, held_out
    if kind == LAST_BASKET:
        arguments = ""
        if "time" not in dataset.info.columns:
            raise ConfigError(f"the split {kind} needs a column of times, which the lines of a basket share; name it.")
    elif kind == "ratio":
        arguments = shares(text)
    elif kind == "users":
        arguments, held_out = listed_users(text, dataset)
    else:
        arguments = two_moments(kind, text, np.asarray(dataset.times), dataset.info.time_unit)
    split = SPLITS[kind](replace(dataset, held_out=held_out), arguments).counted(dataset.weights)
    trained = int((split.train_ends - np.asarray(dataset.offsets[:-1])).sum())
    if trained == 0 or len(split.test.users) == 0:
        nothing = "nothing to train on" if trained == 0 else "nobody to test (a history is needed before a test item)"
        raise DataError(f"the split {split.name!r} leaves {nothing}; choose another.")
    return split.name, held_out


def _cuts(dataset: Dataset, arguments: str) -> tuple[Int64s, Int64s]:
    """Return the ends of each user's interactions before the first and before the second moment, int64 [U] each."""
    users = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    starts = np.array(dataset.offsets[:-1])
    first, second = (ticks(text, dataset.info.time_unit) for text in arguments.split(","))
    before = [
        np.bincount(users[np.asarray(dataset.times) < moment], minlength=len(starts)) for moment in (first, second)
    ]
    return starts + before[0], starts + before[1]


def _with_history(dataset: Dataset, starts: Int64s, ends: Int64s) -> Targets:
    """Return the interactions between ``starts`` and ``ends`` of each user that have one before them."""
    starts = np.maximum(starts, np.asarray(dataset.offsets[:-1]) + 1)
    lengths = np.maximum(ends - starts, 0)
    users = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(users)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return Targets(users, np.repeat(starts, lengths) + within)


def _baskets(users: Int64s, starts: Int64s, ends: Int64s) -> Targets:
    """Return the interactions from ``starts`` to ``ends`` of each of ``users``, which one history precedes."""
    lengths = ends - starts
    return Targets(np.repeat(users, lengths), spans(starts, lengths), np.repeat(starts, lengths))


def _last_of_each(targets: Targets) -> Targets:
    """Return each user's last held-out interaction; ``targets`` are in the order of their positions."""
    last = np.append(targets.users[1:] != targets.users[:-1], np.ones(min(1, len(targets.users)), dtype=bool))
    return Targets(targets.users[last], targets.positions[last])


def _trained_items(dataset: Dataset, train_ends: Int64s) -> NDArray[np.int32]:
    """Return the item number of each interaction in training."""
    users = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    trained: NDArray[np.int32] = dataset.items[np.arange(dataset.num_interactions) < train_ends[users]]
    return trained


def _known_items(dataset: Dataset, train_ends: Int64s) -> int:
    """Return the largest item number in training: items are numbered as they appear in time."""
    return int(_trained_items(dataset, train_ends).max(initial=0))


def known_untrained(dataset: Dataset, first: int) -> int:
    """Return how many of the ``first`` item numbers are known to training without any training interaction.

    They come from an older vocabulary, whose numbers precede those of items that appear in the data.
    """
    split = make_split(dataset)
    known = min(first, split.num_items)
    trained = np.unique(_trained_items(dataset, split.train_ends))
    return known - int((trained <= known).sum())
