"""ADRec's presets, as changes to the default configuration (:class:`adrec.config.adrec.Config`)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# The causal attention module alone: neither diffusion nor the stages before it.
_CAM: dict[str, Any] = {
    "model.diffusion": False,
    "pretrain": False,
    "align": False,
    "finetune.start": "scratch",
    "finetune.initial_embedding": "cooccurrence",
    "finetune.warmup_epochs": 1,
    "finetune.first_evaluation": 3,
    "finetune.patience": 5,
}

# Three quarters of the width, a softmax over part of the catalogue and half the consistency need fewer epochs. Half the
# feed-forward and heads, and no sink, shorten an epoch. Fewer users per step need fewer epochs if histories are long.
_FAST: dict[str, Any] = {
    **_CAM,
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

# For catalogues of 100,000 items and more: a step's cost does not depend on the catalogue.
_LARGE: dict[str, Any] = {
    **_FAST,
    "tokens_per_step": 4096,
    "batch_size": 1024,
    "model.hidden_size": 64,
    "finetune.rows": True,
    "finetune.rows.drawn": 2000,
}

_SIX_METRICS = tuple(f"{metric}@{k}" for metric in ("hr", "ndcg") for k in (5, 10, 20))

_ADAM: dict[str, Any] = {
    "future_items": 1,
    "mse_weight": 1.0,
    "consistency": 0.0,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 1e-5,
    "beta2": 0.999,
    "schedule": "cosine",
    "averaging": 0.0,
}

_PAPER: dict[str, Any] = {
    "batch_size": 512,
    "model.max_length": 50,
    "model.embedding_dropout": 0.3,
    "model.dropout": 0.1,
    "model.positions": "none",
    "model.repeat_bias": False,
    "model.drops_normalized": False,
    "model.embedding_std": 1.0,
    "model.diffusion.adm_blocks": 2,
    "pretrain.epochs": 500,
    "pretrain.initial_embedding": "random",
    "align.epochs": 5,
    "align.warmup_epochs": 0,
    "finetune.epochs": 495,
    "finetune.evaluate_every": 5,
    "finetune.patience": 4,
    **{f"{stage}.{key}": value for stage in ("align", "finetune") for key, value in _ADAM.items()},
    **{f"{stage}.seen": "keep" for stage in ("pretrain", "align", "finetune")},
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
        "cam": MappingProxyType(_CAM),
        "fast": MappingProxyType(_FAST),
        "large": MappingProxyType(_LARGE),
        "paper": MappingProxyType(_PAPER),
        "published": MappingProxyType(_PUBLISHED),
    }
)
