"""Whether the items of a history are recommended and ranked: one policy of each data set, measured or given.

People return to groceries and songs, seldom to films. The policy of a data set holds for selection, evaluation,
comparison and recommending, so that what is evaluated is what is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from adrec.config.stage import SeenOrData
from adrec.utils.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from adrec.data.dataset import Dataset

Seen = Literal["keep", "leave-out"]

RETURNING = 0.05  # people return to items where at least this share of interactions does


def returning(dataset: Dataset) -> float:
    """Return the share of interactions with an item that the user had before, but not right before.

    The first interaction of each user does not count, as nothing is before it. An item that follows itself does not
    count as a return: a page that is loaded twice, or two lines of one receipt. Returns 0 if nothing counts.
    """
    items, lengths = np.asarray(dataset.items), np.diff(dataset.offsets)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    pairs = owners * (dataset.num_items + 1) + items
    first = np.zeros(len(items), dtype=bool)
    first[np.unique(pairs, return_index=True)[1]] = True
    follows = owners[1:] == owners[:-1]
    returns = ~first[1:] & (items[1:] != items[:-1])
    return float(returns[follows].mean()) if follows.any() else 0.0


def measured(share: float) -> Seen:
    """Return the policy for a share of :func:`returning` interactions."""
    return "keep" if share >= RETURNING else "leave-out"


def leaves_out(policy: str, dataset: Dataset) -> bool:
    """Return whether ``policy`` leaves out the items of the history; ``data`` is the policy of ``dataset``.

    Raises :class:`ConfigError` for another word.
    """
    if policy not in get_args(SeenOrData):
        choices = get_args(SeenOrData)
        raise ConfigError(f"seen must be one of {', '.join(choices)}; it is {policy!r}{did_you_mean(policy, choices)}.")
    return (dataset.info.seen if policy == "data" else policy) == "leave-out"


def told(seen: str, share: float, *, given: bool) -> str:
    """Return the policy of a data set in one line."""
    what, other = ("kept in", "leave-out") if seen == "keep" else ("left out of", "keep")
    why = f"{share:.1%} of interactions return to one"
    reason = f"as asked for ({why})" if given else f"as {why} (--seen {other} does the opposite)"
    return f"seen items: {what} recommendations and rankings, {reason}"
