"""The plan of a training: what it costs, and the ways of training against a large catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from adrec.config.base import TrainingConfig
from adrec.config.stage import StageConfig
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.split import Split, make_split
from adrec.models.adrec import ADRecModel
from adrec.models.base import Model
from adrec.models.factory import find_device
from adrec.models.network import NetworkModel
from adrec.runs.fit import make_trainers
from adrec.train.cost import estimate
from adrec.train.plan import TrainingPlan, Way, make_plan
from adrec.utils.errors import ConfigError

LARGE = 50_000  # items, from which on a plan compares the ways of training
WAYS: Mapping[str, Mapping[str, Any]] = {
    "the whole softmax": {"rows": False, "buckets": False, "negatives": 0},
    "{drawn} drawn items, every row trained": {"rows": False, "buckets": False, "negatives": 1000},
    "{drawn} drawn items, only their rows trained": {"buckets": False, "rows": True},
    "buckets of items, the next item, one pass": {
        "rows": False,
        "buckets": True,
        "consistency": 0.0,
        "future_items": 1,
    },
}


def plan(data: Path, model: Model, *, device: str, validate_users: int | None = None) -> TrainingPlan:
    """Return the estimated cost of training on the prepared data set ``data``, with its own split.

    Raises :class:`ConfigError` for a model without epochs.
    """
    if not isinstance(model, NetworkModel):
        raise ConfigError(f"{model.name} learns without epochs, in moments; there is nothing to plan.")
    dataset = open_dataset(data)
    dataset.verify()
    split = make_split(dataset, None)
    where = find_device(device)
    made = make_plan(make_trainers(model, dataset, split, seed=0, device=where, validate_users=validate_users))
    if split.num_items < LARGE or not isinstance(model, ADRecModel):
        return made
    found = dict(ways(model, dataset, split, where))
    return replace(made, ways=found) if len(found) > 1 else made


def configurations(config: TrainingConfig) -> Iterator[tuple[str, TrainingConfig, Mapping[str, Any]]]:
    """Yield the ways of training the last stage against the catalogue that the other settings allow.

    Each has its name, its configuration, and the changes that lead to it by full key. Earlier stages with a softmax are
    trained in the same way, where they can be.
    """
    softmax = {
        name: stage
        for name, stage in config.stages.items()
        if stage.epochs and (not stage.loss_weights or "ce" in stage.loss_weights)
    }
    last = list(config.stages)[-1]
    for words, changes in WAYS.items():
        some = [name for name, stage in softmax.items() if stage.optimizer == "adamw" or not changes.get("rows")]
        given = {
            f"{name}.{key}": value
            for name in some
            for key, value in changes.items()
            if _is_changed(softmax[name], key, value)
        }
        if last not in some:
            continue
        with suppress(ConfigError):  # such as a stage that goes on with the optimizer of one that cannot
            made = config.changed(given)
            yield words.format(drawn=f"{made.stages[last].drawn or 0:,}"), made, given


def _is_changed(stage: StageConfig, key: str, value: Any) -> bool:
    """Return whether ``value`` is another than that of a stage's key; a group is true if it is there."""
    now = getattr(stage, key)
    return bool((now is not None if isinstance(value, bool) else now) != value)


def ways(model: ADRecModel, dataset: Dataset, split: Split, device: torch.device) -> Iterator[tuple[str, Way]]:
    """Yield each way of training ADRec's last stage against the catalogue, and what an epoch by it costs."""
    for words, config, changes in configurations(model.training):
        (trainer,) = make_trainers(ADRecModel(config), dataset, split, seed=0, device=device, validate_users=1)
        yield words, Way(list(estimate([trainer]).stages.values())[-1].epoch, changes)
