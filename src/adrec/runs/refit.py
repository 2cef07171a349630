"""The configuration of a refit: the number of epochs chosen in each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from adrec.config.base import Settings, TrainingConfig
from adrec.utils.errors import ConfigError


def refit_config(config: Settings, stages: Sequence[Mapping[str, Any]]) -> Settings:
    """Return ``config`` with the number of epochs chosen in each finished stage.

    A stage that the next one continues keeps all its epochs, because the next one starts from its last weights. Raises
    :class:`ConfigError` if no stage was trained.
    """
    if not isinstance(config, TrainingConfig):
        return config
    if not stages:
        raise ConfigError("its weights were not trained here, so no numbers of epochs were chosen; train a run first.")
    stages_of = {**(config.augment.stages if config.augment else {}), **config.stages}
    epochs = {}
    for stage, following in zip_longest(stages, stages[1:]):
        own, then = (None if each is None else stages_of[each["stage"]] for each in (stage, following))
        continued = own and then and then.start == "continue"
        epochs[stage["stage"]] = stage["epochs" if continued else "chosen_epoch"]
    return config.with_epochs(epochs)
