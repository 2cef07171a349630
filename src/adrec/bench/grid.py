"""Grids of a benchmark or ablation: entries, each a model with a preset and changes.

A grid file is TOML, with one table per entry:

    [no-noise]                  # the name in every table of results
    model = "adrec"             # by default the entry's name
    preset = "published"        # by default ``default``
    seeds = 3                   # by default the benchmark's
    set = { model.noise_weight = 0.0 }
    search = { model.dropout = [0.1, 0.3, 0.5], finetune.learning_rate = { low = 1e-4, high = 1e-2, log = true } }

    [no-noise-narrow]
    like = "no-noise"           # inherit from an entry above; own keys override inherited ones one by one; a key that
                                # is set is not searched for, and `search = {}` disables the search
    set = { model.hidden_size = 64 }
"""

from __future__ import annotations

import hashlib
import inspect
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args, get_type_hints

from adrec.bench.ledger import PROTOCOL, Job
from adrec.config.base import Settings
from adrec.config.parsing import group_default, require
from adrec.models.base import Model
from adrec.models.registry import find_model
from adrec.utils.errors import ConfigError, did_you_mean

BOUNDS = frozenset({"low", "high", "log"})
KEYS: Mapping[str, type] = {"like": str, "model": str, "preset": str, "seeds": int, "set": dict, "search": dict}
WORDS: Mapping[type, str] = {str: "text", int: "whole number", dict: "table"}


