"""Training of DiffuASR before another model, and generation of its prefixes."""

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
    """The training configuration of an augmentation's networks.

    Attributes:
        model: the network of the model to be trained afterwards, which determines width and length.
    """

    model: NetworkConfig = field(default_factory=NetworkConfig)

    @classmethod
    def of(cls, config: TrainingConfig, augment: AugmentConfig) -> AugmentTraining:
        """Return the configuration of ``augment`` before a model of ``config``; a step has no token limit."""
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
        """Return the configuration of the network of a ``StageConfig.network``."""
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

    Raises :class:`DataError` if too few users have enough interactions for it.
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
    """Return the prefixes of all histories, int64 [U, M], from a finished trainer of :func:`augmentation_trainer`."""
    network = trainer.network
    assert isinstance(network, DiffuASRNetwork)
    return network.prefixes(trainer.histories, trainer.seed)


def stand_in_prefixes(trainer: Trainer) -> Tensor:
    """Return stand-in prefixes of the final size, with which the subsequent training can be planned."""
    assert trainer.config.augment is not None
    return torch.ones(len(trainer.histories), trainer.config.augment.num_items, dtype=torch.int64)
