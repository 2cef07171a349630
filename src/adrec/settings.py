"""What every model's configuration is: frozen dataclasses, their presets, and the strict reading of both.

The defaults of a model's dataclasses are its preset ``default``; every other preset is a short list of changes to it.
A key that does not exist is an error that names the nearest one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from adrec.errors import ConfigError, did_you_mean
from adrec.strict import leaves, read_dataclass, require

Precision = Literal["float32", "bfloat16"]

NO_CHANGES: Mapping[str, Mapping[str, Any]] = MappingProxyType({"default": MappingProxyType({})})


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a model computes, apart from the data and the seed.

    Attributes:
        preset: where the configuration comes from.
        presets: the changes of each preset, by its name.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = NO_CHANGES
    preset: str = "default"

    @classmethod
    def make(cls, name: str = "default", changes: Mapping[str, Any] | None = None) -> Self:
        """Return the preset ``name`` with ``changes``, keyed ``"model.dropout"`` or, where unique, ``"dropout"``.

        Raises :class:`ConfigError` for an unknown preset or key (the near one is suggested) and for a value that
        does not fit.
        """
        presets = cls.presets
        if name not in presets:
            known = ", ".join(presets)
            raise ConfigError(f"there is no preset {name!r}{did_you_mean(name, presets)}; there are {known}.")
        values: dict[str, Any] = {"preset": name}
        for key, value in {**presets[name], **(changes or {})}.items():
            *parents, leaf = cls._full_key(key).split(".")
            place = values
            for parent in parents:
                place = place.setdefault(parent, {})
            place[leaf] = value
        return cls.from_dict(values)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return every key that can be set, in full."""
        return tuple(key for key in leaves(cls()) if key != "preset")

    @classmethod
    def _full_key(cls, key: str) -> str:
        known = cls.keys()
        if key in known:
            return key
        matches = [full for full in known if full.endswith(f".{key}")]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ConfigError(f"the key {key!r} could be any of {', '.join(matches)}; write it in full.")
        near = did_you_mean(key, [*known, *(full.rpartition(".")[2] for full in known)])
        raise ConfigError(f"there is no configuration key {key!r}{near}.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` reads them back."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a saved configuration. Raises :class:`ConfigError` on an unknown key or a value that does not fit."""
        config = read_dataclass(cls, cls(), values)
        assert isinstance(config, cls)
        return config


@dataclass(frozen=True)
class NetworkConfig:
    """What every network of a sequence has.

    Attributes:
        hidden_size: D, the width of the item embedding.
        max_length: L, the positions of a sequence that the model sees (the last L items).
    """

    hidden_size: int = 128
    max_length: int = 50

    def __post_init__(self) -> None:
        for name in ("hidden_size", "max_length"):
            require(getattr(self, name) >= 1, f"model.{name} must be at least 1; it is {getattr(self, name)}.")


@dataclass(frozen=True)
class TransformerConfig(NetworkConfig):
    """What every transformer has.

    Attributes:
        num_blocks: transformer blocks.
        num_heads: attention heads; must divide ``hidden_size``.
        embedding_dropout: dropout of the embedded history.
        dropout: dropout of attention weights, feed-forward and residual branches.
    """

    num_blocks: int = 2
    num_heads: int = 4
    embedding_dropout: float = 0.3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_blocks", "num_heads"):
            require(getattr(self, name) >= 1, f"model.{name} must be at least 1; it is {getattr(self, name)}.")
        check_shares(self, "embedding_dropout", "dropout")
        require(
            self.hidden_size % self.num_heads == 0 and self.hidden_size % 2 == 0,
            f"model.hidden_size must be even and a multiple of model.num_heads; {self.hidden_size} and "
            f"{self.num_heads} are not.",
        )


def check_shares(config: NetworkConfig, *names: str) -> None:
    """Raise :class:`ConfigError` where one of the named fields is not in [0, 1)."""
    for name in names:
        require(0 <= getattr(config, name) < 1, f"model.{name} must be in [0, 1); it is {getattr(config, name)}.")


def check_steps(num_train_timesteps: int, num_inference_steps: int) -> None:
    """Raise :class:`ConfigError` where there is no timestep, or there are fewer than steps of inference."""
    require(num_train_timesteps >= 1, f"model.num_train_timesteps must be at least 1; it is {num_train_timesteps}.")
    require(
        1 <= num_inference_steps <= num_train_timesteps,
        f"model.num_inference_steps must lie between 1 and num_train_timesteps = {num_train_timesteps}; "
        f"it is {num_inference_steps}.",
    )


@dataclass(frozen=True)
class StageConfig:
    """One stage of training, as data.

    Attributes:
        epochs: at most so many; 0 leaves the stage out.
        learning_rate: Adam's, at the start of the cosine schedule.
        weight_decay: Adam's L2 term.
        schedule_epochs: the length of the cosine schedule, stepped once an epoch.
        first_evaluation: the first validation, after so many epochs of the stage.
        evaluate_every: epochs between validations.
        patience: stop after so many validations without improvement; 0 never stops early.
        select_by: validation metrics; weights are kept when any of them improves.
    """

    epochs: int = 500
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule_epochs: int = 500
    first_evaluation: int = 6
    evaluate_every: int = 5
    patience: int = 4
    select_by: tuple[str, ...] = ("ndcg@20",)

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "weight_decay"):
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
        for metric in self.select_by:
            kind, _, cutoff = metric.partition("@")
            require(
                kind in ("hr", "ndcg", "mrr") and cutoff.isdecimal() and int(cutoff) >= 1,
                f"select_by names metrics such as 'ndcg@20'; it has {metric!r}.",
            )
        require(len(self.select_by) > 0, "select_by must name at least one metric.")

    @property
    def network_kind(self) -> str:
        """Which of the model's networks is trained."""
        return "network"

    @property
    def begins_with(self) -> Literal["scratch", "embedding", "continue"]:
        """What the stage's weights start from: new ones; the item embedding of the stage before; all of its state."""
        return "scratch"

    @property
    def embedding_training(self) -> Literal["train", "frozen", "decaying"]:
        """How the item embedding is trained."""
        return "train"

    @property
    def projects_conflicts(self) -> bool:
        """Whether conflicting gradients of two losses are projected."""
        return False

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The losses that are trained and their weights; none where the network has but one."""
        return {}


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """The configuration of a model that the loop trains in stages.

    Attributes:
        batch_size: users of a training step.
        max_tokens: a batch of more is computed in parts, whose gradients add up to its own: less memory, same result
            but for rounding and the dropout drawn.
        precision: of training's matrix products; weights, moments and losses are float32 either way.
    """

    batch_size: int = 512
    max_tokens: int = 8192
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_tokens"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1; it is {getattr(self, name)}.")
        some = any(stage.epochs for stage in self.stages.values())
        require(some, "every stage has 0 epochs: nothing would be trained.")
        together = 0
        for name, stage in self.stages.items():
            together = stage.epochs + (together if stage.begins_with == "continue" else 0)
            require(
                together <= stage.schedule_epochs,
                f"{name} would go on to epoch {together} of a schedule of {stage.schedule_epochs} epochs, "
                f"where the learning rate is 0; set {name}.schedule_epochs too.",
            )

    @property
    def network(self) -> NetworkConfig:
        """The networks' own configuration, the field ``model``."""
        config: NetworkConfig = self.model  # type: ignore[attr-defined]
        return config

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """The stages by name, in the order in which they run."""
        raise NotImplementedError

    def with_max_epochs(self, limit: int) -> Self:
        """Return this configuration with at most ``limit`` epochs in every stage."""
        require(limit >= 1, f"--max-epochs must be at least 1; it is {limit}.")
        return self.with_epochs({name: min(stage.epochs, limit) for name, stage in self.stages.items()})

    def with_epochs(self, epochs: Mapping[str, int]) -> Self:
        """Return this configuration with other numbers of epochs; a stage that is not named has none."""
        stages: dict[str, Any] = {
            name: replace(stage, epochs=epochs.get(name, 0)) for name, stage in self.stages.items()
        }
        return replace(self, **stages)


@dataclass(frozen=True)
class OneStageConfig(TrainingConfig):
    """The configuration of a network that is trained in one stage.

    Attributes:
        train: the stage.
    """

    train: StageConfig = StageConfig(first_evaluation=1, evaluate_every=1, patience=10)

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """The one stage."""
        return MappingProxyType({"train": self.train})


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
