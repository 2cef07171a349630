"""Recommendations of a run, from path to table: recommend, similar, score."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from adrec.api.model import ADRec
from adrec.config.diffusion import Sampler
from adrec.config.stage import SeenOrData
from adrec.data.extend import as_read
from adrec.data.lists import read_attribute, read_histories, read_ids, read_pairs, read_rules
from adrec.inference.recommender import Recommendations, Recommender
from adrec.inference.rules import Rules
from adrec.runs.folder import Run
from adrec.utils.errors import ConfigError
from adrec.utils.files import sha256
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


@dataclass(frozen=True)
class Wishes:
    """What is recommended, and by which rules.

    Attributes:
        k: the number of items.
        seen: what is done with seen items.
        seen_within: leaves out items of the last days alone.
        diversity: how much an item loses for resembling items above it.
        per_category: the largest number of items of a category.
        allow: a table of the only items to recommend.
        block: a table of items never to recommend.
        explain: the number of items of the history that are named for each item.
        on_unknown: what is done with unknown users.
        steps: denoising steps.
        sampler: the sampler.
    """

    k: int = 10
    seen: SeenOrData = "data"
    seen_within: str | None = None
    diversity: float = 0.0
    per_category: int | None = None
    allow: Path | None = None
    block: Path | None = None
    explain: int = 0
    on_unknown: Literal["error", "skip"] = "error"
    steps: int | None = None
    sampler: Sampler | None = None


class Request:
    """A request for the recommendations of the run at ``path``, for all of its recipients or some of them."""

    def __init__(
        self, path: Path, audience: Audience, items: Items, wishes: Wishes, *, data: Path | None, device: str
    ) -> None:
        self.path, self.items, self.wishes, self.audience = path, items, wishes, audience
        loaded = ADRec.load(path, data=data, device=device, num_inference_steps=wishes.steps, sampler=wishes.sampler)
        self.recommender = recommender = loaded.recommender()
        columns = recommender.dataset.info.columns
        self.rules = Rules(
            seen=wishes.seen,
            seen_within=wishes.seen_within,
            diversity=wishes.diversity,
            per_category=wishes.per_category,
            categories=items.categories(),
            items=read_rules(wishes.allow, columns) if wishes.allow else None,
            exclude=read_rules(wishes.block, columns) if wishes.block else None,
        )
        self.people, self.notes = pl.Series(), tuple[str, ...]()
        self.histories: Sequence[Sequence[Any]] = ()
        self.numbers = np.empty(0, dtype=np.int64)
        if audience.given:
            self.histories = [audience.given]
        elif audience.history:
            people, self.histories = read_histories(audience.history, columns, as_read(recommender.dataset.info))
            self.people = pl.Series(people)
        else:
            users: Any = list(audience.user) if audience.user else None
            users = read_ids(audience.users, "user", columns) if audience.users else users
            self.numbers, self.notes = recommender.numbers_of(users, wishes.on_unknown)

    @property
    def total(self) -> int:
        """The number of recipients."""
        return len(self.numbers) or len(self.histories)

    def table(self, start: int, end: int, on_batch: Callable[[int], None]) -> Recommendations:
        """Return the recommendations for some of the recipients, with the names of items."""
        found, info = self._found(start, end, on_batch), self.recommender.dataset.info
        because = [name for name in found.table.columns if name.startswith("because_")]
        table = self.items.named(found.table, [info.named("item"), *because])
        unnamed = table.filter(pl.col("name").is_null())[info.named("item")].n_unique() if self.items.names else 0
        notes = [f"{counted(unnamed, 'item')} without a name in {self.items.path}."] if unnamed else []
        return Recommendations(table, (*found.notes, *notes))

    def _found(self, start: int, end: int, on_batch: Callable[[int], None]) -> Recommendations:
        recommender, wishes, rules = self.recommender, self.wishes, self.rules
        if not self.histories:
            some = self.numbers[start:end]
            return recommender.for_numbers(some, wishes.k, explain=wishes.explain, on_batch=on_batch, **rules)
        people = self.people[start:end] if self.audience.history else None
        histories = self.histories[start:end]
        if people is not None and len(histories) < self.total:  # others' lists are not about these
            rules = rules.copy()
            rules["items"], rules["exclude"] = (_about(self.rules.get(key), people) for key in ("items", "exclude"))
        result = recommender.for_histories(
            histories, wishes.k, people=people, explain=wishes.explain, on_batch=on_batch, **rules
        )
        if people is None:
            return result
        owner = people.alias(recommender.dataset.info.named("user")).gather(result.table["history"])
        return Recommendations(result.table.drop("history").insert_column(0, owner), result.notes)

    def identity(self) -> dict[str, Any]:
        """Return all that decides the recommendations, as plain JSON."""
        files = {"allow": self.wishes.allow, "block": self.wishes.block, "attributes": self.items.path}
        files |= {"users": self.audience.users, "history": self.audience.history}
        named = {name: None if path is None else sha256(path) for name, path in files.items()}
        plain = {key: value for key, value in asdict(self.wishes).items() if key not in named}
        given = {"user": self.audience.user, "given": self.audience.given}
        columns = {"names": self.items.names, "category": self.items.category}
        model = {"weights": Run.open(self.path).info.weights_digest, "data": self.recommender.dataset.fingerprint}
        values: dict[str, Any] = json.loads(json.dumps({**model, **plain, **given, **columns, **named}))
        return values


def _about(rule: Any, people: pl.Series) -> Any:
    """Return a list of items, or of a table of users and items the rows of some ``people``."""
    if not isinstance(rule, pl.DataFrame):
        return rule
    return rule.filter(pl.col("user").cast(pl.String).is_in(people.cast(pl.String).implode()))


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
