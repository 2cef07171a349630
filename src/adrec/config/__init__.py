"""Configuration: what every model has, ADRec's own, presets, and strict reading."""

from adrec.config.base import OneStageConfig, Settings, TrainingConfig
from adrec.config.stage import NetworkConfig, StageConfig, TransformerConfig

__all__ = ["NetworkConfig", "OneStageConfig", "Settings", "StageConfig", "TrainingConfig", "TransformerConfig"]