@dataclass(frozen=True)
class Entry:
    """One row of a table of results.

    Attributes:
        label: name in the tables of results.
        model: name of the model.
        preset: name of the model's preset.
        changes: changes of configuration keys.
        search: the search space: for each key a list of choices, or ``{low, high, log}``.
        seeds: the number of seeds; None is the benchmark's number.
    """

    label: str
    model: str
    preset: str = "default"
    changes: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | None = None

    def __post_init__(self) -> None:
        self.config()  # fails here, before anything is trained
        require(self.seeds is None or self.seeds >= 1, f"{self.label}: seeds must be at least 1; it is {self.seeds}.")
        values = {key: values_of(space, f"{self.label}: search of {key}") for key, space in self.search.items()}
        first = {key: some[0] for key, some in values.items()}
        for key, some in values.items():
            for value in some:
                try:
                    self.config({key: value})
                except ConfigError:  # perhaps it fits beside another key of the search
                    self.config({**first, key: value})

    @property
    def model_class(self) -> type[Model]:
        """The class of the model."""
        return find_model(self.model, imports=True)

    @property
    def source(self) -> str:
        """The digest of the code of the user's own model; empty for a model that comes with adrec."""
        return _source_of(self.model_class)

    def is_whole(self, key: str) -> bool:
        """Whether a key's values are whole numbers, as its type says."""
        group: Any = self._own
        *parents, name = self._own.full_key(key).split(".")
        for parent in parents:
            group = group_default(type(group).__dataclass_fields__[parent])
        kind = get_type_hints(type(group))[name]
        kinds = get_args(kind) or (kind,)
        return int in kinds and float not in kinds

    def config(self, more: Mapping[str, Any] | None = None) -> Settings:
        """Return the configuration, with ``more`` changes. Raises :class:`ConfigError` for one that does not fit."""
        try:
            return self.model_class.Config.make(self.preset, {**self.changes, **(more or {})})
        except ConfigError as error:
            raise ConfigError(f"{self.label}: {error}") from error

    def by_full_keys(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``values`` by full keys of the model. Raises :class:`ConfigError` for a key that it does not have."""
        try:
            return {self.model_class.Config.full_key(key): value for key, value in values.items()}
        except ConfigError as error:
            raise ConfigError(f"{self.label}: {error}") from error

    @cached_property
    def _own(self) -> Settings:
        return self.config()

    def has(self, job: Job) -> bool:
        """Whether ``job`` belongs to this entry: its settings are equal, except those that trials searched for."""
        by_trials = job.trial is not None or job.tuned
        possible = by_trials or job.label == self.label if self.search else not by_trials
        same = (job.model, job.source, job.protocol) == (self.model, self.source, PROTOCOL)
        if not (same and possible):
            return False
        try:
            saved = _read_config(self.model_class, json.dumps(job.config))
            names = [saved.full_key(key) for key in self.search] if by_trials else []
            found = {name: attrgetter(name)(saved) for name in names}
            return replace(saved, preset=self.preset) == (self.config(found) if found else self._own)
        except ConfigError:  # settings that no longer exist or are no longer valid
            return False


@cache
def _source_of(model_class: type[Model]) -> str:
    """Return the digest of the source file of a user's own model. If it changes, its jobs get new keys.

    Empty for built-in models, and if there is no file.
    """
    if model_class.__module__.partition(".")[0] == "adrec":
        return ""
    try:
        code = Path(inspect.getfile(model_class)).read_bytes()
    except (TypeError, OSError):
        return ""
    return hashlib.blake2b(code, digest_size=8).hexdigest()


@lru_cache(maxsize=4096)  # each entry of a grid asks it of each job of a ledger
def _read_config(model_class: type[Model], text: str) -> Settings:
    return model_class.Config.from_dict(json.loads(text))


def values_of(space: Any, where: str) -> list[Any]:
    """Return a search space's values, or the two ends of a range. Raises :class:`ConfigError` where it is none."""
    if isinstance(space, list) and space:
        return space
    if isinstance(space, Mapping) and {"low", "high"} <= set(space) <= BOUNDS and space["low"] < space["high"]:
        require(not space.get("log") or space["low"] > 0, f"{where} is by its logarithm, so low must be above 0.")
        return [space["low"], space["high"]]
    raise ConfigError(f"{where} must be a list of values, or {{low, high, log}} with low below high; it is {space!r}.")


def parse_models(text: str) -> list[Entry]:
    """Read ``sasrec+,adrec@published``: models with commas, each with ``@preset`` where it is not ``default``."""
    entries = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        model, _, name = part.partition("@")
        entries.append(Entry(part, model, name or "default"))
    require(bool(entries), "--models names no model; write for instance popular,sasrec+,adrec.")
    return entries


def read_grid(path: Path) -> list[Entry]:
    """Read a grid: a file, or one that comes with adrec by its name, such as ``published``.

    Raises :class:`ConfigError` for what is not TOML, and for unknown keys.
    """
    known = {each.name.removesuffix(".toml"): each for each in files("adrec.bench").joinpath("grids").iterdir()}
    if not path.exists() and str(path) in known:
        path = Path(str(known[str(path)]))
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = f"{did_you_mean(str(path), known)}; {', '.join(sorted(known))} come with adrec"
        raise ConfigError(f"the grid {path} cannot be read: {error.strerror}{near}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the grid {path} is not TOML: {error}.") from error
    require(bool(tables), f"the grid {path} has no entry; write one such as [adrec].")
    entries: dict[str, Entry] = {}
    for label, table in tables.items():
        entries[label] = _entry(label, table, path, entries)
    return list(entries.values())


def _entry(label: str, table: Any, path: Path, above: Mapping[str, Entry]) -> Entry:
    require(isinstance(table, Mapping), f"{path}: {label!r} stands outside an entry; entries are tables, [{label}].")
    unknown = [key for key in table if key not in KEYS]
    if unknown:
        raise ConfigError(f"{path}: {label} has no key {unknown[0]!r}{did_you_mean(unknown[0], KEYS)}.")
    for key, kind in KEYS.items():
        if key in table and not isinstance(table[key], kind):
            raise ConfigError(f"{path}: {key} of {label} should be a {WORDS[kind]}; it is {table[key]!r}.")
    own = {key: table[key] for key in ("model", "preset", "seeds") if key in table}
    changes, search = (_in_full(table.get(key, {})) for key in ("set", "search"))
    if "like" not in table:
        return Entry(**{"label": label, "model": label, **own}, changes=changes, search=search)
    if (other := table["like"]) not in above:
        near = did_you_mean(other, above)
        raise ConfigError(f"{path}: {label} is to be like {other!r}, and no entry above it is called so{near}.")
    require("model" not in own, f"{path}: {label} has the model of {other!r}, which it is like; leave model out.")
    like = above[other]
    inherited = {} if table.get("search") == {} else like.by_full_keys(like.search)
    named = replace(like, label=label)
    changes, search = named.by_full_keys(changes), named.by_full_keys(search)
    search = {key: space for key, space in inherited.items() if key not in changes} | search
    return replace(named, **own, changes=like.by_full_keys(like.changes) | changes, search=search)


def _in_full(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return values by full keys: to TOML ``model.dropout`` is a table in a table, unless it stands in quotes."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value and not set(value) & BOUNDS:
            inner = _in_full(value, f"{prefix}{key}.")
        else:
            inner = {prefix + key: value}
        twice = next((key for key in inner if key in found), None)
        require(twice is None, f"the key {twice!r} is set twice, once in quotes; leave one out.")
        found |= inner
    return found


def check_labels(entries: Sequence[Entry]) -> None:
    """Raise :class:`ConfigError` where two entries have one name."""
    labels = [entry.label for entry in entries]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    require(twice is None, f"two entries are called {twice!r}; give each a name of its own.")
