"""Validation during training: the ranks of the validation items, of all users or of some that are drawn once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from adrec.config.stage import StageConfig
from adrec.data.dataset import Dataset
from adrec.data.seen import leaves_out
from adrec.data.sequences import Sequences
from adrec.data.spans import Int64s
from adrec.data.split import Split
from adrec.evaluate.metrics import means, metric_names
from adrec.evaluate.ranking import held_out, ranking
from adrec.models.network import NetworkScorer
from adrec.nn.base import SequenceNetwork
from adrec.utils import interrupts

SAMPLED = 10_000  # users that are drawn where the validation of all would cost too much
MOST_SCORES = 10**10  # of a validation that always is of all users: under a minute on a few cores
SHARE = 0.1  # the largest share of an epoch's logits that a larger validation of all users may have
PASSES = 3  # products with the item embedding in a training step: forward, and two backward


def users_to_validate(
    asked: int | None, num_users: int, num_items: int, stage: StageConfig, sequences: Sequences, steps: int
) -> int | None:
    """Return the number of validation users to draw; None for all of them.

    Args:
        asked: the number that was asked for; None draws :data:`SAMPLED` where all of them would need more than
            :data:`SHARE` of the logits of an epoch, and more than :data:`MOST_SCORES`.
        num_users: the users of the validation part.
        num_items: V.
        stage: the stage that is validated.
        sequences: its training sequences.
        steps: its steps in an epoch.
    """
    if asked is not None:
        return asked
    passes = PASSES * (2 if stage.consistency else 1)
    classes = num_items
    if stage.drawn is not None:
        classes = min(num_items, stage.drawn + 2 * sequences.num_tokens // steps)
    elif stage.buckets is not None:
        classes = min(num_items, int(stage.buckets.logits(sequences.num_tokens / steps, num_items, PASSES)))
    scores = num_users * num_items
    return SAMPLED if scores > max(MOST_SCORES, SHARE * passes * sequences.num_tokens * classes) else None


class Validation:
    """Ranks the validation items of ``split`` with a network.

    Args:
        dataset: the prepared data set.
        split: the split of the data set.
        seed: the seed of the noise at inference, which is separate from training's, so that training is unchanged.
        stages: the stages whose selecting metrics are also computed.
        limit: the number of users to draw; None for all.

    Attributes:
        drawn: the number of users that were drawn; None if all are validated.
    """

    def __init__(
        self, dataset: Dataset, split: Split, seed: int, stages: Iterable[StageConfig], limit: int | None = None
    ) -> None:
        targets = split.validation
        distinct = np.unique(targets.users)
        self.drawn = limit if limit is not None and limit < len(distinct) else None
        if self.drawn is not None:
            rng = np.random.default_rng([seed, SAMPLED])
            targets = targets.where(np.isin(targets.users, rng.choice(distinct, self.drawn, replace=False)))
        self.histories, self.items = held_out(dataset, targets)
        self.users, self.seed = targets.users, seed
        self.dataset = dataset
        selecting = {metric for stage in stages for metric in stage.select_by}
        self.metrics = sorted({*metric_names((5, 10, 20)), *selecting})

    @property
    def has_users(self) -> bool:
        """Whether there are users to validate on."""
        return len(self.users) > 0

    def __call__(self, network: SequenceNetwork, stage: StageConfig) -> dict[str, float]:
        """Return the metrics, means over users, in 0..1; seen items are left out if stage or data set say so.

        A waiting signal interrupts it.
        """
        left_out = leaves_out(stage.seen, self.dataset)
        return means(self.metrics, self.ranks(network, left_out), self.users)

    def ranks(self, network: SequenceNetwork, left_out: bool) -> Int64s:
        """Return the rank of each validation item, [m]; ``left_out`` leaves the items of the history out."""
        return ranking(
            NetworkScorer(network, self.seed),
            self.histories,
            self.items,
            filter_seen=left_out,
            on_batch=lambda _: interrupts.check(),
        ).ranks
