"""What several test files share: small data with a known answer, a configuration that trains in moments."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings

from adrec.config.adrec import Config, ModelConfig, preset
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare

torch.set_num_threads(1)
pytest.register_assert_rewrite("models.contract")  # its tests are imported, which pytest cannot know

# The same examples every time, unless new ones are asked for: HYPOTHESIS_PROFILE=explore pytest ...
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_heads": 2,
    "max_length": 8,
    "num_train_timesteps": 4,
    "num_inference_steps": 4,
    "batch_size": 16,
    "pretrain.first_evaluation": 2,
    "pretrain.evaluate_every": 2,
    "finetune.evaluate_every": 2,
}


def paper_model(**changes: Any) -> ModelConfig:
    """Return the paper's network with changes of its fields."""
    return replace(preset("paper").model, **changes)


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """Return a maker of small configurations; changes are given by key."""

    def make(epochs: tuple[int, int, int] = (3, 2, 3), **changes: Any) -> Config:
        counts = dict(zip(("pretrain.epochs", "align.epochs", "finetune.epochs"), epochs, strict=True))
        return preset("paper", {**TINY, **counts, **{key.replace("__", "."): value for key, value in changes.items()}})

    return make


def cyclic_table(num_users: int = 60, num_items: int = 12, seed: int = 0) -> pl.DataFrame:
    """Return interactions in which every item is followed by the next one, from a random start: the answer is known."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        start, length = rng.integers(num_items), rng.integers(5, 12)
        rows += [(f"user {user}", f"item {(start + step) % num_items}", step) for step in range(length)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="session", params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return each device that is here. The same bits twice are promised on the CPU alone."""
    return torch.device(request.param)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two trainings agree: in every bit on a CPU, elsewhere but for rounding, which Adam scales up."""
    return torch.equal(a, b) if a.is_cpu else float((a - b).norm()) <= 0.001 * float(b.norm())


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Return whether the weights of two trainings agree, but for biases of keys: they have no gradient but rounding."""
    one, other = ({n: v for n, v in each.state_dict().items() if v.is_cpu or "value.bias" not in n} for each in (a, b))
    return all(equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def interactions() -> pl.DataFrame:
    """Return the table of :func:`cyclic_table`."""
    return cyclic_table()


@pytest.fixture
def dataset(interactions: pl.DataFrame) -> Dataset:
    """Return the prepared data set of :func:`cyclic_table`."""
    return prepare(interactions)
