"""The contract, for every baseline that is trained by gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from models.contract import ModelContract

ONE_STAGE = {
    **{"model.hidden_size": 16, "model.max_length": 12, "batch_size": 32},
    **{"train.epochs": 2, "train.first_evaluation": 1, "train.evaluate_every": 1},
}
LONGER = {"train.epochs": 30, "train.patience": 0, "train.learning_rate": 0.01, "model.dropout": 0.0}
TRANSFORMER = {"model.embedding_dropout": 0.0, **LONGER}
DIFFUSION = {"model.num_train_timesteps": 4, "model.num_inference_steps": 4}


class TestGRU4Rec(ModelContract):
    model = "gru4rec"
    changes: ClassVar[Mapping[str, Any]] = ONE_STAGE
    learning: ClassVar[Mapping[str, Any]] = LONGER


class TestSASRec(ModelContract):
    model = "sasrec"
    changes: ClassVar[Mapping[str, Any]] = ONE_STAGE
    learning: ClassVar[Mapping[str, Any]] = {**TRANSFORMER, "train.epochs": 60}


class TestSASRecPlus(ModelContract):
    model = "sasrec+"
    changes: ClassVar[Mapping[str, Any]] = ONE_STAGE
    learning: ClassVar[Mapping[str, Any]] = TRANSFORMER


class TestGSASRec(ModelContract):
    model = "gsasrec"
    changes: ClassVar[Mapping[str, Any]] = {**ONE_STAGE, "model.num_negatives": 4, "model.num_blocks": 1}
    learning: ClassVar[Mapping[str, Any]] = {**TRANSFORMER, "train.epochs": 60, "batch_size": 16}


class TestBERT4Rec(ModelContract):
    model = "bert4rec"
    changes: ClassVar[Mapping[str, Any]] = ONE_STAGE
    learning: ClassVar[Mapping[str, Any]] = {**TRANSFORMER, "train.epochs": 60}


class TestESASRec(ModelContract):
    model = "esasrec"
    changes: ClassVar[Mapping[str, Any]] = ONE_STAGE
    learning: ClassVar[Mapping[str, Any]] = TRANSFORMER


class TestDiffuRec(ModelContract):
    model = "diffurec"
    changes: ClassVar[Mapping[str, Any]] = {**ONE_STAGE, **DIFFUSION}
    learning: ClassVar[Mapping[str, Any]] = TRANSFORMER
    diffuses = True


class TestDiffRec(ModelContract):
    model = "diffrec"
    changes: ClassVar[Mapping[str, Any]] = {
        **ONE_STAGE,
        "model.num_train_timesteps": 32,
        "model.num_inference_steps": 4,
    }
    learning: ClassVar[Mapping[str, Any]] = TRANSFORMER
    diffuses = True


class TestDreamRec(ModelContract):
    model = "dreamrec"
    changes: ClassVar[Mapping[str, Any]] = {**ONE_STAGE, **DIFFUSION}
    learning: ClassVar[Mapping[str, Any]] = {"train.epochs": 5}
    hits = None  # squared error alone: faithful, and weak
    diffuses = True
