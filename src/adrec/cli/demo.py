"""The demo: ADRec's three stages on MovieLens ratings, what they do to the embedding, and films by title."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adrec.cli.console import comparison_table
from adrec.cli.demo_picture import draw_demo
from adrec.cli.movielens import movielens
from adrec.cli.workflow import train_dataset
from adrec.config.adrec import Config, preset
from adrec.data.dataset import Dataset, write_dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.diagnose.denoising import denoised_items
from adrec.diagnose.maps import check_drawing
from adrec.evaluate.protocol import Evaluation, evaluate, training_popularity
from adrec.inference.recommender import Recommender
from adrec.models.adrec import ADRecModel
from adrec.models.base import Model
from adrec.models.baselines.itemknn import ItemKNN
from adrec.models.baselines.popularity import Popularity
from adrec.nn.spectrum import Matrix
from adrec.runs.folder import Run
from adrec.train.cost import duration
from adrec.utils.errors import UserError
from adrec.utils.files import write_json
from adrec.utils.tables import write_table

# With few users, smaller batches need fewer epochs, and a smaller network takes less time.
SMALL: dict[str, Any] = {"batch_size": 32, "hidden_size": 64, "max_length": 50, "finetune.averaging": 0.99}
END_TO_END: dict[str, Any] = {  # from an embedding N(0, 1), as published
    **SMALL,
    "pretrain": False,
    "align": False,
    "finetune.start": "scratch",
    "model.embedding_std": 1.0,
    "finetune.epochs": 10,
}
MIN_ITEM = 5
SHOWN_METRICS = ("hr@10", "ndcg@10", "hr@20", "ndcg@20")
FILMS = 5  # shown at a denoising step


@dataclass(frozen=True)
class Demo:
    """The demo's folder, data and console.

    Attributes:
        out: the folder.
        dataset: the prepared ratings.
        films: the films: ``item``, ``title``, ``genres``, ``genre``.
        seed: the random seed.
        console: receives the output.
    """

    out: Path
    dataset: Dataset
    films: pl.DataFrame
    seed: int
    console: Console

    @property
    def person(self) -> int:
        """The user that the demo recommends to."""
        first: int = self.dataset.users.ids[0]
        return first

    def train(self, name: str, changes: Mapping[str, Any], *, quiet: bool, named: str = "default") -> Run:
        """Train a preset with ``changes`` as the run ``name``."""
        console = Console(quiet=True) if quiet else self.console
        model = ADRecModel(preset(named, changes))
        return train_dataset(self.out / "data", self.out / name, model, "leave-one-out", self.seed, console)

    def films_of(self, items: pl.Series) -> pl.DataFrame:
        """Return the films of some ids, in their order."""
        return items.alias("item").to_frame().join(self.films, on="item", how="left", maintain_order="left")

    def titles(self, numbers: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
        """Return the titles of films by their item numbers, from 1."""
        return self.films_of(self.dataset.catalogue.decode(numbers - 1))["title"].to_list()


def run_demo(out: Path | None, *, seed: int, console: Console) -> None:
    """Run the demo; everything is kept in ``out``, ``adrec-demo`` by default."""
    out = out or Path("adrec-demo")
    began = time.perf_counter()
    check_drawing()
    ratings, films = movielens()
    _fresh(out)
    dataset = prepare(ratings, min_item=MIN_ITEM, name="movielens-small")
    write_dataset(dataset, out / "data")
    write_table(films, out / "films.csv")
    demo = Demo(out, dataset, films, seed, console)
    console.rule("[bold]1. The data")
    console.print(
        f"{ratings.height:,} MovieLens ratings by {ratings['user'].n_unique()} people of {films.height:,} films; "
        f"{dataset.num_interactions:,} remain of the {dataset.num_items:,} films with {MIN_ITEM} ratings or more. "
        "The last film of each person tests, the one before validates."
    )
    staged = _train_in_stages(demo)
    end_to_end = _train_end_to_end(demo, staged)
    _denoise(demo, staged)
    results = _compare(demo, staged, end_to_end)
    _recommend(demo, staged)
    _draw(demo, staged, end_to_end, results)
    _show_commands(demo)
    console.print(f"\nThe demo took {duration(time.perf_counter() - began)}; everything is in {out}/.")


def _fresh(out: Path) -> None:
    """Create ``out`` as an empty folder. An earlier demo there is replaced; any other content is kept and refused."""
    if (out / "demo.json").exists():
        shutil.rmtree(out)
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds something that is not an earlier demo; choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "demo.json", {"about": "written by `adrec demo`, which replaces this folder when run again"})


def _train_in_stages(demo: Demo) -> Run:
    say = demo.console.print
    demo.console.rule("[bold]2. Training in three stages")
    changed = ", ".join(f"{key}={value}" for key, value in SMALL.items())
    say(f"A small network, for so few people: {changed}; all else as `adrec config` shows the default.")
    say("Stage 1, pretrain: the item embedding, before the network. Films that people watch together lie together.")
    say("Stage 2, align: CAM (the causal attention) and ADM (the denoiser) learn around the frozen embedding.")
    say("Stage 3, finetune: all weights. Each film to predict is hidden by noise of its own timestep.")
    return demo.train("run", SMALL, quiet=False)


def _train_end_to_end(demo: Demo, staged: Run) -> Run:
    """Train the same network without stages 1 and 2, and show the embedding's health beside that of the stages."""
    demo.console.rule("[bold]3. What the stages do to the item embedding")
    epochs = END_TO_END["finetune.epochs"]
    demo.console.print(f"The same network, trained end to end from an embedding N(0, 1) for {epochs} epochs ...")
    end_to_end = demo.train("end-to-end", END_TO_END, quiet=True)
    table = Table("item embedding")
    for column in ("effective rank", "like noise", "mean cosine"):
        table.add_column(column, justify="right")
    stages = [(f"after {stage['stage']}", stage["embedding"]) for stage in staged.info.stages]
    collapsed = end_to_end.info.stages[-1]["embedding"]
    for name, health in [*stages, ("end to end", collapsed)]:
        rank = f"{health['effective_rank']:.0f} of {SMALL['hidden_size']}"
        table.add_row(name, rank, f"{health['noise_share']:.0%}", f"{health['mean_cosine']:.2f}")
    demo.console.print(table)
    demo.console.print(
        "Like noise: the share of the embedding's spectrum that random vectors would have too. A collapsed embedding "
        "has little else, or few dimensions, or vectors that all point the same way (a mean cosine near 1). "
        f"Here {stages[-1][1]['noise_share']:.0%} is like noise after three stages, and "
        f"{collapsed['noise_share']:.0%} end to end."
    )
    return end_to_end


