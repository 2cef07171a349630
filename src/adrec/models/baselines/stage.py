"""The training stage of the baselines' networks: the same for all, so that all have the same training budget."""

from __future__ import annotations

from adrec.config.stage import StageConfig

STAGE = StageConfig(weight_decay=0.0, first_evaluation=2, evaluate_every=2, patience=10)
