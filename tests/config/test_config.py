"""Configuration is strict, says what to write instead, and refuses what would have no effect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adrec.config.adrec import Config, preset
from adrec.config.base import parse_changes
from adrec.config.describe import described, meanings
from adrec.config.parsing import groups
from adrec.config.presets import PRESETS
from adrec.models.factory import make_model
from adrec.models.registry import find_model, model_names
from adrec.utils.errors import ConfigError

WHOLE: dict[str, Any] = {
    **dict.fromkeys(("augment", "model.diffusion", "model.ablation", "pretrain", "align"), True),
    "pretrain.epochs": 9,
    "pretrain.optimizer": "adamw",
    **{f"{stage}.rows": True for stage in ("pretrain", "align", "finetune")},
}
STAGES = ("pretrain", "align", "finetune")
BUCKETS: dict[str, Any] = {
    **{key: value for key, value in WHOLE.items() if not key.endswith(".rows")},
    **{f"{stage}.{key}": value for stage in STAGES for key, value in (("buckets", True), ("consistency", 0.0))},
    **{f"{stage}.future_items": 1 for stage in STAGES[1:]},
}
CONTINUED: dict[str, Any] = {"pretrain": True, "align": True, "finetune.start": "continue"}
NO_STAGES: dict[str, Any] = {"pretrain": False, "align": False, "finetune.start": "scratch"}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    config = preset(name)
    assert config.preset == name
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_published_is_what_the_design_lists() -> None:
    config = preset("published")
    model, diffusion, align, finetune = config.model, config.model.diffusion, config.align, config.finetune
    assert diffusion is not None and align is not None and finetune is not None
    assert (model.hidden_size, diffusion.num_train_timesteps, model.max_length, config.batch_size) == (128, 32, 50, 512)
    assert (diffusion.noise_weight, diffusion.noise_schedule, model.padding_class) == (0.001, "trunc_lin", True)
    assert diffusion.num_inference_steps == 32
    assert align.embedding == "decaying"
    assert align.epochs + finetune.epochs == finetune.schedule_epochs == 500
    assert len(finetune.select_by) == 6
    assert all(stage.seen == "keep" for stage in config.stages.values())


def test_the_default_validates_as_recommend_ranks() -> None:
    assert all(stage.seen == "data" for stage in preset().stages.values())


def test_short_and_full_keys() -> None:
    assert preset(changes={"hidden_size": 64}) == preset(changes={"model.hidden_size": 64})
    assert preset("paper", {"noise_weight": 0.1}) == preset("paper", {"model.diffusion.noise_weight": 0.1})
    finetune = preset(changes={"finetune.epochs": 3}).finetune
    assert finetune is not None and finetune.epochs == 3


def value_at(config: object, key: str) -> object:
    for part in key.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize("key", Config.keys())
def test_every_key_can_be_set_to_its_own_value_where_it_has_an_effect(key: str) -> None:
    given = BUCKETS if ".buckets." in key else WHOLE
    whole = preset(changes=given)
    changes = {**given, key: value_at(whole, key)}
    if key in whole.idle_keys():
        with pytest.raises(ConfigError, match=f"^{key} has no effect: "):
            preset(changes=changes)
    else:
        assert preset(changes=changes) == whole


@pytest.mark.parametrize("key", Config.keys())
def test_a_key_of_a_group_that_is_left_out_is_refused(key: str) -> None:
    absent = [name for name in preset("cam").absent_groups() if key.startswith(f"{name}.")]
    if absent:
        with pytest.raises(
            ConfigError, match=f"^{key} has no effect, as {absent[0]} is left out; set {absent[0]}=true"
        ):
            preset("cam", {key: value_at(preset(changes=BUCKETS if ".buckets." in key else WHOLE), key)})


@pytest.mark.parametrize("on", [True, {}])
@pytest.mark.parametrize("off", [False, None, "none"])
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in groups(Config)
        if name not in ("align", "finetune", "model.ablation") and not name.endswith((".rows", ".buckets"))
    ],
)
def test_a_group_is_taken_and_left_out(name: str, on: object, off: object) -> None:
    taken = preset("cam", {name: on})
    assert name not in taken.absent_groups() and name in preset("cam").absent_groups()
    assert preset("cam", {name: off}) == preset("cam")
    outer, _, inner = name.rpartition(".")
    values = taken.to_dict()
    assert inner in (values[outer] if outer else values)


@pytest.mark.parametrize("changes", [{"epochs": 3}, {"pretrain": True, "finetune": False, "epochs": 3}])
def test_a_short_key_is_one_of_the_groups_that_are_there(changes: dict[str, object]) -> None:
    config = Config.make("cam", changes)
    assert [stage.epochs for stage in config.stages.values()] == [3]


def test_a_group_can_be_given_with_its_keys() -> None:
    assert preset(changes={"pretrain": {"epochs": 3}}) == preset(changes={"pretrain": True, "pretrain.epochs": 3})
    assert preset(changes={"pretrain.epochs": 3, "pretrain": True}) == preset(changes={"pretrain": {"epochs": 3}})


def test_what_has_no_effect_is_not_saved_and_makes_no_difference() -> None:
    paper = preset("paper")
    assert "embedding_std" not in paper.to_dict()["model"], "the item embedding is that of stage 1"
    scratch = {"pretrain": False, "align.start": "scratch", "align.embedding": "train"}
    assert preset("paper", scratch).model.embedding_std == 1.0
    assert "schedule_epochs" not in preset().to_dict()["finetune"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"finetune": {"mse_weight": 3.0}}, "finetune.mse_weight has no effect"),
        ({"augment": {"diffusion": {"epochs": 400}}}, "schedule"),
        ({"finetune.learning_rate": 10**400}, "finetune.learning_rate must be a number"),
        ({5: 1}, "changes are given by key"),
        ({"hiden_size": 64}, "no configuration key 'hiden_size' (did you mean 'hidden_size'?)"),
        ({"model.hiden_size": 64}, "did you mean 'model.hidden_size'?"),
        ({"pretrain": True, "epochs": 3}, "could be any of pretrain.epochs, finetune.epochs; write it in full"),
        ({"hidden_size": "big"}, "model.hidden_size must be a whole number; it is 'big'"),
        ({"hidden_size": 1.5}, "model.hidden_size must be a whole number"),
        ({"dropout": True}, "model.dropout must be a number"),
        ({"dropout": float("nan")}, "model.dropout must be a number"),
        ({"repeat_bias": 1}, "model.repeat_bias must be true or false"),
        ({"hidden_size": 66}, "multiple of model.num_heads"),
        ({"model.diffusion": True, "noise_schedule": "cosin"}, "did you mean 'cosine'?"),
        ({"model.diffusion": True, "num_inference_steps": 33}, "between 1 and num_train_timesteps = 32"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"finetune.select_by": ["ndcg@0"]}, "select_by names metrics such as 'ndcg@20'"),
        ({"finetune.epochs": 600, "finetune.schedule": "cosine"}, "set finetune.schedule_epochs too"),
        (
            {**CONTINUED, "finetune.optimizer": "adam", "finetune.beta2": 0.98, "finetune.warmup_epochs": 0},
            "set finetune.optimizer and align.optimizer alike",
        ),
        (
            {**CONTINUED, "finetune.beta2": 0.9},
            "set finetune.beta2 and align.beta2 alike",
        ),
        ({"finetune.averaging": 1.0}, "averaging of a stage must be in [0, 1)"),
        ({"finetune.beta2": 1.0}, "beta2 of a stage must be in [0, 1); it is 1.0"),
        ({"tokens_per_step": -1}, "tokens_per_step must not be negative; it is -1"),
        ({"feed_forward_ratio": 0}, "model.feed_forward_ratio must be at least 1; it is 0"),
        ({"embedding_std": 0.0}, "model.embedding_std must be above 0"),
        ({"finetune.select_by": ["accuracy"]}, "select_by names metrics such as 'ndcg@20'"),
        ({"pretrain": True, "pretrain.loss": "mse"}, "no configuration key 'pretrain.loss'"),
        ({"model.diffusion": True, "finetune.loss": "ce", "finetune.pcgrad": True}, "pcgrad needs two losses"),
        ({"finetune.consistency": -1.0}, "consistency of a stage must not be negative; it is -1.0"),
        ({"finetune.loss": "mse"}, "consistency is between two passes' cross-entropies"),
        ({"finetune.loss": "ce+mse"}, "finetune.loss has no effect: without model.diffusion the cross-entropy alone"),
        ({"ranks_by": "sample"}, "model.ablation.ranks_by has no effect, as model.ablation is left out"),
        ({"causal": False}, "model.ablation.causal has no effect, as model.ablation is left out"),
        ({"noise_schedule": "cosine"}, "has no effect, as model.diffusion is left out; set model.diffusion=true too"),
        ({"model.ablation": True}, "model.ablation changes model.diffusion, which is left out"),
        (
            {"model.diffusion": True, "model.ablation": True, "ranks_by": "condition", "finetune.loss": "ce"},
            "nothing would train the denoiser",
        ),
        (
            {**WHOLE, "ranks_by": "condition", "sampler": "ddim"},
            "model.diffusion.sampler has no effect: the condition ranks",
        ),
        ({**WHOLE, "condition_dropout": 0.5}, "condition_dropout has no effect: guidance is off"),
        ({"finetune.schedule_epochs": 50}, "finetune.schedule_epochs has no effect: the learning rate is constant"),
        (
            {**CONTINUED, "finetune.warmup_epochs": 1},
            "finetune continues with the learning rate of align, so it has no warm-up",
        ),
        ({"finetune.start": "embedding"}, "finetune.start is 'embedding', and no stage is before it"),
        ({"pretrain": True, "finetune.start": "continue"}, "finetune continues pretrain, which trains nothing"),
        (
            {"pretrain": {"epochs": 9}, "finetune.start": "continue"},
            "finetune continues pretrain, which trains another network",
        ),
        ({"finetune": False}, "every stage is left out: nothing would be trained"),
        ({"finetune.epochs": 0}, "epochs of a stage must be at least 1; it is 0"),
        (
            {"pretrain": True, "pretrain.initial_embedding": "random"},
            "pretrain.epochs is 0, which takes co-occurrences",
        ),
        ({"pretrain": True, "finetune": False}, "nothing would be trained"),
        ({"pretrain": True, "pretrain.patience": 2}, "pretrain.patience has no effect: pretrain.epochs is 0"),
        ({"model.diffusion": {"adm_blocks": 0}}, "model.diffusion.adm_blocks must be at least 1; it is 0"),
        (
            {"model.diffusion": {"adm_blocks": 2}, "model.ablation": {"decoder": "mlp"}},
            "model.diffusion.adm_blocks has no effect: ADM is an MLP",
        ),
        ({"pretrain": 5}, "pretrain is a group of keys: set it to true or false, or its keys, such as pretrain.epochs"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=".*") as caught:
        preset("cam", changes)
    assert sentence in str(caught.value)


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


def test_a_group_that_a_saved_configuration_does_not_have_is_left_out() -> None:
    values = preset("paper").to_dict()
    del values["pretrain"]
    values["align"]["start"] = "scratch"
    assert list(Config.from_dict(values).stages) == ["align", "finetune"]


def test_max_epochs_limits_every_stage() -> None:
    assert [stage.epochs for stage in preset("paper").with_max_epochs(3).stages.values()] == [3, 3, 3]
    assert [stage.epochs for stage in preset().with_max_epochs(3).stages.values()] == [0, 2, 3]
    assert [stage.epochs for stage in preset("cam").with_max_epochs(3).stages.values()] == [3]
    assert [stage.epochs for stage in preset("paper").with_max_epochs(7).stages.values()] == [7, 5, 7]
    with pytest.raises(ConfigError, match="--max-epochs"):
        preset().with_max_epochs(0)


@pytest.mark.parametrize("name", model_names())
def test_every_key_of_every_model_has_a_meaning_in_one_line(name: str) -> None:
    config = find_model(name).Config()
    for key, _, meaning in described(config):
        assert 6 < len(meaning) < 110, (key, meaning)


def test_what_is_described_is_what_has_an_effect() -> None:
    shown = {key: value for key, value, _ in described(preset("cam"))}
    assert "model.hidden_size" in shown and shown["finetune.seen"] == "data"
    assert not any(key.startswith(("model.diffusion", "pretrain", "align", "augment")) for key in shown)
    assert "finetune.loss" not in shown and "finetune.schedule_epochs" not in shown
    assert len(shown) < 45
    assert meanings(Config)["align"] == "stage 2, with the item embedding frozen"


def test_the_default_is_the_whole_system_in_three_stages() -> None:
    config = preset()
    assert list(config.stages) == ["pretrain", "align", "finetune"]
    assert config.model.diffusion is not None and config.model.ranks_by_sample and config.model.ablation is None
    pretrain, align, finetune = config.pretrain, config.align, config.finetune
    assert pretrain is not None and align is not None and finetune is not None
    assert (pretrain.epochs, pretrain.initial_embedding) == (0, "cooccurrence")
    assert (align.start, align.embedding) == ("embedding", "frozen")
    assert (finetune.start, finetune.embedding, finetune.loss) == ("continue", "train", "ce+mse")
    assert {key for key, _, _ in described(config) if key.startswith("pretrain")} == {
        "pretrain.epochs",
        "pretrain.initial_embedding",
    }


def test_cam_is_the_default_without_diffusion_and_its_stages() -> None:
    staged = preset()
    assert staged.finetune is not None
    alone = {"model.diffusion": False, **NO_STAGES, "finetune.initial_embedding": "cooccurrence"}
    begins = {"finetune.warmup_epochs": 1, "finetune.first_evaluation": 3, "finetune.patience": 5}
    assert preset("cam").to_dict() == {**preset(changes={**alone, **begins}).to_dict(), "preset": "cam"}


@pytest.mark.parametrize(
    ("key", "meant"), [("lr", "learning_rate"), ("finetune.lr", "learning_rate"), ("dim", "hidden_size")]
)
def test_names_of_other_libraries_are_translated(key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"no configuration key '{key}'; it is called '{meant}' here"):
        Config.make("cam", {key: 1})


def test_a_model_is_no_preset() -> None:
    with pytest.raises(ConfigError, match=r"'popular' is a model, not a preset; write --model popular"):
        make_model("adrec", "popular")