def _denoise(demo: Demo, staged: Run) -> None:
    """Show the films nearest to the last token of a person while it is denoised."""
    model = staged.model()
    assert isinstance(model, ADRecModel) and isinstance(model.config, Config)
    steps = model.config.model.num_train_timesteps
    demo.console.rule(f"[bold]4. Denoising the next film of person {demo.person}")
    demo.console.print(
        f"The next film starts as noise and becomes a prediction in {steps} steps. The films nearest to it on the way:"
    )
    shown = denoised_items(model, demo.dataset.history(0), [steps, steps // 2, 0], FILMS)
    table = Table(*(f"{left} steps left" if left else "denoised" for left in shown))
    for row in zip(*(demo.titles(items) for items in shown.values()), strict=True):
        table.add_row(*map(escape, row))
    demo.console.print(table)
    demo.console.print("The default takes one step, which ranks as well (docs/method.md).")


def _compare(demo: Demo, staged: Run, end_to_end: Run) -> dict[str, Evaluation]:
    """Evaluate ADRec, the same trained end to end, its CAM alone and two models that count, on the test part."""
    demo.console.rule("[bold]5. The next film, among the whole catalogue")
    demo.console.print("CAM alone (the preset cam: no diffusion, one stage), for comparison ...")
    alone = demo.train("cam", {**SMALL, "finetune.patience": 3}, quiet=True, named="cam")
    split = leave_one_out(demo.dataset)
    popular, itemknn = Popularity(), ItemKNN()
    for counting in (popular, itemknn):
        counting.fit(demo.dataset, split)
    models: dict[str, Model] = {
        "popular": popular,
        "itemknn": itemknn,
        "end to end": end_to_end.model(),
        "cam": alone.model(),
        "adrec": staged.model(),
    }
    results = {name: evaluate(each, demo.dataset, split, cutoffs=(10, 20)) for name, each in models.items()}
    demo.console.print(comparison_table(SHOWN_METRICS, results))
    demo.console.print(
        f"{len(split.test.users)} test users; films already rated are left out; in brackets the 95 % interval."
    )
    return results


def _recommend(demo: Demo, staged: Run) -> None:
    """Print the last films of one user and the recommended films, by title."""
    demo.console.rule(f"[bold]6. Person {demo.person}")
    last = demo.dataset.catalogue.decode(demo.dataset.history(0)[-8:].astype(np.int64) - 1)
    demo.console.print("The last films rated, oldest first:")
    _show_films(last, demo)
    demo.console.print("Recommended next:")
    _show_films(
        Recommender(staged.model(), demo.dataset).for_users([demo.person], 10).table[demo.dataset.info.named("item")],
        demo,
    )


def _show_films(items: pl.Series, demo: Demo) -> None:
    """Print films in the order of ``items``, numbered from 1."""
    table = demo.films_of(items).select("title", "genres")
    for number, (title, genres) in enumerate(table.iter_rows(), start=1):
        demo.console.print(f"{number:>4}  {escape(title)}  [dim]{escape(genres)}[/]")


def _draw(demo: Demo, staged: Run, end_to_end: Run, results: Mapping[str, Evaluation]) -> None:
    """Draw the embedding after stage 1, after stage 3 and trained end to end, and the accuracy of the models."""
    first, split = staged.stage_1(), leave_one_out(demo.dataset)
    assert first is not None
    maps: dict[str, Matrix] = {
        "after stage 1": first.numpy()[1:],
        "after stage 3": _vectors(staged),
        "end to end": _vectors(end_to_end),
    }
    genres = demo.films_of(demo.dataset.catalogue.ids)["genre"].to_list()
    path = demo.out / "demo.png"
    draw_demo(path, maps, genres, training_popularity(demo.dataset, split)[1:], results, "ndcg@20")
    demo.console.rule("[bold]7. Next")
    demo.console.print(f"The picture {path} shows the films' map and these results.")


def _vectors(run: Run) -> Matrix:
    vectors = run.model().item_vectors
    assert vectors is not None
    return vectors[1:]


def _show_commands(demo: Demo) -> None:
    """Print commands to try next, one per line."""
    out = demo.out
    commands = {
        f"adrec recommend {out}/run --user {demo.person}": "more for this person",
        f"adrec recommend {out}/run --given 318 --given 296": "for somebody new, who liked these two",
        f"adrec similar {out}/run --item 318": "films near The Shawshank Redemption",
        f"adrec evaluate {out}/run --against {out}/cam": "all metrics, with and without diffusion",
        f"adrec diagnose {out}/run {out}/end-to-end --out {out}/space --attributes {out}/films.csv --attribute genre "
        "--names title": "a map of the films",
        f"adrec refit {out}/run --out {out}/final": "train on all ratings, for production",
        "adrec prepare YOUR.csv --out data/yours": "your own table of user, item, time",
    }
    width = sorted(map(len, commands))[-2]  # the longest command may exceed the column
    for command, what in commands.items():
        demo.console.print(f"{command:{width}}  [dim]# {what}[/]", soft_wrap=True)
