"""Augmentation before a training: its stages, what each trains on, resuming, sharing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adrec.augment.diffuasr import DiffuASRNetwork
from adrec.augment.model import augmentation_trainer
from adrec.bench.grid import read_grid
from adrec.bench.ledger import Job
from adrec.bench.shared import SharedFirstStage, first_stage_key
from adrec.config.adrec import Config, preset
from adrec.config.augmentation import DIFFUSION, PRETRAIN
from adrec.data.dataset import Dataset, write_dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out, no_split
from adrec.models.adrec import ADRecModel
from adrec.models.factory import make_model
from adrec.models.network import NetworkModel
from adrec.models.registry import find_model
from adrec.nn.adrec import ADRecNetwork
from adrec.runs.fit import fit, make_trainers
from adrec.runs.folder import Run, open_or_create
from adrec.runs.info import RunInfo
from adrec.runs.refit import refit_config
from adrec.train.callbacks import Callback
from adrec.train.cost import estimate
from adrec.train.loop import Trainer
from adrec.train.plan import make_plan
from adrec.utils.errors import ConfigError, DataError
from conftest import TINY, OnEpoch, same

M, V = 2, 12
SMALL: dict[str, Any] = {
    "augment": True,
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
def small() -> Config:
    return Config.make("paper", {**TINY, "pretrain.epochs": 2, "align.epochs": 1, "finetune.epochs": 2, **SMALL})


def trainers(config: Config, dataset: Dataset, device: torch.device | None = None) -> list[Trainer]:
    return make_trainers(ADRecModel(config), dataset, leave_one_out(dataset), seed=1, device=device)


def trained(
    config: Config, dataset: Dataset, device: torch.device | None = None, callbacks: Sequence[Callback] = ()
) -> tuple[ADRecModel, list[Mapping[str, Any]]]:
    """Return the trained model and what each stage did."""
    model = ADRecModel(config)
    stages = fit(model, dataset, leave_one_out(dataset), seed=1, device=device, callbacks=callbacks)
    return model, list(stages)


class Watch(Callback):
    """Notes the trainers, and the sequences that each stage trains on."""

    def __init__(self) -> None:
        self.trainers: Sequence[Trainer] = ()
        self.seen: dict[str, list[list[int]]] = {}

    @contextmanager
    def around(self, trainers: Sequence[Trainer]) -> Iterator[None]:
        self.trainers = trainers
        for trainer in trainers:
            trainer._step = self.look(trainer, trainer._step)  # type: ignore[method-assign]
        yield

    def look(self, trainer: Trainer, step: Any) -> Any:
        def looking(how: Any, batch: Any, *more: Any) -> Any:
            bounds = batch.cu_seqlens.tolist()
            whole = [[*batch.items[a:b].tolist(), int(batch.targets[b - 1])] for a, b in pairwise(bounds)]
            self.seen.setdefault(trainer.stages[trainer.progress.stage][0], []).extend(whole)
            return step(how, batch, *more)

        return looking


def test_stages_run_in_order_and_the_models_own_train_behind_the_prefixes(
    small: Config, dataset: Dataset, device: torch.device
) -> None:
    rows: list[Mapping[str, Any]] = []
    watch = Watch()
    model, stages = trained(small, dataset, device, [watch, OnEpoch(rows.append)])
    assert isinstance(model.network, ADRecNetwork)
    assert [stage["stage"] for stage in stages] == STAGES
    assert (stages[1]["stage"], stages[1]["epochs"], stages[1]["chosen_epoch"]) == (DIFFUSION, 3, 3)
    assert all("validation" not in row and list(row["loss"]) == ["mse"] for row in rows if row["stage"] == DIFFUSION)
    own, split, starts = watch.trainers[1], leave_one_out(dataset), dataset.offsets[:-1]
    sequences = own.last_sequences
    prefixes = sequences.items[sequences.starts[:, None] + np.arange(M)]
    assert prefixes.shape == (60, M)
    assert 1 <= int(prefixes.min()) <= int(prefixes.max()) <= V
    parts = [dataset.items[a:b].tolist() for a, b in zip(starts, split.train_ends, strict=True)]
    augmented = [[*prefixes[user].tolist(), *part] for user, part in enumerate(parts)]
    for name, whole, least, length in (
        (PRETRAIN, parts, 2, 8),
        (DIFFUSION, parts, M + 2, 8 + M - 1),
        ("pretrain", augmented, 2, 8),
        ("finetune", augmented, 2, 8),
    ):
        expected = sorted(each[-length - 1 :] for each in whole if len(each) >= least)
        epochs = next(stage["epochs"] for stage in stages if stage["stage"] == name)
        assert sorted(watch.seen[name]) == sorted(expected * epochs), name


def test_users_with_one_interaction_are_made_learnable(small: Config) -> None:
    rows = [(user, f"item {(user + step) % 9}", step) for user in range(30) for step in range(1 if user % 3 else 8)]
    data = prepare(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"))
    lengths = {name: len(each) for trainer in trainers(small, data) for name, each in trainer.sequences.items()}
    assert list(lengths.items()) == list(zip(STAGES, [10, 10, 30, 30, 30], strict=True))
    assert trainers(small, data)[-1].last_sequences.num_tokens == 20 * M + 10 * 7  # 8 interactions are 6 in training
    trained(small, data)


class Cut(Callback):
    """Ends a training after so many epochs in all, as a kill would."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def on_epoch_end(self, row: Mapping[str, object]) -> None:
        self.left -= 1
        if self.left == 0:
            raise TimeoutError


