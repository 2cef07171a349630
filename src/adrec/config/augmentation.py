"""The configuration of data augmentation, available in every model that is trained in stages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from adrec.config.parsing import ConfigGroup, require
from adrec.config.stage import NetworkConfig, PaddedConfig, StageConfig, check_steps

PRETRAIN, DIFFUSION = "augment.pretrain", "augment.diffusion"  # names of stages, and kinds of their networks


@dataclass(frozen=True)
class SUNetConfig(NetworkConfig):
    """The configuration of the diffusion network: the augmentation's settings and the model's width.

    Attributes:
        max_length: M + L - 1: a window holds M items to generate and L guiding items, one of which is its target.
        num_items: M, the number of generated items.
        num_train_timesteps: T, the number of diffusion timesteps.
        num_inference_steps: S, the steps of DDIM.
        noise_schedule: the name of the schedule of ``beta``.
        channels: of the U-Net's outermost level.
        dropout: of its residual blocks.
    """

    num_items: int = 10
    num_train_timesteps: int = 1000
    num_inference_steps: int = 5
    noise_schedule: Literal["linear", "cosine", "sqrt"] = "linear"
    channels: int = 32
    dropout: float = 0.1

    @property
    def shortest(self) -> int:
        """The shortest sequence: M items to generate and two guiding items, as in the published code."""
        return self.num_items + 2


@dataclass(frozen=True)
class ItemsConfig(StageConfig):
    """The stage that learns the item embedding."""

    @property
    def network(self) -> str:
        """ADRec's pre-training network."""
        return PRETRAIN


@dataclass(frozen=True)
class GenerateConfig(StageConfig):
    """The stage that trains the generator. It ranks nothing, so it is not validated."""

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        why = "this stage ranks nothing, so it is not validated"
        keys = ("first_evaluation", "evaluate_every", "patience", "select_by", "seen")
        return {**super().idle(), **dict.fromkeys(keys, why)}

    @property
    def network(self) -> str:
        """The sequential U-Net."""
        return DIFFUSION

    @property
    def start(self) -> Literal["embedding"]:
        """The start of the stage: the pre-trained item embedding."""
        return "embedding"

    @property
    def embedding(self) -> Literal["frozen"]:
        """The embedding is frozen. If trained, it collapses: noise is easiest to predict for equal embeddings."""
        return "frozen"

    @property
    def validates(self) -> bool:
        """False: the stage is never validated, and its last weights are kept."""
        return False


ITEMS = ItemsConfig()
PREFIXES = GenerateConfig(epochs=200, schedule_epochs=200, weight_decay=0.0, patience=0)


@dataclass(frozen=True)
class AugmentConfig(ConfigGroup):
    """How the training sequences are augmented (DiffuASR; Liu et al. 2023, arXiv 2309.12858).

    Attributes:
        num_items: M, the number of items generated before each training sequence.
        num_train_timesteps: T, the number of diffusion timesteps.
        num_inference_steps: S, the steps of DDIM that generate them.
        noise_schedule: the name of the schedule of ``beta``.
        channels: channels of the U-Net's outermost level; its inner levels have twice as many.
        dropout: dropout of the U-Net.
        pretrain: the stage that trains the item embedding.
        diffusion: the stage that trains the generator.
    """

    num_items: int = 10
    num_train_timesteps: int = 1000
    num_inference_steps: int = 5
    noise_schedule: Literal["linear", "cosine", "sqrt"] = "linear"
    channels: int = 32
    dropout: float = 0.1
    pretrain: ItemsConfig = ITEMS
    diffusion: GenerateConfig = PREFIXES

    def __post_init__(self) -> None:
        for name in ("num_items", "channels"):
            require(getattr(self, name) >= 1, f"augment.{name} must be at least 1; it is {getattr(self, name)}.")
        require(0 <= self.dropout < 1, f"augment.dropout must be in [0, 1); it is {self.dropout}.")
        check_steps(self.num_train_timesteps, self.num_inference_steps, "augment")

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """The augmentation's stages by name, which run before the model's own."""
        return MappingProxyType({PRETRAIN: self.pretrain, DIFFUSION: self.diffusion})

    def with_epochs(self, epochs: Mapping[str, int]) -> AugmentConfig:
        """Return this configuration with other numbers of epochs, by the name of the stage."""
        pretrain = replace(self.pretrain, epochs=epochs.get(PRETRAIN, self.pretrain.epochs))
        diffusion = replace(self.diffusion, epochs=epochs.get(DIFFUSION, self.diffusion.epochs))
        return replace(self, pretrain=pretrain, diffusion=diffusion)

    def network_of(self, kind: str, model: NetworkConfig) -> NetworkConfig:
        """Return the configuration of the network of a ``kind``, with the width and length of the ``model``'s."""
        size, length = model.hidden_size, model.max_length
        if kind == PRETRAIN:
            return PaddedConfig(size, length, num_heads=math.gcd(size, 4))
        return SUNetConfig(
            size,
            self.num_items + length - 1,
            num_items=self.num_items,
            num_train_timesteps=self.num_train_timesteps,
            num_inference_steps=self.num_inference_steps,
            noise_schedule=self.noise_schedule,
            channels=self.channels,
            dropout=self.dropout,
        )


DIFFUASR = AugmentConfig()
