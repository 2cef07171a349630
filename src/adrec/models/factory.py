"""Builds a model from the user's options: a name, a preset, changes to it, and a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from adrec.config.base import TrainingConfig
from adrec.models.base import Model
from adrec.models.registry import find_model, model_names
from adrec.utils.errors import ConfigError, did_you_mean
from adrec.utils.text import counted

AUGMENTATIONS = ("diffuasr",)


def make_model(
    name: str = "adrec",
    preset: str = "default",
    changes: Mapping[str, Any] | None = None,
    max_epochs: int | None = None,
    augment: str | None = None,
) -> Model:
    """Return an untrained model with a preset's configuration and changes, at most ``max_epochs`` epochs per stage.

    ``augment`` names the augmentation of its training sequences: ``diffuasr``. Raises :class:`ConfigError` for invalid
    options.
    """
    model = find_model(name, imports=True)
    if augment is not None:
        if not issubclass(model.Config, TrainingConfig):
            raise ConfigError(f"{name} learns without epochs, so --augment means nothing to it.")
        if augment not in AUGMENTATIONS:
            near = did_you_mean(augment, AUGMENTATIONS)
            raise ConfigError(f"--augment must be one of {', '.join(AUGMENTATIONS)}; it is {augment!r}{near}.")
        changes = {"augment": True, **(changes or {})}
    if preset not in model.Config.presets and preset in model_names():
        raise ConfigError(
            f"{preset!r} is a model, not a preset; write --model {preset} (in Python ADRec(model={preset!r}))."
        )
    config = model.Config.make(preset, changes)
    if max_epochs is not None:
        if not isinstance(config, TrainingConfig):
            raise ConfigError(f"{name} learns without epochs, so --max-epochs means nothing to it.")
        config = config.with_max_epochs(max_epochs)
    return model(config)


def find_device(name: str) -> torch.device:
    """Return the device of ``name``; ``auto`` is a GPU if available. Raises :class:`ConfigError` if there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {name!r}; write auto, cpu, cuda or cuda:0.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} was asked for, but PyTorch finds no GPU here; write cpu.")
    found = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ConfigError(
            f"device {name!r} was asked for, but PyTorch finds {counted(found, 'GPU')} here; write cuda, or cuda:0."
        )
    return device
