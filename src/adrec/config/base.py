"""What every model's configuration is: frozen dataclasses, their presets, and the strict reading of both.

The defaults of a model's dataclasses are its preset ``default``; every other preset is a short list of changes to it.
A key that does not exist is an error that names the nearest one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from operator import index
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, SupportsIndex

from adrec.config.augmentation import NO_AUGMENTATION, AugmentConfig
from adrec.config.parsing import leaves, read_dataclass, require
from adrec.config.stage import NetworkConfig, StageConfig, TransformerConfig, check_shares, check_steps
from adrec.utils.errors import ConfigError, did_you_mean

__all__ = [
    "DEFAULT_SEED",
    "NO_CHANGES",
    "NetworkConfig",
    "OneStageConfig",
    "Precision",
    "Settings",
    "StageConfig",
    "TrainingConfig",
    "TransformerConfig",
    "check_seed",
    "check_shares",
    "check_steps",
    "parse_changes",
]

Precision = Literal["float32", "bfloat16"]
IN_FULL = "augment."  # keys that begin so have no short names: a model's own keep theirs

# What the keys that came later mean in a configuration that was saved before: what was computed then.
LATER: Mapping[str, Any] = MappingProxyType(
    {
        "averaging": 0.0,
        "beta2": 0.999,
        "consistency": 0.0,
        "detached_targets": False,
        "drops_normalized": False,
        "embedding_std": 1.0,
        "feed_forward_ratio": 4,
        "initial_embedding": "random",
        "negatives": 0,
        "optimizer": "adam",
        "positions": "none",
        "ranks_by": "sample",
        "repeat_bias": False,
        "schedule": "cosine",
        "tokens_per_step": 0,
        "unit_targets": False,
        "warmup_epochs": 0,
    }
)

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
        require(
            changes is None or isinstance(changes, Mapping),
            f"changes are given by key, such as {{'model.dropout': 0.2}}; they are {changes!r}.",
        )
        if name not in presets:
            known = ", ".join(presets)
            raise ConfigError(f"there is no preset {name!r}{did_you_mean(name, presets)}; the model has {known}.")
        values: dict[str, Any] = {"preset": name}
        for key, value in {**presets[name], **(changes or {})}.items():
            *parents, leaf = cls.full_key(key).split(".")
            place = values
            for parent in parents:
                place = place.setdefault(parent, {})
            place[leaf] = value
        return cls._read(values)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return every key that can be set, in full."""
        return tuple(key for key in leaves(cls()) if key != "preset")

    @classmethod
    def full_key(cls, key: str) -> str:
        """Return ``key`` in full. Raises :class:`ConfigError` where there is none, or it could be several."""
        known = cls.keys()
        if key in known:
            return key
        own = [full for full in known if not full.startswith(IN_FULL)]
        matches = [full for full in own if full.endswith(f".{key}")]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ConfigError(f"the key {key!r} could be any of {', '.join(matches)}; write it in full.")
        same = [full for full in own if full.rpartition(".")[2] == key.rpartition(".")[2]]  # perhaps of another stage
        others = [*known, *(full.rpartition(".")[2] for full in own)]
        near = f" (did you mean {same[-1]!r}?)" if same else did_you_mean(key, others)
        raise ConfigError(f"there is no configuration key {key!r}{near}.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` reads them back."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a saved configuration; what it does not say is as it was before there was a key for it.

        Raises :class:`ConfigError` on an unknown key or a value that does not fit.
        """
        return cls._read(_with_later_keys(cls(), values))

    @classmethod
    def _read(cls, values: Mapping[str, Any]) -> Self:
        config = read_dataclass(cls, cls(), values)
        assert isinstance(config, cls)
        return config


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """The configuration of a model that the loop trains in stages.

    Attributes:
        batch_size: users of a training step, at most.
        tokens_per_step: a step has fewer users than ``batch_size`` where they would have more tokens than so many, by
            the mean of all users, so that there are enough steps where histories are long; 0 is no limit, and who sets
            ``batch_size`` alone sets that. An augmentation's own stages know none.
        max_tokens: a batch of more is computed in parts, whose gradients add up to its own: less memory, same result
            but for rounding and the dropout drawn.
        precision: of training's matrix products; weights, moments and losses are float32 either way.
        augment: what is done to the training sequences first.
    """

    batch_size: int = 512
    tokens_per_step: int = 0
    max_tokens: int = 8192
    precision: Precision = "float32"
    augment: AugmentConfig = NO_AUGMENTATION

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_tokens"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1; it is {getattr(self, name)}.")
        require(self.tokens_per_step >= 0, f"tokens_per_step must not be negative; it is {self.tokens_per_step}.")
        some = any(stage.epochs for stage in self.stages.values())
        require(some, "every stage has 0 epochs: nothing would be trained.")
        together, before = 0, ""
        for name, stage in self.all_stages.items():
            last = self.all_stages.get(before)
            if stage.begins_with == "continue" and stage.epochs and last and last.network_kind == stage.network_kind:
                for key in ("optimizer", "beta2"):
                    require(
                        getattr(stage, key) == getattr(last, key),
                        f"{name} goes on with the optimizer of {before}; set {name}.{key} and {before}.{key} alike.",
                    )
                require(
                    stage.warmup_epochs == 0,
                    f"{name} goes on with the learning rate of {before}, so it has no warm-up; set "
                    f"{name}.warmup_epochs to 0, or warm up {before}.",
                )
            before = name if stage.epochs else before
            together = stage.epochs + (together if stage.begins_with == "continue" else 0)
            require(
                together <= stage.schedule_epochs or stage.schedule == "constant",
                f"{name} would go on to epoch {together} of a schedule of {stage.schedule_epochs} epochs, "
                f"where the learning rate is 0; set {name}.schedule_epochs too.",
            )

    @classmethod
    def make(cls, name: str = "default", changes: Mapping[str, Any] | None = None) -> Self:
        """As :meth:`Settings.make`; a change of how an embedding begins is an error where it would change nothing.

        A change of ``batch_size`` alone does away with the preset's ``tokens_per_step``.
        """
        config = super().make(name, changes)
        given = {cls.full_key(key) for key in changes or {}}
        if "batch_size" in given and "tokens_per_step" not in given:
            config = replace(config, tokens_per_step=0)
        for stage, has in config.all_stages.items():
            if f"{stage}.initial_embedding" in given and has.initial_embedding != "random":
                require(
                    has.begins_with == "scratch",
                    f"{stage}.initial_embedding is for a stage that starts from scratch, and {stage} takes over the "
                    "embedding of the stage before; set it to 'random'.",
                )
                require(
                    has.epochs > 0,
                    f"{stage}.initial_embedding would change nothing, as {stage} has 0 epochs; set {stage}.epochs too, "
                    "or it to 'random'.",
                )
        return config

    @property
    def network(self) -> NetworkConfig:
        """The networks' own configuration, the field ``model``."""
        config: NetworkConfig = self.model  # type: ignore[attr-defined]
        return config

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """The model's own stages by name, in the order in which they run."""
        raise NotImplementedError

    @property
    def all_stages(self) -> Mapping[str, StageConfig]:
        """The augmentation's stages, where there is one, and behind them the model's own."""
        return {**self.augment.stages, **self.stages}

    def network_of(self, kind: str) -> NetworkConfig:
        """Return what the network of a ``StageConfig.network_kind`` is built from."""
        return self.augment.network_of(kind, self.network) if kind in self.augment.stages else self.network

    def with_max_epochs(self, limit: int) -> Self:
        """Return this configuration with at most ``limit`` epochs in every stage."""
        whole = isinstance(limit, SupportsIndex) and not isinstance(limit, bool)
        require(
            whole and index(limit) >= 1,
            f"max_epochs (--max-epochs) must be a whole number of at least 1; it is {limit!r}.",
        )
        limit = index(limit)
        return self.with_epochs({name: min(stage.epochs, limit) for name, stage in self.all_stages.items()})

    def with_epochs(self, epochs: Mapping[str, int]) -> Self:
        """Return this configuration with other numbers of epochs; a stage that is not named has none."""
        stages: dict[str, Any] = {
            name: replace(stage, epochs=epochs.get(name, 0)) for name, stage in self.stages.items()
        }
        return replace(self, augment=self.augment.with_epochs(epochs), **stages)


def _with_later_keys(default: Any, values: Any) -> Any:
    """Return saved ``values`` of a dataclass with what :data:`LATER` says where they lack it."""
    if not isinstance(values, Mapping):
        return values
    inner = {each.name: getattr(default, each.name) for each in fields(default)}
    filled = {
        key: _with_later_keys(inner[key], value) if is_dataclass(inner.get(key)) else value
        for key, value in values.items()
    }
    return {**{key: LATER[key] for key in inner if key in LATER}, **filled}


ONE_STAGE = StageConfig(first_evaluation=1, evaluate_every=1, patience=10)


@dataclass(frozen=True)
class OneStageConfig(TrainingConfig):
    """The configuration of a network that is trained in one stage.

    Attributes:
        train: the stage.
    """

    train: StageConfig = ONE_STAGE

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
