"""The registry of models by name: ADRec, the baselines, and user-defined models."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from adrec.config.base import Settings, TrainingConfig
from adrec.models.base import Model
from adrec.models.network import NetworkModel
from adrec.utils.errors import ConfigError, did_you_mean

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "adrec": "adrec.models.adrec:ADRecModel",
        "popular": "adrec.models.baselines.popularity:Popularity",
        "recent": "adrec.models.baselines.recent:RecentPopularity",
        "personal": "adrec.models.baselines.personal:Personal",
        "markov": "adrec.models.baselines.markov:Markov",
        "itemknn": "adrec.models.baselines.itemknn:ItemKNN",
        "vsknn": "adrec.models.baselines.vsknn:VSKNN",
        "ease": "adrec.models.baselines.ease:EASE",
        "gru4rec": "adrec.models.baselines.gru4rec:GRU4Rec",
        "sasrec": "adrec.models.baselines.sasrec:SASRec",
        "sasrec+": "adrec.models.baselines.sasrec:SASRecPlus",
        "gsasrec": "adrec.models.baselines.gsasrec:GSASRec",
        "bert4rec": "adrec.models.baselines.bert4rec:BERT4Rec",
        "esasrec": "adrec.models.baselines.esasrec:ESASRec",
        "diffurec": "adrec.models.baselines.diffurec:DiffuRec",
        "dreamrec": "adrec.models.baselines.dreamrec:DreamRec",
        "diffrec": "adrec.models.baselines.diffrec:DiffRec",
    }
)
_registered: dict[str, type[Model]] = {}


def register(model: type[Model]) -> type[Model]:
    """Register a model under its name, in this process; usable as a decorator.

    Installed packages register models in every process with an entry point of the group ``adrec.models``. Raises
    :class:`ConfigError` if it is not a model, or its name is taken.
    """
    check_model(model, model.__qualname__)
    if model.name in BUILT_IN or _registered.get(model.name, model) is not model:
        raise ConfigError(f"there is a model {model.name!r} already; give {model.__qualname__} another name.")
    _registered[model.name] = model
    return model


def check_model(model: Any, where: str) -> None:
    """Raise :class:`ConfigError` if ``model`` violates the interface, naming the violation."""
    if not (isinstance(model, type) and issubclass(model, Model)):
        raise ConfigError(f"{where} is no model: its class must derive from adrec.models.Model (or NetworkModel).")
    abstract = sorted(getattr(model, "__abstractmethods__", ()))
    if model.fit is Model.fit and not issubclass(model, NetworkModel):
        abstract.append("fit")
    if abstract:
        raise ConfigError(f"{where} breaks the contract of a model: it lacks the method {abstract[0]!r}.")
    for attribute, kind in (("name", str), ("paper", str)):
        if not isinstance(getattr(model, attribute, None), kind):
            raise ConfigError(f"{where} breaks the contract of a model: {attribute!r} must be a text of the class.")
    config = getattr(model, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Settings)):
        raise ConfigError(f"{where} breaks the contract of a model: 'Config' must derive from adrec.config.Settings.")
    if issubclass(model, NetworkModel) and not issubclass(config, TrainingConfig):
        raise ConfigError(f"{where} breaks the contract of a model: 'Config' of a NetworkModel must have stages.")
    if issubclass(model, NetworkModel) and not getattr(model, "networks", None):
        raise ConfigError(f"{where} breaks the contract of a model: it names no 'networks'.")


def model_names() -> tuple[str, ...]:
    """Return the names of all registered models."""
    installed = (each.name for each in entry_points(group="adrec.models"))
    return tuple(dict.fromkeys([*BUILT_IN, *_registered, *installed]))


def find_model(name: str, *, imports: bool = False) -> type[Model]:
    """Return the model of a ``name``, or with ``imports`` the class at ``module:Class`` in the user's own code.

    A run of such a class records its path, but a path read from a file is never imported. The class must have been
    imported before, at the user's request.

    Raises :class:`ConfigError` for an unknown name (with a suggestion) or a class that violates the interface.
    """
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        return _imported(BUILT_IN[name])
    for point in entry_points(group="adrec.models"):
        if point.name == name:
            return _imported(point.value)
    if ":" in name and imports:
        with _own_folder():
            _registered[name] = _imported(name)  # from now on this process opens runs of it
        return _registered[name]
    if ":" in name:
        raise ConfigError(f"the model {name} is the user's own code; name it with --model {name} so that it is run.")
    known = model_names()
    raise ConfigError(f"there is no model {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}.")


@contextmanager
def _own_folder() -> Iterator[None]:
    """Put the current folder last on the import path, for the user's own modules, within the context only."""
    sys.path.append("")
    try:
        yield
    finally:
        sys.path.remove("")


def _imported(path: str) -> type[Model]:
    module_name, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise ConfigError(f"the model {path} cannot be imported: {error}.") from error
    check_model(found, path)
    model: type[Model] = found
    return model
