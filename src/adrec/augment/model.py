"""DiffuASR as a model of its own: it is trained before another model, and its output is prefixes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from adrec.augment.diffuasr import DiffuASRNetwork
from adrec.config.augmentation import DIFFUSION, PRETRAIN, AugmentConfig
from adrec.config.base import TrainingConfig
from adrec.config.stage import NetworkConfig, StageConfig
from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.nn.base import SequenceNetwork
from adrec.nn.pretraining import PretrainingNetwork
from adrec.train.callbacks import Callback
from adrec.train.loop import Trainer
from adrec.train.sequences import training_histories
from adrec.utils.errors import DataError

NETWORKS: Mapping[str, type[SequenceNetwork]] = MappingProxyType(
    {PRETRAIN: PretrainingNetwork, DIFFUSION: DiffuASRNetwork}
)


@dataclass(frozen=True)
class AugmentTraining(TrainingConfig):
    """How an augmentation's networks are trained.

    Attributes:
        model: the network of the model that is trained afterwards, of which the width and the length are taken.
    """

    model: NetworkConfig = field(default_factory=NetworkConfig)

    @classmethod
    def of(cls, config: TrainingConfig, augment: AugmentConfig) -> AugmentTraining:
        """Return how ``augment`` is trained before a model of ``config``; a step has no limit of tokens."""
        return cls(
            batch_size=config.batch_size,
            max_tokens=config.max_tokens,
            precision=config.precision,
            augment=augment,
            model=config.network,
        )

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """The augmentation's stages."""
        assert self.augment is not None
        return self.augment.stages

    def network_of(self, kind: str) -> NetworkConfig:
        """Return what the network of a ``StageConfig.network`` is built from."""
        assert self.augment is not None
        return self.augment.network_of(kind, self.model)


def augmentation_trainer(
    config: TrainingConfig,
    augment: AugmentConfig,
    dataset: Dataset,
    split: Split,
    *,
    seed: int,
    device: torch.device | None = None,
    callbacks: Iterable[Callback] = (),
) -> Trainer:
    """Return the trainer of ``augment`` for a model of ``config``.

    Raises :class:`DataError` where too few users have what it learns from.
    """
    histories = training_histories(dataset, split, config.network.max_length)
    shortest = augment.network_of(DIFFUSION, config.network).shortest
    enough = len(histories.at_least(shortest))
    if enough < 2 and len(histories.at_least(2)):
        raise DataError(
            f"{DIFFUSION} learns from users with {shortest} training interactions or more, and there are "
            f"{enough}; set augment.num_items, now {augment.num_items}, lower."
        )
    training = AugmentTraining.of(config, augment)
    return Trainer(training, dataset, split, networks=NETWORKS, seed=seed, device=device, callbacks=callbacks)


def generate_prefixes(trainer: Trainer) -> Tensor:
    """Return what a trainer of :func:`augmentation_trainer`, which has run, puts before each history, int64 [U, M]."""
    network = trainer.network
    assert isinstance(network, DiffuASRNetwork)
    return network.prefixes(trainer.histories, trainer.seed)


def stand_in_prefixes(trainer: Trainer) -> Tensor:
    """Return prefixes of the size of those to come, by which the training behind them can be planned."""
    assert trainer.config.augment is not None
    return torch.ones(len(trainer.histories), trainer.config.augment.num_items, dtype=torch.int64)
