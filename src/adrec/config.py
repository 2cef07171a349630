"""Configuration: frozen dataclasses, the presets, and the strict reading of both.

The defaults of the dataclasses are the preset ``default``; every other preset is a short list of changes to it.
A key that does not exist is an error that names the nearest one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from adrec.errors import ConfigError, did_you_mean
from adrec.strict import leaves, read_dataclass, require

Precision = Literal["float32", "bfloat16"]
Sampler = Literal["ancestral", "ddim"]
ScheduleName = Literal["trunc_lin", "linear", "cosine", "sqrt", "trunc_cos", "pw_lin", "beta"]


@dataclass(frozen=True)
class ModelConfig:
    """The network of the paper (section 4) and the switches of the published code.

    Attributes:
        hidden_size: D, the width of embeddings and blocks.
        num_blocks: transformer blocks in CAM, and again in ADM.
        num_heads: attention heads; must divide ``hidden_size``.
        max_length: L, the positions of a sequence that the model sees (the last L items).
        embedding_dropout: dropout of the embedded history.
        dropout: dropout of attention weights, feed-forward and residual branches.
        num_train_timesteps: T, the number of diffusion timesteps.
        num_inference_steps: denoising steps at inference, at most T; T is the paper's sampler. One by default: at
            ``noise_weight`` 0.001 more of them change no metric (``benchmarks/steps.py``). A larger weight may want
            more.
        sampler: ``ancestral`` adds the forward process's noise at every step but the last (the paper); ``ddim`` adds
            none, so that the start alone is random. With one step both are the network's first prediction.
        noise_schedule: the name of the schedule of ``beta``.
        noise_weight: the paper's lambda, the weight of the noisy target and the timestep beside the condition.
        noise_level: an independent timestep for every token (the paper), or one per sequence.
        decoder: the ADM, ``attention`` or a token-wise ``mlp``.
        causal: false lets every token attend to every other: it leaks targets in training (the paper's
            negative control).
        guidance_scale: classifier-free guidance; 1 is off.
        condition_dropout: share of users trained without condition where guidance is on.
        geodesic: targets, noise and samples on the unit sphere.
        attend_padding: real tokens attend to the left padding, as in the published code; computed exactly as one
            sink token whose logit gets ``log p`` for p paddings.
        padding_class: the padding row is a class of the softmax, and can be ranked.
    """

    hidden_size: int = 128
    num_blocks: int = 2
    num_heads: int = 4
    max_length: int = 50
    embedding_dropout: float = 0.3
    dropout: float = 0.1
    num_train_timesteps: int = 32
    num_inference_steps: int = 1
    sampler: Sampler = "ancestral"
    noise_schedule: ScheduleName = "trunc_lin"
    noise_weight: float = 0.001
    noise_level: Literal["token", "sequence"] = "token"
    decoder: Literal["attention", "mlp"] = "attention"
    causal: bool = True
    guidance_scale: float = 1.0
    condition_dropout: float = 0.3
    geodesic: bool = False
    attend_padding: bool = True
    padding_class: bool = False

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_blocks", "num_heads", "max_length", "num_train_timesteps"):
            require(getattr(self, name) >= 1, f"model.{name} must be at least 1; it is {getattr(self, name)}.")
        for name in ("embedding_dropout", "dropout", "condition_dropout"):
            require(0 <= getattr(self, name) < 1, f"model.{name} must be in [0, 1); it is {getattr(self, name)}.")
        require(
            self.hidden_size % self.num_heads == 0 and self.hidden_size % 2 == 0,
            f"model.hidden_size must be even and a multiple of model.num_heads; {self.hidden_size} and "
            f"{self.num_heads} are not.",
        )
        require(
            1 <= self.num_inference_steps <= self.num_train_timesteps,
            f"model.num_inference_steps must lie between 1 and num_train_timesteps = {self.num_train_timesteps}; "
            f"it is {self.num_inference_steps}.",
        )


@dataclass(frozen=True)
class StageConfig:
    """One stage of training, as data.

    Attributes:
        network: what is trained: ``sasrec`` (the pre-training of the item embedding) or ``adrec``.
        epochs: at most so many; 0 leaves the stage out.
        start: ``scratch``; ``embedding``: new weights, with the item embedding of the stage before; ``continue``:
            the same run goes on, with its weights, Adam's moments and its place in the learning-rate schedule.
        embedding: the item embedding is trained, ``frozen``, or ``decaying``: it gets no gradient, but Adam's L2
            term still shrinks it, which is what the published code does where it says frozen.
        loss: full cross-entropy alone, or half of (cross-entropy + ``mse_weight`` x squared error).
        mse_weight: the weight of the squared error between ``x0_hat`` and ``x0``.
        pcgrad: project conflicting gradients of the two losses (two backward passes).
        learning_rate: Adam's, at the start of the cosine schedule.
        weight_decay: Adam's L2 term.
        schedule_epochs: the length of the cosine schedule, stepped once an epoch.
        first_evaluation: the first validation, after so many epochs of the stage.
        evaluate_every: epochs between validations.
        patience: stop after so many validations without improvement; 0 never stops early.
        select_by: validation metrics; weights are kept when any of them improves.
    """

    network: Literal["sasrec", "adrec"]
    epochs: int
    start: Literal["scratch", "embedding", "continue"]
    embedding: Literal["train", "frozen", "decaying"] = "train"
    loss: Literal["ce", "ce+mse"] = "ce+mse"
    mse_weight: float = 1.0
    pcgrad: bool = False
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule_epochs: int = 500
    first_evaluation: int = 6
    evaluate_every: int = 5
    patience: int = 4
    select_by: tuple[str, ...] = ("ndcg@20",)

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "weight_decay", "mse_weight"):
            require(
                getattr(self, name) >= 0,
                f"{name} of a stage must not be negative; it is {getattr(self, name)}.",
            )
        for name in ("schedule_epochs", "first_evaluation", "evaluate_every"):
            require(
                getattr(self, name) >= 1,
                f"{name} of a stage must be at least 1; it is {getattr(self, name)}.",
            )
        require(self.learning_rate > 0, f"learning_rate must be above 0; it is {self.learning_rate}.")
        require(
            not (self.network == "sasrec" and self.loss != "ce"),
            "a sasrec stage has no diffusion, so its loss must be 'ce'.",
        )
        require(not (self.pcgrad and self.loss == "ce"), "pcgrad needs two losses; set loss to 'ce+mse'.")
        for metric in self.select_by:
            kind, _, cutoff = metric.partition("@")
            require(
                kind in ("hr", "ndcg", "mrr") and cutoff.isdecimal() and int(cutoff) >= 1,
                f"select_by names metrics such as 'ndcg@20'; it has {metric!r}.",
            )
        require(len(self.select_by) > 0, "select_by must name at least one metric.")


PRETRAIN = StageConfig(network="sasrec", epochs=500, start="scratch", loss="ce")
ALIGN = StageConfig(network="adrec", epochs=5, start="embedding", embedding="frozen", first_evaluation=6)
FINETUNE = StageConfig(network="adrec", epochs=495, start="continue", first_evaluation=1)


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes, apart from the data and the seed.

    Attributes:
        preset: where the configuration comes from.
        batch_size: users of a training step.
        max_tokens: a batch of more is computed in parts, whose gradients add up to its own: less memory, same result
            but for rounding and the dropout drawn.
        precision: of training's matrix products; weights, moments and losses are float32 either way.
        model: the networks.
        pretrain: stage 1.
        align: stage 2.
        finetune: stage 3.
    """

    preset: str = "default"
    batch_size: int = 512
    max_tokens: int = 8192
    precision: Precision = "float32"
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: StageConfig = PRETRAIN
    align: StageConfig = ALIGN
    finetune: StageConfig = FINETUNE

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_tokens"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1; it is {getattr(self, name)}.")
        some = any(stage.epochs for stage in self.stages.values())
        require(some, "every stage has 0 epochs: nothing would be trained.")
        together = 0
        for name, stage in self.stages.items():
            together = stage.epochs + (together if stage.start == "continue" else 0)
            require(
                together <= stage.schedule_epochs,
                f"{name} would go on to epoch {together} of a schedule of {stage.schedule_epochs} epochs, "
                f"where the learning rate is 0; set {name}.schedule_epochs too.",
            )

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """The stages by name, in the order in which they run."""
        return MappingProxyType({"pretrain": self.pretrain, "align": self.align, "finetune": self.finetune})

    def with_max_epochs(self, limit: int) -> Config:
        """Return this configuration with at most ``limit`` epochs in every stage."""
        require(limit >= 1, f"--max-epochs must be at least 1; it is {limit}.")
        return self.with_epochs({name: min(stage.epochs, limit) for name, stage in self.stages.items()})

    def with_epochs(self, epochs: Mapping[str, int]) -> Config:
        """Return this configuration with other numbers of epochs; a stage that is not named has none."""
        pretrain, align, finetune = (replace(stage, epochs=epochs.get(name, 0)) for name, stage in self.stages.items())
        return replace(self, pretrain=pretrain, align=align, finetune=finetune)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` reads them back."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Read a saved configuration. Raises :class:`ConfigError` on an unknown key or a value that does not fit."""
        config = read_dataclass(cls, Config(), values)
        assert isinstance(config, Config)
        return config


_SIX_METRICS = tuple(f"{metric}@{k}" for metric in ("hr", "ndcg") for k in (5, 10, 20))

_PUBLISHED: dict[str, Any] = {
    "model.padding_class": True,
    "model.num_inference_steps": 32,
    "align.embedding": "decaying",
    **{f"{stage}.select_by": _SIX_METRICS for stage in ("pretrain", "align", "finetune")},
}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": MappingProxyType({}),
        "published": MappingProxyType(_PUBLISHED),
    }
)


def preset(name: str = "default", changes: Mapping[str, Any] | None = None) -> Config:
    """Return the preset ``name`` with ``changes``, keyed ``"model.hidden_size"`` or, where unique, ``"hidden_size"``.

    Raises :class:`ConfigError` for an unknown preset or key (the near one is suggested) and for a value that
    does not fit.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}{did_you_mean(name, PRESETS)}; there are {', '.join(PRESETS)}.")
    values: dict[str, Any] = {"preset": name}
    for key, value in {**PRESETS[name], **(changes or {})}.items():
        *parents, leaf = _full_key(key).split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return Config.from_dict(values)


DEFAULT_SEED = 2025  # the published one


def check_seed(seed: int) -> int:
    """Return ``seed``. Raises :class:`ConfigError` where it is not a whole number from 0 to 2^63 - 1."""
    good = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63
    require(good, f"the seed must be a whole number from 0 to 2^63 - 1; it is {seed!r}.")
    return seed


def parse_changes(assignments: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` texts; a value is JSON where it can be (``0.5``, ``true``, ``["hr@20"]``), text elsewhere."""
    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set takes key=value, such as model.hidden_size=64; it was given {assignment!r}.")
        try:
            changes[key.strip()] = json.loads(text)
        except json.JSONDecodeError:
            changes[key.strip()] = text.strip()
    return changes


def keys() -> tuple[str, ...]:
    """Return every key that can be set, in full."""
    return tuple(key for key in leaves(Config()) if key != "preset")


def _full_key(key: str) -> str:
    known = keys()
    if key in known:
        return key
    matches = [full for full in known if full.endswith(f".{key}")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(f"the key {key!r} could be any of {', '.join(matches)}; write it in full.")
    near = did_you_mean(key, [*known, *(full.rpartition(".")[2] for full in known)])
    raise ConfigError(f"there is no configuration key {key!r}{near}.")
