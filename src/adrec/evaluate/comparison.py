"""Paired comparison of two evaluations on the same users."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adrec.evaluate.metrics import user_values
from adrec.evaluate.protocol import Evaluation
from adrec.evaluate.significance import Difference, holm_adjusted, paired_difference
from adrec.utils.errors import ConfigError


def compare(ours: Evaluation, theirs: Evaluation) -> Mapping[str, Difference]:
    """Return each metric's difference, ours minus theirs, with Holm-adjusted p-values.

    Raises :class:`ConfigError` unless both were evaluated on the same held-out interactions with the same protocol.
    """
    same = ours.ranks.select("user", "item").equals(theirs.ranks.select("user", "item"))
    if not same or (ours.split, ours.part, ours.filter_seen) != (theirs.split, theirs.part, theirs.filter_seen):
        raise ConfigError(
            "the two were evaluated on other data, another split, or once with and once without seen items; only the "
            "same held-out interactions can be compared, with --seen keep or --seen leave-out for both."
        )
    names = [name for name in ours.metrics if name in theirs.metrics]
    _, users = np.unique(ours.ranks["user"].to_numpy(), return_inverse=True)
    mine, other = (user_values(names, each.ranks["rank"].to_numpy() - 1, users) for each in (ours, theirs))
    return holm_adjusted({name: paired_difference(mine[:, index], other[:, index]) for index, name in enumerate(names)})
