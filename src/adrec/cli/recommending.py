"""Recommendations of a run, from path to table: recommend, similar, score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from adrec.api.model import ADRec
from adrec.config.diffusion import Sampler
from adrec.config.stage import SeenOrData
from adrec.data.extend import as_read
from adrec.data.lists import read_attribute, read_histories, read_ids, read_pairs, read_rules
from adrec.inference.recommender import Recommendations, Recommender
from adrec.inference.rules import Rules
from adrec.utils.errors import ConfigError
from adrec.utils.text import counted


@dataclass(frozen=True)
class Audience:
    """The recipients of recommendations: users of the data set (table, ids or all), or histories (table, or one)."""

    users: Path | None = None
    user: Sequence[str] | None = None
    history: Path | None = None
    given: Sequence[str] | None = None

    def __post_init__(self) -> None:
        named = [name for name in ("users", "user", "history", "given") if getattr(self, name)]
        if len(named) > 1:
            raise ConfigError(f"--{named[0]} and --{named[1]} exclude each other; give one.")


@dataclass(frozen=True)
class Items:
    """A table of items with their names and categories.

    Attributes:
        path: the table; None if there is none.
        names: its column of names.
        category: its column of categories.
    """

    path: Path | None = None
    names: str | None = None
    category: str | None = None

    def __post_init__(self) -> None:
        if self.path is None and (self.names or self.category):
            raise ConfigError(
                f"--{'names' if self.names else 'category'} is a column of --attributes; give that table."
            )
        if self.path is not None and not (self.names or self.category):
            raise ConfigError("--attributes alone means nothing; name its column with --names or --category.")

    def categories(self) -> dict[Any, Any] | None:
        """Return the category of each item by its id."""
        if self.path is None or self.category is None:
            return None
        return dict(read_attribute(self.path, self.category).select("item", "value").iter_rows())

    def named(self, table: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """Return a table with a column ``name`` after each of the item ``columns`` (``name_2`` after the second)."""
        if self.path is None or self.names is None:
            return table
        names = read_attribute(self.path, self.names).select(pl.col("item").cast(pl.String), "value")
        for number, column in enumerate(columns, start=1):
            texts = table[column].cast(pl.String).alias("item").to_frame()
            found = texts.join(names, on="item", how="left", maintain_order="left")["value"]
            title = "name" if number == 1 else f"name_{number}"
            table = table.insert_column(table.columns.index(column) + 1, found.alias(title))
        return table


def recommend(
    path: Path,
    audience: Audience,
    items: Items,
    *,
    k: int,
    seen: SeenOrData,
    seen_within: str | None,
    diversity: float,
    per_category: int | None,
    allow: Path | None,
    block: Path | None,
    explain: int,
    on_unknown: Literal["error", "skip"],
    steps: int | None,
    sampler: Sampler | None,
    data: Path | None,
    device: str,
    on_batch: Callable[[int], None],
) -> Recommendations:
    """Recommend with the run at ``path``."""
    recommender = _recommender(path, data=data, device=device, num_inference_steps=steps, sampler=sampler)
    info = recommender.dataset.info
    rules = Rules(
        seen=seen,
        seen_within=seen_within,
        diversity=diversity,
        per_category=per_category,
        categories=items.categories(),
        items=read_rules(allow, info.columns) if allow else None,
        exclude=read_rules(block, info.columns) if block else None,
    )
    if audience.given:
        result = recommender.for_histories([audience.given], k, explain=explain, on_batch=on_batch, **rules)
    elif audience.history:
        people, histories = read_histories(audience.history, info.columns, as_read(info))
        result = recommender.for_histories(histories, k, people=people, explain=explain, on_batch=on_batch, **rules)
        owner = pl.Series(info.named("user"), people).gather(result.table["history"])
        result = Recommendations(result.table.drop("history").insert_column(0, owner), result.notes)
    else:
        users: Any = list(audience.user) if audience.user else None
        if audience.users:
            users = read_ids(audience.users, "user", info.columns)
        result = recommender.for_users(users, k, on_unknown=on_unknown, explain=explain, on_batch=on_batch, **rules)
    because = [name for name in result.table.columns if name.startswith("because_")]
    table = items.named(result.table, [info.named("item"), *because])
    unnamed = table.filter(pl.col("name").is_null())[info.named("item")].n_unique() if items.names else 0
    notes = [f"{counted(unnamed, 'item')} without a name in {items.path}."] if unnamed else []
    return Recommendations(table, (*result.notes, *notes))


def similar(path: Path, ids: Sequence[str], items: Items, k: int, *, data: Path | None) -> pl.DataFrame:
    """Return the items nearest to each of ``ids``."""
    model = ADRec.load(path, data=data)
    table: pl.DataFrame = model.similar_items(list(ids), k)
    return items.named(table, [model.recommender().dataset.info.named("item"), "similar_item"])


def score(path: Path, pairs: Path, *, data: Path | None, device: str) -> Recommendations:
    """Return the scores of the pairs in the table ``pairs``."""
    recommender = _recommender(path, data=data, device=device)
    return recommender.score(read_pairs(pairs, recommender.dataset.info.columns))


def _recommender(path: Path, **options: Any) -> Recommender:
    return ADRec.load(path, **options).recommender()
