"""The plan of a training: what it costs, and the ways of training against a large catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from adrec.data.dataset import Dataset, open_dataset
from adrec.data.split import Split, make_split
from adrec.models.adrec import ADRecModel
from adrec.models.base import Model
from adrec.models.factory import find_device
from adrec.models.network import NetworkModel
from adrec.runs.fit import make_trainers
from adrec.train.cost import estimate
from adrec.train.plan import TrainingPlan, make_plan
from adrec.utils.errors import ConfigError

LARGE = 50_000  # items, from which on a plan compares the ways of training
WAYS: Mapping[str, Mapping[str, Any]] = {
    "the whole softmax": {"rows": False, "negatives": 0},
    "1,000 drawn items, every row trained (negatives=1000)": {"rows": False, "negatives": 1000},
    "1,000 drawn items, only their rows trained (rows=true)": {"rows": True},
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
    return replace(made, ways=dict(ways(model, dataset, split, where)))


def ways(model: ADRecModel, dataset: Dataset, split: Split, device: torch.device) -> Iterator[tuple[str, float]]:
    """Yield each way of training ADRec's last stage against the catalogue, and the seconds of an epoch by it."""
    stages = [name for name, stage in model.training.stages.items() if stage.epochs and stage.optimizer == "adamw"]
    for words, changes in WAYS.items():
        given = {f"{name}.{key}": value for name in stages for key, value in changes.items()}
        config = model.training.changed(given)
        (trainer,) = make_trainers(ADRecModel(config), dataset, split, seed=0, device=device, validate_users=1)
        yield words, list(estimate([trainer]).stages.values())[-1].epoch
