"""Validation during training: the ranks of the validation items."""

from __future__ import annotations

from collections.abc import Iterable

from adrec.config.stage import StageConfig
from adrec.data.dataset import Dataset
from adrec.data.seen import leaves_out
from adrec.data.split import Split
from adrec.evaluate.metrics import means, metric_names
from adrec.evaluate.ranking import held_out, ranking
from adrec.models.network import NetworkScorer
from adrec.nn.base import SequenceNetwork
from adrec.utils import interrupts


class Validation:
    """Ranks the validation items of ``split`` with a network.

    Args:
        dataset: the prepared data set.
        split: the split of the data set.
        seed: the seed of the noise at inference, which is separate from training's, so that training is unchanged.
        stages: the stages whose selecting metrics are also computed.
    """

    def __init__(self, dataset: Dataset, split: Split, seed: int, stages: Iterable[StageConfig]) -> None:
        self.histories, self.items = held_out(dataset, split.validation)
        self.users, self.seed = split.validation.users, seed
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
        scorer = NetworkScorer(network, self.seed)
        left_out = leaves_out(stage.seen, self.dataset)
        ranks = ranking(
            scorer, self.histories, self.items, filter_seen=left_out, on_batch=lambda _: interrupts.check()
        ).ranks
        return means(self.metrics, ranks, self.users)
