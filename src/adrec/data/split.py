"""Splits: which interactions train, which validate, which test. A split is a value with a name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adrec.data.dataset import Dataset
from adrec.errors import ConfigError, did_you_mean

Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """Held-out interactions.

    Attributes:
        users: whose they are, user indices, int64 [m].
        positions: where they stand in the data set's flat arrays, int64 [m]; the history of one is everything of
            the user before it, ``items[offsets[user] : position]``.
    """

    users: Int64s
    positions: Int64s


NOBODY = Targets(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Split:
    """What is held out of a data set.

    Attributes:
        name: what it is called wherever its metrics are shown.
        train_ends: where each user's training part ends (exclusive) in the flat arrays, int64 [U].
        validation: held out to choose by.
        test: held out to be looked at last.
    """

    name: str
    train_ends: Int64s
    validation: Targets
    test: Targets

    def targets(self, part: str) -> Targets:
        """Return the held-out interactions of ``validation`` or ``test``; :class:`ConfigError` for anything else."""
        parts = {"validation": self.validation, "test": self.test}
        if part not in parts:
            raise ConfigError(f"there is no held-out part {part!r}{did_you_mean(part, parts)}; name one of them.")
        return parts[part]


def leave_one_out(dataset: Dataset) -> Split:
    """The last interaction of each user tests, the one before validates, the others train.

    Users with fewer than 3 interactions train with all they have and are not evaluated.
    """
    ends = np.array(dataset.offsets[1:])
    users = np.flatnonzero(np.diff(dataset.offsets) >= 3)
    train_ends = ends.copy()
    train_ends[users] -= 2
    validation, test = Targets(users, ends[users] - 2), Targets(users, ends[users] - 1)
    return Split("leave-one-out", train_ends, validation, test)


def no_split(dataset: Dataset) -> Split:
    """Everything trains, nothing is held out."""
    return Split("none", np.array(dataset.offsets[1:]), NOBODY, NOBODY)
