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
AT_ONCE = 1 << 20  # rows: bounds the memory


def returning(dataset: Dataset) -> float:
    """Return the share of interactions with an item that the user had before: earlier in time, and not right before.

    The first interaction of each user does not count, as nothing is before it. Neither an item that follows itself (a
    page that is loaded again) nor a second line of one receipt is a return. All interactions are counted, held-out ones
    included; with event weights, those of a weight above 0, and an item that follows itself with a larger weight (a
    view, then a purchase) is a return. Returns 0 if there is nothing to count.
    """
    offsets = np.asarray(dataset.offsets)
    counted = found = 0
    first = 0
    while first < dataset.num_users:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + AT_ONCE, side="right")) - 1)
        some = slice(offsets[first], offsets[last])
        owners = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        items, times = np.asarray(dataset.items[some]), np.asarray(dataset.times[some])
        _, places, pair = np.unique(owners * (dataset.num_items + 1) + items, return_index=True, return_inverse=True)
        had = times > times[places][pair]  # its first interaction is earlier
        follows, other = owners[1:] == owners[:-1], items[1:] != items[:-1]
        if dataset.weights is not None:
            weights = np.asarray(dataset.weights[some])
            follows, other = follows & (weights[1:] > 0), other | (weights[1:] > weights[:-1])
        counted += int(follows.sum())
        found += int((had[1:] & other & follows).sum())
        first = last
    return found / counted if counted else 0.0


def measured(share: float) -> Seen:
    """Return the policy for a share of :func:`returning` interactions."""
    return "keep" if share >= RETURNING else "leave-out"


def leaves_out(policy: SeenOrData, dataset: Dataset) -> bool:
    """Return whether ``policy`` leaves out the items of the history; ``data`` is the policy of ``dataset``.

    Raises :class:`ConfigError` for another word.
    """
    choices = get_args(SeenOrData)
    if policy not in choices:
        raise ConfigError(f"seen must be one of {', '.join(choices)}; it is {policy!r}{did_you_mean(policy, choices)}.")
    return (dataset.info.seen if policy == "data" else policy) == "leave-out"


def told(seen: str, share: float) -> str:
    """Return the policy of a data set in one line; ``share`` is that of :func:`returning` interactions."""
    what, other = ("kept in", "leave-out") if seen == "keep" else ("left out of", "keep")
    why = f"{share:.1%} of interactions return to one"
    reason = f"as {why} (--seen {other} does the opposite)" if seen == measured(share) else f"as asked for ({why})"
    return f"seen items: {what} recommendations and rankings, {reason}"
