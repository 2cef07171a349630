"""Augmentation in the loop: its stages, what each trains on, resuming, sharing; without it nothing is different."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adrec.augment.diffuasr import DiffuASRNetwork
from adrec.bench.grid import read_grid
from adrec.bench.ledger import Job
from adrec.bench.shared import FirstStages, first_stage_key
from adrec.config.adrec import Config, preset
from adrec.config.augmentation import DIFFUSION, PRETRAIN
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out, no_split
from adrec.models.factory import make_model
from adrec.models.registry import ADRecModel, NetworkModel, find_model
from adrec.nn.adrec import ADRecNetwork
from adrec.runs.folder import refit_config
from adrec.train.checkpoint import Snapshot
from adrec.train.cost import estimate
from adrec.train.loop import Trainer
from adrec.train.plan import make_plan
from adrec.utils.errors import ConfigError, DataError
from conftest import TINY, same

M, V = 2, 12
SMALL: dict[str, Any] = {
    "augment.method": "diffuasr",
    "augment.num_items": M,
    "augment.num_train_timesteps": 30,
    "augment.channels": 8,
    "augment.pretrain.epochs": 2,
    "augment.pretrain.first_evaluation": 2,
    "augment.diffusion.epochs": 3,
}
STAGES = [PRETRAIN, DIFFUSION, "pretrain", "align", "finetune"]

Make = Callable[..., Config]


@pytest.fixture
def small(tiny: Make) -> Config:
    return Config.make("paper", {**TINY, "pretrain.epochs": 2, "align.epochs": 1, "finetune.epochs": 2, **SMALL})


def trainer(config: Config, dataset: Dataset, device: torch.device | None = None, **options: Any) -> Trainer:
    return Trainer(config, dataset, leave_one_out(dataset), seed=1, device=device, **options)


def kept(snapshot: Snapshot) -> Snapshot:
    return Snapshot({name: value.clone() for name, value in snapshot.tensors.items()}, snapshot.values)


def test_stages_run_in_order_and_the_models_own_train_behind_the_prefixes(
    small: Config, dataset: Dataset, device: torch.device
) -> None:
    made = trainer(small, dataset, device)
    rows: list[Mapping[str, Any]] = []
    seen: dict[str, list[list[int]]] = {}
    step = made._step

    def look(how: Any, users: Any) -> Any:
        batch = made._current.batch(users)
        bounds = batch.cu_seqlens.tolist()
        whole = [[*batch.items[first:end].tolist(), int(batch.targets[end - 1])] for first, end in pairwise(bounds)]
        seen.setdefault(made.stages[made.place.stage][0], []).extend(whole)
        return step(how, users)

    made._step = look  # type: ignore[method-assign]
    made.on_epoch = rows.append
    assert isinstance(made.run(), ADRecNetwork)
    assert [stage["stage"] for stage in made.place.ended] == STAGES
    assert made.place.ended[1] == {"stage": DIFFUSION, "epochs": 3, "chosen_epoch": 3}
    assert all("validation" not in row and list(row["loss"]) == ["mse"] for row in rows if row["stage"] == DIFFUSION)
    assert made.prefixes is not None
    assert made.prefixes.shape == (60, M)
    assert 1 <= int(made.prefixes.min()) <= int(made.prefixes.max()) <= V
    split, starts = leave_one_out(dataset), dataset.offsets[:-1]
    parts = [dataset.items[a:b].tolist() for a, b in zip(starts, split.train_ends, strict=True)]
    augmented = [[*made.prefixes[user].tolist(), *part] for user, part in enumerate(parts)]
    for name, whole, least, length in (
        (PRETRAIN, parts, 2, 8),
        (DIFFUSION, parts, M + 2, 8 + M - 1),
        ("pretrain", augmented, 2, 8),
        ("finetune", augmented, 2, 8),
    ):
        expected = sorted(each[-length - 1 :] for each in whole if len(each) >= least)
        epochs = next(stage["epochs"] for stage in made.place.ended if stage["stage"] == name)
        assert sorted(seen[name]) == sorted(expected * epochs), name


def test_users_with_one_interaction_are_made_learnable(small: Config) -> None:
    rows = [(user, f"item {(user + step) % 9}", step) for user in range(30) for step in range(1 if user % 3 else 8)]
    made = trainer(small, prepare(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")))
    assert [len(made.sequences[name]) for name in STAGES] == [10, 10, 30, 30, 30]
    assert made.num_tokens == 20 * M + 10 * 7  # 8 interactions are 6 in training
    made.run()


def test_resuming_from_any_epoch_gives_the_same_bits(small: Config, dataset: Dataset, device: torch.device) -> None:
    whole = trainer(small, dataset, device)
    snapshots: list[Snapshot] = []
    whole.on_epoch = lambda _: snapshots.append(kept(whole.snapshot()))
    expected = whole.run()
    assert len(snapshots) == 10
    assert whole.prefixes is not None
    for snapshot in snapshots:
        resumed = trainer(small, dataset, device)
        resumed.order.manual_seed(99)
        resumed.rng.manual_seed(99)
        resumed.restore(snapshot)
        assert same(resumed.run(), expected)
        assert resumed.prefixes is not None
        assert torch.equal(resumed.prefixes, whole.prefixes) or device.type != "cpu"


def test_prefixes_are_not_generated_again_after_a_resumption(
    small: Config, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer(small, dataset)
    snapshots: list[Snapshot] = []
    whole.on_epoch = lambda _: snapshots.append(kept(whole.snapshot()))
    whole.run()
    monkeypatch.setattr(DiffuASRNetwork, "prefixes", None)
    for snapshot in snapshots[4:]:  # with the last epoch of the diffusion
        resumed = trainer(small, dataset)
        resumed.restore(snapshot)
        resumed.run()


def test_the_embedding_is_frozen_in_the_diffusion_and_the_models_own_is_independent(
    small: Config, dataset: Dataset
) -> None:
    made = trainer(small, dataset)
    by_stage: dict[str, torch.Tensor] = {}
    first: dict[str, torch.Tensor] = {}

    def look(row: Mapping[str, Any]) -> None:
        assert made.network is not None
        weight = made.network.item_embedding.weight.detach().clone()
        first.setdefault(row["stage"], weight)
        by_stage[row["stage"]] = weight

    made.on_epoch = look
    made.run()
    assert torch.equal(by_stage[DIFFUSION], by_stage[PRETRAIN])
    assert torch.equal(first[DIFFUSION], by_stage[PRETRAIN])
    own = {"batch_size": 16, "pretrain.epochs": 0, "finetune.initial_embedding": "random"}
    alone = Config.make(changes={**small.to_dict()["model"], **own})
    without = trainer(replace(alone, augment=small.augment), dataset)
    without._forget()
    without.place.stage = 2
    without._begin(without.stages[2][1])
    assert without.network is not None
    fresh = trainer(alone, dataset)
    fresh._begin(fresh.stages[0][1])
    assert fresh.network is not None
    assert same(without.network, fresh.network)  # align without pretrain begins with new weights, augmented or not


def test_without_augmentation_its_settings_change_nothing(tiny: Make, dataset: Dataset) -> None:
    plain = trainer(tiny(), dataset)
    other = trainer(tiny(augment__channels=64, augment__num_items=3, augment__diffusion__epochs=1), dataset)
    assert plain.prefixes is None
    assert set(plain.networks) == {"adrec", "sasrec"}
    assert not any(name.startswith("augment") for name in plain.snapshot().tensors)
    assert same(plain.run(), other.run())
    assert [stage["stage"] for stage in plain.place.ended] == ["pretrain", "align", "finetune"]


def job(config: Config) -> Job:
    return Job("data", "f", "leave-one-out", "label", "adrec", config.to_dict(), 1)


def test_a_jobs_key_knows_of_augmentation_only_where_there_is_one(tiny: Make) -> None:
    plain, idle, on = (job(tiny(**each)) for each in ({}, {"augment__num_items": 3}, {"augment__method": "diffuasr"}))
    before = replace(plain, config={key: value for key, value in plain.config.items() if key != "augment"})
    assert before.key == plain.key == idle.key != on.key


@pytest.mark.parametrize("model", ["gru4rec", "sasrec+", "bert4rec", "diffrec"])
def test_other_networks_train_on_it(model: str, dataset: Dataset) -> None:
    found = find_model(model)
    size = {"model.hidden_size": 16, "model.max_length": 8, "batch_size": 16, "train.epochs": 1}
    made = found(found.Config.make(changes={**size, **SMALL}))
    assert isinstance(made, NetworkModel)
    made.fit(dataset, leave_one_out(dataset), seed=1)
    plain = found(found.Config.make(changes=size))
    plain.fit(dataset, leave_one_out(dataset), seed=1)
    assert any(not torch.equal(value, plain.state()[name]) for name, value in made.state().items())
    again = found(made.config)
    again.restore(made.state(), made.num_items)


def test_too_short_data_are_refused_before_training(small: Config, dataset: Dataset) -> None:
    longest = int(np.diff(dataset.offsets).max()) - 2
    config = replace(small, augment=replace(small.augment, num_items=longest - 1))
    with pytest.raises(DataError, match=f"{longest + 1} training interactions .* 0; set augment.num_items, now"):
        trainer(config, dataset)
    with pytest.raises(DataError, match="no user has two interactions"):
        trainer(small, prepare(pl.DataFrame({"user": [1, 2], "item": ["a", "b"], "time": [1, 2]})))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"augment.method": "difuasr"}, "did you mean 'diffuasr'?"),
        ({"augment.num_items": 0}, "augment.num_items must be at least 1; it is 0"),
        ({"augment.channels": 0}, "augment.channels must be at least 1"),
        ({"augment.dropout": 1.0}, "augment.dropout must be in [0, 1)"),
        ({"augment.num_inference_steps": 1001}, "augment.num_inference_steps must lie between 1 and"),
        ({"augment.method": "diffuasr", "augment.pretrain.epochs": 0}, "augment.pretrain.epochs must be at least 1"),
        ({"augment.method": "diffuasr", "augment.diffusion.epochs": 9999}, "set augment.diffusion.schedule_epochs too"),
        ({"augment.noise_schedule": "linea"}, "did you mean 'linear'?"),
        ({"augment.chanels": 8}, "did you mean 'augment.channels'?"),
        ({"channels": 8}, "no configuration key 'channels'"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preset(changes=changes)
    assert sentence in str(caught.value)


def test_epochs_of_every_stage_are_limited_and_refitted(small: Config, dataset: Dataset) -> None:
    assert [stage.epochs for stage in small.with_max_epochs(1).all_stages.values()] == [1] * 5
    made = trainer(small, dataset)
    made.run()
    refitted = refit_config(small, made.place.ended)
    assert isinstance(refitted, Config)
    chosen = {stage["stage"]: stage["chosen_epoch"] for stage in made.place.ended}
    assert {name: stage.epochs for name, stage in refitted.all_stages.items()} == chosen
    Trainer(refitted, dataset, no_split(dataset), seed=1).run()


def test_a_plan_and_an_estimate_know_the_stages(small: Config, dataset: Dataset) -> None:
    planned = trainer(small, dataset)
    plan, cost = make_plan(planned), estimate(planned)
    assert list(plan.epochs) == list(plan.flop) == list(cost.stages) == STAGES
    assert cost.stages[DIFFUSION].validation == 0
    assert all(stage.total > 0 for stage in cost.stages.values())
    assert DIFFUSION in cost.sentence()
    network = planned.run()
    assert plan.disk["finished"] == 4 * sum(parameter.numel() for parameter in network.parameters())
    assert same(network, trainer(small, dataset).run())  # planning changed nothing


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({"augment.num_items": 3}, True),
        ({"augment.channels": 4}, True),
        ({"augment.diffusion.epochs": 2}, True),
        ({"finetune.epochs": 3}, True),
        ({"model.dropout": 0.5}, True),  # of the model's own networks
        ({"augment.pretrain.learning_rate": 0.01}, False),
        ({"model.hidden_size": 8}, False),
        ({"model.max_length": 6}, False),
        ({"batch_size": 20}, False),
    ],
)
def test_what_the_shared_first_stage_depends_on(
    small: Config, dataset: Dataset, changes: Mapping[str, Any], shared: bool
) -> None:
    def first_stage(config: Config) -> tuple[str | None, dict[str, torch.Tensor]]:
        made, ended = trainer(config, dataset), {}
        made.on_stage = lambda name: ended.setdefault(name, made.kept.selected)
        made.run()
        return first_stage_key(ADRecModel(config), "f", "s", 1), ended[PRETRAIN]

    base = {**TINY, **SMALL, "pretrain.epochs": 1, "align.epochs": 1, "finetune.epochs": 1}
    key, weights = first_stage(Config.make(changes=base))
    other_key, other = first_stage(Config.make(changes={**base, **changes}))
    assert (key == other_key) is shared
    alike = all(value.shape == other[name].shape and torch.equal(value, other[name]) for name, value in weights.items())
    assert alike is shared
    assert key != first_stage_key(ADRecModel(Config.make(changes={**base, "augment.method": "none"})), "f", "s", 1)


def test_tokens_of_a_step_are_the_models_own(small: Config, dataset: Dataset) -> None:
    """An augmentation's networks have batch_size users a step, the model's stages fewer; a plan counts those."""
    made = trainer(replace(small, tokens_per_step=30), dataset)
    own, augmenting = made.own_sequences, made.sequences[DIFFUSION]
    assert made.users_per_step(augmenting) == min(small.batch_size, len(augmenting))
    assert made.users_per_step(own) == 30 * len(own) // own.num_tokens < made.users_per_step(augmenting)
    assert make_plan(made).data["steps"] == made.steps_per_epoch > trainer(small, dataset).steps_per_epoch


def test_a_shared_first_stage_gives_the_same_bits(small: Config, dataset: Dataset, tmp_path: Path) -> None:
    shared, networks = FirstStages(tmp_path), []
    for _ in range(2):
        made = trainer(small, dataset)
        key = first_stage_key(ADRecModel(small), "f", "s", 1)
        with shared.lent(made, key, {"seconds": 0.0, "core_seconds": 0.0}, lambda: None) as taken:
            networks.append(made.run())
    assert taken
    assert same(*networks)
    assert same(networks[0], trainer(small, dataset).run())


def test_models_without_epochs_are_refused() -> None:
    with pytest.raises(ConfigError, match="ease learns without epochs, so --augment means nothing to it."):
        make_model("ease", augment="diffuasr")
    made = make_model("sasrec+", augment="diffuasr", max_epochs=1)
    assert [stage.epochs for stage in made.config.all_stages.values()] == [1, 1, 1]  # type: ignore[attr-defined]


def test_a_grid_names_it_as_a_change(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(
        '[augmented]\nmodel = "sasrec+"\nset = { "augment.method" = "diffuasr", "augment.num_items" = 4 }\n'
    )
    (entry,) = read_grid(grid)
    config = entry.config()
    assert list(config.all_stages) == [PRETRAIN, DIFFUSION, "train"]  # type: ignore[attr-defined]
    assert config.to_dict()["augment"]["num_items"] == 4
