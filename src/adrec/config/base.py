"""Base classes of model configurations: frozen dataclasses with presets and strict parsing.

The defaults of a model's dataclasses are its preset ``default``; every other preset is a short list of changes to it.
A key that does not exist, or has no effect in the configuration at hand, is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from operator import index
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, SupportsIndex

from adrec.config.aliases import ALIASES
from adrec.config.augmentation import DIFFUASR, AugmentConfig
from adrec.config.parsing import (
    OFF,
    ConfigGroup,
    absent_groups,
    group,
    groups,
    idle_keys,
    leaves,
    read_dataclass,
    require,
)
from adrec.config.stage import NetworkConfig, StageConfig
from adrec.config.tree import applied, changes_tree, explicit_groups, flat
from adrec.utils.errors import ConfigError, did_you_mean

Precision = Literal["float32", "bfloat16"]
IN_FULL = "augment."  # keys with this prefix have no short names, so that short names refer to the model's own keys
NO_CHANGES: Mapping[str, Mapping[str, Any]] = MappingProxyType({"default": MappingProxyType({})})


@dataclass(frozen=True)
class Settings(ConfigGroup):
    """All settings that determine a model's result, except the data and the seed.

    Attributes:
        preset: the preset that the configuration starts from.
        presets: the changes of each preset, by its name.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = NO_CHANGES
    preset: str = "default"

    @classmethod
    def make(cls, name: str = "default", changes: Mapping[str, Any] | None = None) -> Self:
        """Return the preset ``name`` with ``changes``, keyed ``"model.dropout"`` or, where unique, ``"dropout"``.

        ``True`` enables a group of keys, such as ``model.diffusion``, and ``False`` disables it.

        Raises :class:`ConfigError` for an unknown preset or key (a similar one is suggested), for an invalid value, and
        for a key that has no effect in the resulting configuration.
        """
        presets = cls.presets
        require(
            changes is None or (isinstance(changes, Mapping) and all(isinstance(key, str) for key in changes)),
            f"changes are given by key, such as {{'model.dropout': 0.2}}; they are {changes!r}.",
        )
        if name not in presets:
            known = ", ".join(presets)
            raise ConfigError(f"there is no preset {name!r}{did_you_mean(name, presets)}; the model has {known}.")
        own = {cls.full_key(key): value for key, value in presets[name].items()}
        given = cls._full_changes(own, changes or {})
        config = cls._read({**changes_tree(cls(), [own, given]), "preset": name})
        idle = config.idle_keys()
        for key in flat(given):
            require(key not in idle, f"{key} has no effect: {idle.get(key)}. Leave it out.")
        return cls.from_dict(config.to_dict())  # reset values without effect, so that configurations compare equal

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return this configuration with ``changes``, by full or unique short keys.

        Raises :class:`ConfigError` as :meth:`make` does.
        """
        given = {self.full_key(key, self.absent_groups()): value for key, value in changes.items()}
        config = read_dataclass(type(self), self, changes_tree(self, [given]))
        assert isinstance(config, type(self))
        idle = config.idle_keys()
        for key in flat(given):
            require(key not in idle, f"{key} has no effect: {idle.get(key)}. Leave it out.")
        return self.from_dict(config.to_dict())

    @classmethod
    def _full_changes(cls, preset: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``changes`` of a preset by full keys; a short key is one of the groups that are then enabled."""
        switched = {key: value not in OFF for key, value in changes.items() if key in set(groups(cls))}
        before = cls._read(changes_tree(cls(), [preset])).absent_groups()
        absent = [key for key in groups(cls) if not switched.get(key, key not in before)]
        return {cls.full_key(key, absent): value for key, value in changes.items()}

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return every key of a value, in full."""
        return tuple(key for key in leaves(cls) if key != "preset")

    @classmethod
    def full_key(cls, key: str, absent: Iterable[str] = ()) -> str:
        """Return the full form of ``key``, which is unique outside the ``absent`` groups or unique in all groups.

        Raises :class:`ConfigError` if it is unknown or ambiguous.
        """
        known = (*cls.keys(), *groups(cls))
        if key in known:
            return key
        own = [full for full in known if not full.startswith(IN_FULL)]
        matches = [full for full in own if full.endswith(f".{key}")]
        left_out = tuple(f"{group}." for group in absent)
        matches = [full for full in matches if not full.startswith(left_out)] or matches
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ConfigError(f"the key {key!r} could be any of {', '.join(matches)}; write it in full.")
        meant = ALIASES.get(key.rpartition(".")[2].lower())
        if meant is not None:
            raise ConfigError(f"there is no configuration key {key!r}; it is called {meant!r} here.")
        same = [full for full in own if full.rpartition(".")[2] == key.rpartition(".")[2]]  # in other stages
        others = [*known, *(full.rpartition(".")[2] for full in own)]
        near = f" (did you mean {same[-1]!r}?)" if same else did_you_mean(key, others)
        raise ConfigError(f"there is no configuration key {key!r}{near}.")

    def idle_keys(self) -> dict[str, str]:
        """Return the keys that have no effect in this configuration, and why."""
        return idle_keys(self)

    def absent_groups(self) -> tuple[str, ...]:
        """Return the groups of keys that this configuration leaves out."""
        return tuple(absent_groups(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the values that have an effect, as plain JSON; :meth:`from_dict` reads them back."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return applied(values, self.idle_keys())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a saved configuration. Missing groups are disabled.

        Raises :class:`ConfigError` for an unknown key or an invalid value.
        """
        return cls._read(explicit_groups(cls, values))

    @classmethod
    def _read(cls, values: Any) -> Self:
        config = read_dataclass(cls, cls(), values)
        assert isinstance(config, cls)
        return config


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """The configuration of a model that is trained in stages.

    Attributes:
        batch_size: the largest number of users of a training step.
        tokens_per_step: the largest number of tokens of a training step, by the mean over users; 0 is no limit. If
            histories are long, a step then has fewer users than ``batch_size``, so that an epoch has enough steps.
            Changing only ``batch_size`` sets it to 0.
        max_tokens: the largest number of tokens computed at once. A larger batch is computed in parts, whose gradients
            are summed: less memory, and the same result except for rounding, dropout masks and buckets.
        precision: the precision of matrix products in training. Weights, moments and losses are always float32.
        augment: augmentation of the training sequences.
    """

    batch_size: int = 512
    tokens_per_step: int = 0
    max_tokens: int = 8192
    precision: Precision = "float32"
    augment: AugmentConfig | None = group(DIFFUASR)

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_tokens"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1; it is {getattr(self, name)}.")
        require(self.tokens_per_step >= 0, f"tokens_per_step must not be negative; it is {self.tokens_per_step}.")
        require(
            any(stage.epochs for stage in self.stages.values()), "every stage is left out: nothing would be trained."
        )
        check_stages(self.stages)
        if self.augment is not None:
            check_stages(self.augment.stages)

    @classmethod
    def make(cls, name: str = "default", changes: Mapping[str, Any] | None = None) -> Self:
        """Like :meth:`Settings.make`; changing only ``batch_size`` sets the preset's ``tokens_per_step`` to 0."""
        config = super().make(name, changes)
        if "batch_size" in (changes or {}) and "tokens_per_step" not in (changes or {}):
            config = replace(config, tokens_per_step=0)
        return config

    @property
    def network(self) -> NetworkConfig:
        """The configuration of the network, the field ``model``."""
        config: NetworkConfig = self.model  # type: ignore[attr-defined]
        return config

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """The model's own stages by name, in the order in which they run."""
        raise NotImplementedError

    def network_of(self, kind: str) -> NetworkConfig:
        """Return the configuration of the network that a ``StageConfig.network`` names."""
        return self.network

    def with_max_epochs(self, limit: int) -> Self:
        """Return this configuration with at most ``limit`` epochs in every stage."""
        whole = isinstance(limit, SupportsIndex) and not isinstance(limit, bool)
        require(
            whole and index(limit) >= 1,
            f"max_epochs (--max-epochs) must be a whole number of at least 1; it is {limit!r}.",
        )
        limit = index(limit)
        own = {name: min(stage.epochs, limit) for name, stage in self.stages.items()}
        augment = self.augment and self.augment.with_epochs(
            {name: min(stage.epochs, limit) for name, stage in self.augment.stages.items()}
        )
        return replace(self, augment=augment).with_epochs(own)

    def with_epochs(self, epochs: Mapping[str, int]) -> Self:
        """Return this configuration with other numbers of epochs, by the name of the stage."""
        changed: dict[str, Any] = {
            name: replace(stage, epochs=epochs[name]) for name, stage in self.stages.items() if name in epochs
        }
        augment = self.augment and self.augment.with_epochs(epochs)
        return replace(self, augment=augment, **changed)


