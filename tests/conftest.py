"""What several test files share: small data with a known answer, a configuration that trains in moments."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings

import command
from adrec.config.adrec import Config, ModelConfig, preset
from adrec.config.diffusion import AblationConfig, DiffusionConfig
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.split import Split, leave_one_out
from adrec.models.adrec import ADRecModel
from adrec.nn.ablation.network import AblationNetwork
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import make_network
from adrec.train.callbacks import Callback
from adrec.train.checkpoint import Snapshot
from adrec.train.loop import Trainer
from adrec.utils.sealed import write_sealed

torch.set_num_threads(1)
pytest.register_assert_rewrite("models.contract")  # its tests are imported, which pytest cannot know

# The same examples every time, unless new ones are asked for: HYPOTHESIS_PROFILE=explore pytest ...
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

STAGES = ("pretrain", "align", "finetune")
SMALL: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "max_length": 8, "batch_size": 16}
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
    """Return the paper's network with changes of its fields, in whichever group they are."""
    model = preset("paper").model
    own, diffusion, ablation = (
        {name: changes.pop(name) for name in list(changes) if name in group.__dataclass_fields__}
        for group in (ModelConfig, DiffusionConfig, AblationConfig)
    )
    assert not changes, changes
    assert model.diffusion is not None
    own.setdefault("diffusion", replace(model.diffusion, **diffusion))
    if AblationConfig(**ablation) != AblationConfig():
        own["ablation"] = AblationConfig(**ablation)
    return replace(model, **own)


def paper_network(config: ModelConfig, num_items: int) -> ADRecNetwork:
    """Return ADRec's network of a configuration."""
    return make_network(AblationNetwork if config.ablation else ADRecNetwork, config, num_items)


def stages(*epochs: int) -> dict[str, Any]:
    """Return the changes that give the stages of ADRec so many epochs each; 0 leaves one out."""
    found: dict[str, Any] = {}
    for name, count in zip(STAGES, epochs, strict=True):
        found |= {name: True, f"{name}.epochs": count} if count else {name: False}
    if not epochs[0]:  # who starts from the stage before, where none is?
        found |= {"align.start": "scratch", "align.embedding": "train"} if epochs[1] else {"finetune.start": "scratch"}
    elif not epochs[1] and epochs[2]:
        found["finetune.start"] = "embedding"
    return found


def tiny_changes(*epochs: int, **more: Any) -> dict[str, Any]:
    """Return the changes of the paper's preset that make a tiny ADRec with so many epochs in its stages."""
    absent = [name for name, count in zip(STAGES, epochs, strict=True) if not count]
    wanted = {key: value for key, value in {**TINY, **more}.items() if value is not None}
    return grouped({**stages(*epochs), **{k: v for k, v in wanted.items() if k.partition(".")[0] not in absent}})


def grouped(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes of ADRec with the group of ablations, where they are of it."""
    used = any(key.rpartition(".")[2] in AblationConfig.__dataclass_fields__ for key in changes)
    return {**({"model.ablation": True} if used else {}), **changes}


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """Return a maker of small configurations; changes are given by key."""

    def make(epochs: tuple[int, int, int] = (3, 2, 3), **changes: Any) -> Config:
        given = {key.replace("__", "."): value for key, value in changes.items()}
        return preset("paper", tiny_changes(*epochs, **given))

    return make


class OnEpoch(Callback):
    """Calls a function with the row of each epoch."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function

    def on_epoch_end(self, row: Mapping[str, object]) -> None:
        self.function(row)


def adrec_trainer(
    config: Config, dataset: Dataset, split: Split, on_epoch: Callable[[Any], object] | None = None, **options: Any
) -> Trainer:
    """Return the trainer of an ADRec; ``on_epoch`` is called with the row of each epoch."""
    callbacks = [*options.pop("callbacks", ()), *([OnEpoch(on_epoch)] if on_epoch else [])]
    networks = options.pop("networks", ADRecModel(config).networks)
    return Trainer(config, dataset, split, networks=networks, callbacks=callbacks, **options)


def trained_and_resumed(config: Config, dataset: Dataset) -> tuple[torch.nn.Module, list[torch.nn.Module]]:
    """Return the network of a training, and those of trainings that resume after each of its epochs."""
    snapshots: list[Snapshot] = []
    whole = adrec_trainer(config, dataset, leave_one_out(dataset), seed=1)

    def keep(_: object) -> None:
        made = whole.snapshot()
        snapshots.append(Snapshot({name: value.clone() for name, value in made.tensors.items()}, made.values))

    whole.callbacks.append(OnEpoch(keep))
    network, others = whole.run(), []
    for snapshot in snapshots:
        resumed = adrec_trainer(config, dataset, leave_one_out(dataset), seed=1)
        resumed.restore(snapshot)
        others.append(resumed.run())
    return network, others


def cyclic_table(num_users: int = 60, num_items: int = 12, seed: int = 0) -> pl.DataFrame:
    """Return interactions in which every item is followed by the next one, from a random start: the answer is known."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        start, length = rng.integers(num_items), rng.integers(5, 12)
        rows += [(f"user {user}", f"item {(start + step) % num_items}", step) for step in range(length)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of a small model on data with times in seconds; its data set is the folder ``data`` beside it."""
    folder = tmp_path_factory.mktemp("small")
    cyclic_table(num_users=120).write_csv(folder / "table.csv")
    assert command.adrec("prepare", "table.csv", "--time-unit", "s", "--out", "data", cwd=folder).returncode == 0
    done = command.adrec("train", "data", "--out", "run", *command.SMALL, "--max-epochs", "4", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="session", params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return each device that is here. The same bits twice are promised on the CPU alone."""
    return torch.device(request.param)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two trainings agree: in every bit on a CPU, elsewhere but for rounding, which Adam scales up."""
    return torch.equal(a, b) if a.is_cpu else float((a - b).norm()) <= 0.001 * float(b.norm())


def interrupt_after(epochs: int) -> OnEpoch:
    seen: list[object] = []

    def count(row: object) -> None:
        seen.append(row)
        if len(seen) == epochs:
            raise KeyboardInterrupt

    return OnEpoch(count)


def reseal(path: Path, **changes: Any) -> None:
    """Change some values of a sealed JSON file, as a forger would who knows how it is sealed."""
    values = {**json.loads(path.read_bytes()), **changes}
    values.pop("digest", None)
    write_sealed(path, values)


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
