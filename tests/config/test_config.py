"""Configuration is strict, and says what to write instead."""

from __future__ import annotations

import json

import pytest

from adrec.config.adrec import Config, preset
from adrec.config.base import LATER, parse_changes
from adrec.config.presets import PRESETS
from adrec.utils.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    config = preset(name)
    assert config.preset == name
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_published_is_what_the_design_lists() -> None:
    config = preset("published")
    model = config.model
    assert (model.hidden_size, model.num_train_timesteps, model.max_length, config.batch_size) == (
        128,
        32,
        50,
        512,
    )
    assert (model.noise_weight, model.noise_schedule, model.padding_class) == (0.001, "trunc_lin", True)
    assert model.num_inference_steps == 32
    assert config.align.embedding == "decaying"
    assert config.align.epochs + config.finetune.epochs == config.finetune.schedule_epochs == 500
    assert len(config.finetune.select_by) == 6


def test_short_and_full_keys() -> None:
    assert preset(changes={"hidden_size": 64}) == preset(changes={"model.hidden_size": 64})
    assert preset(changes={"finetune.epochs": 3}).finetune.epochs == 3


@pytest.mark.parametrize("key", Config.keys())
def test_every_key_can_be_set_to_its_own_default(key: str) -> None:
    value: object = preset().to_dict()
    for part in key.split("."):
        value = value[part]  # type: ignore[index]
    assert preset(changes={key: value}) == preset()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hiden_size": 64}, "no configuration key 'hiden_size' (did you mean 'hidden_size'?)"),
        ({"model.hiden_size": 64}, "did you mean 'model.hidden_size'?"),
        ({"epochs": 3}, "could be any of pretrain.epochs, align.epochs, finetune.epochs"),
        ({"hidden_size": "big"}, "model.hidden_size must be a whole number; it is 'big'"),
        ({"hidden_size": 1.5}, "model.hidden_size must be a whole number"),
        ({"dropout": True}, "model.dropout must be a number"),
        ({"dropout": float("nan")}, "model.dropout must be a number"),
        ({"causal": 1}, "model.causal must be true or false"),
        ({"hidden_size": 66}, "multiple of model.num_heads"),
        ({"noise_schedule": "cosin"}, "did you mean 'cosine'?"),
        ({"num_inference_steps": 33}, "between 1 and num_train_timesteps = 32"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"finetune.select_by": ["ndcg@0"]}, "select_by names metrics such as 'ndcg@20'"),
        ({"finetune.epochs": 600, "finetune.schedule": "cosine"}, "set finetune.schedule_epochs too"),
        ({"align.epochs": 1, "finetune.start": "continue"}, "set finetune.optimizer and align.optimizer alike"),
        (
            {"align.epochs": 1, "align.optimizer": "adamw", "finetune.start": "continue", "finetune.beta2": 0.98},
            "set finetune.beta2 and align.beta2 alike",
        ),
        ({"finetune.averaging": 1.0}, "averaging of a stage must be in [0, 1)"),
        ({"finetune.beta2": 1.0}, "beta2 of a stage must be in [0, 1); it is 1.0"),
        ({"tokens_per_step": -1}, "tokens_per_step must not be negative; it is -1"),
        ({"feed_forward_ratio": 0}, "model.feed_forward_ratio must be at least 1; it is 0"),
        ({"embedding_std": 0.0}, "model.embedding_std must be above 0"),
        ({"finetune.select_by": ["accuracy"]}, "select_by names metrics such as 'ndcg@20'"),
        ({"pretrain.loss": "ce+mse"}, "a sasrec stage has no diffusion"),
        ({"finetune.pcgrad": True, "finetune.loss": "ce"}, "pcgrad needs two losses"),
        ({"finetune.consistency": -1.0}, "consistency of a stage must not be negative; it is -1.0"),
        ({"finetune.consistency": 1.0, "finetune.loss": "mse"}, "consistency is between two passes' cross-entropies"),
        ({"ranks_by": "sample"}, "only a denoiser makes a sample to rank by"),
        ({"guidance_scale": 2.0}, "only a denoiser makes a sample to rank by, and is guided"),
        ({"decoder": "adaptive"}, "nothing would train the denoiser"),
        (
            {"align.epochs": 1, "align.optimizer": "adamw", "align.beta2": 0.98, "finetune.start": "continue"},
            "finetune goes on with the learning rate of align, so it has no warm-up",
        ),
        ({"finetune.loss": "ce+mse"}, "finetune.loss has the squared error of a denoiser, and there is none"),
        ({"pretrain.epochs": 0, "align.epochs": 0, "finetune.epochs": 0}, "nothing would be trained"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=".*") as caught:
        preset(changes=changes)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"pretrain.epochs": 5, "finetune.start": "embedding"},
        {"pretrain.epochs": 5, "finetune.epochs": 0},
        {"align.epochs": 5, "align.start": "scratch", "finetune.epochs": 0},
    ],
)
def test_how_the_default_begins_its_embedding_is_no_error_where_a_stage_does_not(changes: dict[str, object]) -> None:
    assert preset(changes=changes).finetune.initial_embedding == "cooccurrence"


def test_a_batch_size_that_is_set_is_the_users_of_a_step() -> None:
    assert preset("fast").tokens_per_step > 0
    assert preset("fast", {"batch_size": 512}).tokens_per_step == 0
    assert preset("fast", {"batch_size": 512, "tokens_per_step": 2048}).tokens_per_step == 2048


def test_unknown_preset_suggests_the_near_one() -> None:
    with pytest.raises(ConfigError, match="no preset 'publishd' \\(did you mean 'published'\\?\\)"):
        preset("publishd")


def test_assignments_are_json_or_text() -> None:
    changes = parse_changes(["a=1", "b=0.5", "c=true", "d=cosine", 'e=["hr@20"]', "f=x=y"])
    assert changes == {"a": 1, "b": 0.5, "c": True, "d": "cosine", "e": ["hr@20"], "f": "x=y"}


@pytest.mark.parametrize("text", ["hidden_size", "=3", ""])
def test_an_assignment_needs_a_key_and_a_value(text: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        parse_changes([text])


def test_a_saved_configuration_with_an_unknown_key_is_refused() -> None:
    values = preset().to_dict()
    values["model"]["hidden"] = 1
    with pytest.raises(ConfigError, match="'model.hidden'"):
        Config.from_dict(values)


def test_max_epochs_limits_every_stage() -> None:
    assert [stage.epochs for stage in preset("paper").with_max_epochs(3).stages.values()] == [3, 3, 3]
    assert [stage.epochs for stage in preset().with_max_epochs(3).stages.values()] == [0, 0, 3]
    assert preset("paper").with_max_epochs(7).align.epochs == 5
    with pytest.raises(ConfigError, match="--max-epochs"):
        preset().with_max_epochs(0)


def test_what_was_saved_before_a_key_existed_is_what_it_was() -> None:
    """Every later key is left out of a saved configuration of the paper's: it must not become the default's."""
    values = preset("paper").to_dict()
    for part in (values["model"], *(values[stage] for stage in ("pretrain", "align", "finetune"))):
        for key in LATER:
            part.pop(key, None)
    values.pop("augment")
    values.pop("tokens_per_step")
    assert Config.from_dict(values) == preset("paper")


def test_a_default_that_was_saved_before_beta2_has_what_it_was_trained_with() -> None:
    values = preset().to_dict()
    for stage in ("pretrain", "align", "finetune"):
        del values[stage]["beta2"]
    assert Config.from_dict(values).finetune.beta2 == 0.999 != preset().finetune.beta2
