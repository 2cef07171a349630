"""ADRec is held to the contract of every model, and with it what the contract asks of a network."""

from __future__ import annotations

from typing import ClassVar

from conftest import TINY
from models.contract import ModelContract

QUICK = {"learning_rate": 0.01, "averaging": 0.5}


class TestDefault(ModelContract):
    model = "adrec"
    changes: ClassVar = {
        **{"hidden_size": 16, "num_heads": 2, "max_length": 8, "batch_size": 16},
        "finetune.epochs": 2,
    }
    learning: ClassVar = {
        **{f"{stage}.{key}": value for stage in ("align", "finetune") for key, value in QUICK.items()},
        "finetune.epochs": 30,
    }
    diffuses = True


class TestCam(ModelContract):
    model = "adrec"
    preset = "cam"
    changes: ClassVar = {**TestDefault.changes}
    learning: ClassVar = {**{f"finetune.{key}": value for key, value in QUICK.items()}, "finetune.epochs": 30}


class TestPaper(ModelContract):
    model = "adrec"
    preset = "paper"
    changes: ClassVar = {**TINY, "pretrain.epochs": 2, "align.epochs": 1, "finetune.epochs": 2}
    learning: ClassVar = {
        "pretrain.epochs": 40,
        "pretrain.learning_rate": 0.01,
        "align.epochs": 2,
        "finetune.epochs": 10,
    }
    diffuses = True