@pytest.mark.slow
def test_resuming_from_any_epoch_gives_the_same_bits(
    small: Config, dataset: Dataset, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(dataset, tmp_path / "data")
    split, generated = leave_one_out(dataset), []
    generate = DiffuASRNetwork.prefixes
    monkeypatch.setattr(DiffuASRNetwork, "prefixes", lambda *given: generated.append(1) or generate(*given))

    def run_of(name: str, *callbacks: Callback) -> ADRecModel:
        model = ADRecModel(small)
        info = RunInfo.of(dataset, split, seed=1, device=str(device))
        with open_or_create(tmp_path / name, model, info, dataset) as run:
            run.finish(model, fit(model, dataset, split, run, seed=1, device=device, callbacks=callbacks))
        assert not (tmp_path / name / "prefixes.safetensors").exists()
        assert len(run.rows()) == 10
        return model

    expected = run_of("whole").network
    for epochs in range(1, 11):
        with pytest.raises(TimeoutError):
            run_of(f"cut {epochs}", Cut(epochs))
        count = len(generated)
        resumed = run_of(f"cut {epochs}")
        assert isinstance(resumed.network, ADRecNetwork) and isinstance(expected, ADRecNetwork)
        assert same(resumed.network, expected)
        assert len(generated) - count == (epochs <= 5), "prefixes that are kept are not generated again"


def test_the_embedding_is_frozen_in_the_diffusion_and_the_models_own_is_independent(
    small: Config, dataset: Dataset
) -> None:
    watch, by_stage, first = Watch(), {}, {}

    def look(row: Mapping[str, Any]) -> None:
        network = watch.trainers[row["stage"] not in (PRETRAIN, DIFFUSION)].network
        assert network is not None
        by_stage[row["stage"]] = network.item_embedding.weight.detach().clone()
        first.setdefault(row["stage"], by_stage[row["stage"]])

    trained(small, dataset, callbacks=[watch, OnEpoch(look)])
    assert torch.equal(by_stage[DIFFUSION], by_stage[PRETRAIN])
    assert torch.equal(first[DIFFUSION], by_stage[PRETRAIN])
    own = watch.trainers[1]
    plain = trainers(replace(small, augment=None), dataset)[0]
    own.progress.stage, plain.progress.stage = 0, 0
    own.rng.manual_seed(1)
    for each in (own, plain):  # the model's own stages start as without an augmentation
        each._start(*each.stages[0])
    assert own.network is not None and plain.network is not None
    assert same(own.network, plain.network)


def job(config: Config) -> Job:
    return Job("data", "f", "leave-one-out", "label", "adrec", config.to_dict(), 1)


def test_a_jobs_key_knows_of_augmentation_only_where_there_is_one(tiny: Make) -> None:
    plain, on = (job(tiny(**each)) for each in ({}, {"augment": True}))
    assert plain.key != on.key
    assert "augment" not in plain.config


@pytest.mark.parametrize("model", ["gru4rec", "sasrec+", "bert4rec", "diffrec"])
def test_other_networks_train_on_it(model: str, dataset: Dataset) -> None:
    found = find_model(model)
    size = {"model.hidden_size": 16, "model.max_length": 8, "batch_size": 16, "train.epochs": 1}
    made = found(found.Config.make(changes={**size, **SMALL}))
    assert isinstance(made, NetworkModel)
    fit(made, dataset, leave_one_out(dataset), seed=1)
    plain = found(found.Config.make(changes=size))
    fit(plain, dataset, leave_one_out(dataset), seed=1)
    assert any(not torch.equal(value, plain.state()[name]) for name, value in made.state().items())
    again = found(made.config)
    again.restore(made.state(), made.num_items)


def test_too_short_data_are_refused_before_training(small: Config, dataset: Dataset) -> None:
    longest = int(np.diff(dataset.offsets).max()) - 2
    config = replace(small, augment=replace(small.augment, num_items=longest - 1))
    with pytest.raises(DataError, match=f"{longest + 1} training interactions .* 0; set augment.num_items, now"):
        trainers(config, dataset)
    with pytest.raises(DataError, match="no user has two interactions"):
        trainers(small, prepare(pl.DataFrame({"user": [1, 2], "item": ["a", "b"], "time": [1, 2]})))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"augment.num_items": 3}, "augment.num_items has no effect, as augment is left out; set augment=true too"),
        ({"augment": True, "augment.num_items": 0}, "augment.num_items must be at least 1; it is 0"),
        ({"augment": True, "augment.channels": 0}, "augment.channels must be at least 1"),
        ({"augment": True, "augment.dropout": 1.0}, "augment.dropout must be in [0, 1)"),
        ({"augment": True, "augment.num_inference_steps": 1001}, "augment.num_inference_steps must lie between 1 and"),
        ({"augment": True, "augment.pretrain.epochs": 0}, "epochs of a stage must be at least 1"),
        ({"augment": True, "augment.noise_schedule": "linea"}, "did you mean 'linear'?"),
        ({"augment.chanels": 8}, "did you mean 'augment.channels'?"),
        ({"channels": 8}, "no configuration key 'channels'"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preset(changes=changes)
    assert sentence in str(caught.value)


def test_a_stage_beyond_its_schedule_is_refused_before_training(small: Config, dataset: Dataset) -> None:
    assert small.augment is not None
    diffusion = replace(small.augment.diffusion, epochs=9999)
    with pytest.raises(ConfigError, match=r"set augment\.diffusion\.schedule_epochs too"):
        trainers(replace(small, augment=replace(small.augment, diffusion=diffusion)), dataset)


def epochs_of(config: Config) -> dict[str, int]:
    assert config.augment is not None
    return {name: stage.epochs for name, stage in {**config.augment.stages, **config.stages}.items()}


def test_epochs_of_every_stage_are_limited_and_refitted(small: Config, dataset: Dataset) -> None:
    assert list(epochs_of(small.with_max_epochs(1)).values()) == [1] * 5
    _, stages = trained(small, dataset)
    refitted = refit_config(small, stages)
    assert isinstance(refitted, Config)
    continued = {"align": "epochs"}  # finetune continues it
    assert epochs_of(refitted) == {each["stage"]: each[continued.get(each["stage"], "chosen_epoch")] for each in stages}
    fit(ADRecModel(refitted), dataset, no_split(dataset), seed=1)


def test_a_plan_and_an_estimate_know_the_stages(small: Config, dataset: Dataset) -> None:
    planned = trainers(small, dataset)
    plan, cost = make_plan(planned), estimate(planned)
    assert list(plan.epochs) == list(plan.flop) == list(cost.stages) == STAGES
    assert cost.stages[DIFFUSION].validation == 0
    assert all(stage.total > 0 for stage in cost.stages.values())
    assert DIFFUSION in cost.sentence()
    network = planned[0].run()
    assert same(network, trainers(small, dataset)[0].run())  # planning changed nothing
    model, _ = trained(small, dataset)
    assert plan.disk["finished"] == 4 * model.num_parameters


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
        assert config.augment is not None
        trainer = augmentation_trainer(config, config.augment, dataset, leave_one_out(dataset), seed=1)
        ended: dict[str, dict[str, torch.Tensor]] = {}

        class Keep(Callback):
            def on_stage_end(self, name: str) -> None:
                ended[name] = trainer.weights.selected

        trainer.callbacks.append(Keep())
        trainer.run()
        return first_stage_key(ADRecModel(config), "f", "s", 1), ended[PRETRAIN]

    base = {**TINY, **SMALL, "pretrain.epochs": 1, "align.epochs": 1, "finetune.epochs": 1}
    key, weights = first_stage(Config.make("paper", base))
    other_key, other = first_stage(Config.make("paper", {**base, **changes}))
    assert (key == other_key) is shared
    alike = all(value.shape == other[name].shape and torch.equal(value, other[name]) for name, value in weights.items())
    assert alike is shared
    plain = {name: value for name, value in base.items() if not name.startswith("augment")}
    assert key != first_stage_key(ADRecModel(Config.make("paper", plain)), "f", "s", 1)


def test_tokens_of_a_step_are_the_models_own(small: Config, dataset: Dataset) -> None:
    """An augmentation's networks have batch_size users a step, the model's stages fewer; a plan counts those."""
    made = trainers(replace(small, tokens_per_step=30), dataset)
    own, augmenting = made[1].last_sequences, made[0].sequences[DIFFUSION]
    assert made[0].users_per_step(augmenting) == min(small.batch_size, len(augmenting))
    assert made[1].users_per_step(own) == 30 * len(own) // own.num_tokens < made[0].users_per_step(augmenting)
    assert make_plan(made).data["steps"] == made[1].steps(own) > trainers(small, dataset)[1].steps(own)


def nothing_spent() -> dict[str, float]:
    return {"seconds": 0.0, "core_seconds": 0.0}


def test_a_shared_first_stage_gives_the_same_bits(small: Config, dataset: Dataset, tmp_path: Path) -> None:
    networks = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        key = first_stage_key(ADRecModel(small), "f", "s", 1)
        shared = SharedFirstStage(tmp_path / "shared", key, tmp_path / str(number), nothing_spent, lambda: None)
        model, _ = trained(small, dataset, callbacks=[shared])
        assert (tmp_path / str(number) / "taken.json").exists() is bool(number)
        assert model.network is not None
        networks.append(model.network)
    assert same(*networks)
    alone, _ = trained(small, dataset)
    assert alone.network is not None and same(networks[0], alone.network)


def test_a_row_without_a_state_is_dropped_behind_a_shared_first_stage(
    small: Config, dataset: Dataset, tmp_path: Path
) -> None:
    """The shared epochs are not in the run's metrics, so they do not count as its rows."""
    split = leave_one_out(dataset)

    def run_of(name: str, *callbacks: Callback) -> Run:
        model = ADRecModel(small)
        key = first_stage_key(model, "f", "s", 1)
        with open_or_create(tmp_path / name, model, RunInfo.of(dataset, split, seed=1, device="cpu"), dataset) as run:
            shared = SharedFirstStage(tmp_path / "shared", key, run.path, nothing_spent, lambda: None)
            fit(model, dataset, split, run, seed=1, callbacks=[shared, *callbacks])
        return run

    expected = [(row["stage"], row["epoch"]) for row in run_of("first").rows()]
    taken = [each for each in expected if each[0] != PRETRAIN]
    with pytest.raises(TimeoutError):
        run_of("second", Cut(len(taken) - 1))
    with (tmp_path / "second" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"stage": taken[-1][0], "epoch": taken[-1][1]}) + "\n")
    assert [(row["stage"], row["epoch"]) for row in run_of("second").rows()] == taken


def test_models_without_epochs_are_refused() -> None:
    with pytest.raises(ConfigError, match="ease learns without epochs, so --augment means nothing to it."):
        make_model("ease", augment="diffuasr")
    made = make_model("sasrec+", augment="diffuasr", max_epochs=1)
    assert isinstance(made, NetworkModel) and made.training.augment is not None
    stages = {**made.training.augment.stages, **made.training.stages}
    assert [stage.epochs for stage in stages.values()] == [1, 1, 1]


def test_a_grid_names_it_as_a_change(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('[augmented]\nmodel = "sasrec+"\nset = { "augment" = true, "augment.num_items" = 4 }\n')
    (entry,) = read_grid(grid)
    assert entry.config().to_dict()["augment"]["num_items"] == 4