def check_stages(stages: Mapping[str, StageConfig]) -> None:
    """Raise :class:`ConfigError` if a stage does not fit the previous one."""
    together, before = 0, ""
    for name, stage in stages.items():
        last = stages.get(before)
        if stage.start != "scratch":
            require(
                last is not None,
                f"{name}.start is {stage.start!r}, and no stage is before it; set {name}.start to 'scratch' too.",
            )
        if last is not None and stage.start == "continue":
            require(
                last.epochs > 0,
                f"{name} continues {before}, which trains nothing; set {name}.start to 'embedding'.",
            )
            require(
                last.network == stage.network,
                f"{name} continues {before}, which trains another network; set {name}.start to 'embedding'.",
            )
            for key in ("optimizer", "beta2"):
                require(
                    getattr(stage, key) == getattr(last, key),
                    f"{name} continues with the optimizer of {before}; set {name}.{key} and {before}.{key} alike.",
                )
            require(
                (stage.rows is None) == (last.rows is None),
                f"{name} continues with the optimizer of {before}; set {name}.rows and {before}.rows, or neither.",
            )
            require(
                stage.warmup_epochs == 0,
                f"{name} continues with the learning rate of {before}, so it has no warm-up; set "
                f"{name}.warmup_epochs to 0, or warm up {before}.",
            )
        together = stage.epochs + (together if stage.start == "continue" else 0)
        require(
            together <= stage.schedule_epochs or stage.schedule == "constant",
            f"{name} would reach epoch {together} of a schedule of {stage.schedule_epochs} epochs, "
            f"where the learning rate is 0; set {name}.schedule_epochs too.",
        )
        before = name


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


DEFAULT_SEED = 2025  # the seed of the published code


def check_seed(seed: int) -> int:
    """Return ``seed``. Raises :class:`ConfigError` unless it is an integer from 0 to 2^63 - 1."""
    good = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63
    require(good, f"the seed must be a whole number from 0 to 2^63 - 1; it is {seed!r}.")
    return seed


def parse_changes(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse ``key=value`` texts; a value is JSON if it parses (``0.5``, ``true``, ``["hr@20"]``), otherwise text."""
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
