"""ADRec's presets, as changes to the default configuration (:class:`adrec.config.adrec.Config`)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Three quarters of the width, a softmax over part of the catalogue and half the consistency need fewer epochs. Half the
# feed-forward and heads, and no sink, shorten an epoch. Fewer users per step need fewer epochs if histories are long.
_FAST: dict[str, Any] = {
    "tokens_per_step": 1024,
    "model.hidden_size": 96,
    "model.num_heads": 2,
    "model.feed_forward_ratio": 2,
    "model.attend_padding": False,
    "finetune.negatives": 1000,
    "finetune.consistency": 5.0,
    "finetune.averaging": 0.995,
    "finetune.patience": 3,
}

_SIX_METRICS = tuple(f"{metric}@{k}" for metric in ("hr", "ndcg") for k in (5, 10, 20))

_PAPER: dict[str, Any] = {
    "batch_size": 512,
    "model.max_length": 50,
    "model.embedding_dropout": 0.3,
    "model.dropout": 0.1,
    "model.positions": "none",
    "model.repeat_bias": False,
    "model.drops_normalized": False,
    "model.embedding_std": 1.0,
    "model.diffusion": True,
    "pretrain": True,
    "align": True,
    "align.loss": "ce+mse",
    "finetune.epochs": 495,
    "finetune.start": "continue",
    "finetune.initial_embedding": "random",
    "finetune.loss": "ce+mse",
    "finetune.consistency": 0.0,
    "finetune.optimizer": "adam",
    "finetune.learning_rate": 1e-3,
    "finetune.weight_decay": 1e-5,
    "finetune.beta2": 0.999,
    "finetune.warmup_epochs": 0,
    "finetune.schedule": "cosine",
    "finetune.averaging": 0.0,
    "finetune.first_evaluation": 1,
    "finetune.evaluate_every": 5,
    "finetune.patience": 4,
    **{f"{stage}.filter_seen": False for stage in ("pretrain", "align", "finetune")},
}

_PUBLISHED: dict[str, Any] = {
    **_PAPER,
    "model.padding_class": True,
    "model.diffusion.num_inference_steps": 32,
    "align.embedding": "decaying",
    **{f"{stage}.select_by": _SIX_METRICS for stage in ("pretrain", "align", "finetune")},
}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": MappingProxyType({}),
        "fast": MappingProxyType(_FAST),
        "paper": MappingProxyType(_PAPER),
        "published": MappingProxyType(_PUBLISHED),
    }
)
