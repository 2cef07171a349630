"""The stage that trains a baseline's network: the same for all, so that none has more time than another."""

from __future__ import annotations

from adrec.config.stage import StageConfig

STAGE = StageConfig(weight_decay=0.0, first_evaluation=2, evaluate_every=2, patience=10)
