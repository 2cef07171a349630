"""Recipes: preparation options of known data sets by name, from ``recipes.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from adrec.data.preparation import Preparation
from adrec.utils.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Recipe:
    """The preparation of a known data set.

    Attributes:
        name: name of the recipe.
        title: title of the data set.
        files: names of the distributed files.
        url: download page.
        licence: short licence terms.
        cite: publication to cite.
        options: the fields of :class:`~adrec.data.preparation.Preparation` that differ from the defaults.
        counts: published numbers of ``users`` and ``items``; empty if unknown.
        note: known origin of these counts.
    """

    name: str
    title: str
    files: str
    url: str
    licence: str
    cite: str
    options: Mapping[str, Any]
    counts: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


@cache
def recipes() -> Mapping[str, Recipe]:
    """Return every recipe by name."""
    text = resources.files("adrec.data").joinpath("recipes.toml").read_text(encoding="utf-8")
    told = {each.name for each in fields(Recipe)}
    found = {}
    for name, values in tomllib.loads(text).items():
        about = {key: value for key, value in values.items() if key in told}
        options = {key: value for key, value in values.items() if key not in told}
        Preparation().changed(options)
        found[name] = Recipe(name=name, options=MappingProxyType(options), **about)
    return MappingProxyType(found)


def recipe_options(name: str | None) -> Mapping[str, Any]:
    """Return the options of a recipe; empty for None. Raises :class:`ConfigError` for an unknown recipe."""
    if name is None:
        return {}
    known = recipes()
    if name not in known:
        raise ConfigError(f"there is no recipe {name!r}{did_you_mean(name, known)}; `adrec recipes` lists them.")
    return known[name].options
