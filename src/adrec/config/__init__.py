"""Configuration: settings of all models and of ADRec, presets, and strict parsing."""

from adrec.config.base import OneStageConfig, Settings, TrainingConfig
from adrec.config.stage import NetworkConfig, StageConfig, TransformerConfig

__all__ = ["NetworkConfig", "OneStageConfig", "Settings", "StageConfig", "TrainingConfig", "TransformerConfig"]
