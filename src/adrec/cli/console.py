"""Tables and texts that show results on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from adrec.config.base import Settings
from adrec.config.describe import described
from adrec.data.recipes import Recipe
from adrec.data.summary import Facts
from adrec.utils.platforms import visible
from adrec.utils.text import counted

if TYPE_CHECKING:
    from adrec.evaluate.metrics import Estimate
    from adrec.evaluate.protocol import Evaluation
    from adrec.evaluate.significance import Difference
    from adrec.models.base import Model
    from adrec.train.plan import TrainingPlan
    from adrec.utils.errors import UserError


def counter(console: Console) -> Progress:
    """Return a transient progress bar that counts users; it is disabled if there is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return metrics with their intervals over users."""
    table = Table()
    table.add_column("metric")
    table.add_column("mean", justify="right")
    table.add_column("95 % interval", justify="right")
    if evaluation.batch_means is not None:
        table.add_column("batch mean", justify="right")
    for name, estimate in evaluation.metrics.items():
        row = [name, f"{estimate.mean:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}"]
        if evaluation.batch_means is not None:
            row.append(f"{evaluation.batch_means[name]:.4f}")
        table.add_row(*row)
    return table


def difference_table(
    ours: Mapping[str, Estimate], theirs: Mapping[str, Estimate], differences: Mapping[str, Difference]
) -> Table:
    """Return two models' metrics side by side with their differences."""
    table = Table("metric", "run", "against", "difference", "95 % interval", "p (Holm)")
    for name, each in differences.items():
        table.add_row(
            name,
            f"{ours[name].mean:.4f}",
            f"{theirs[name].mean:.4f}",
            f"{each.estimate.mean:+.4f}",
            f"{each.estimate.low:+.4f} to {each.estimate.high:+.4f}",
            f"{each.p:.2g}",
        )
    return table


def periods_table(found: Mapping[str, Evaluation]) -> Table:
    """Return a row for each period of a backtest: its size, the share of new items, HR and NDCG at the largest k."""
    table = Table()
    names = next(iter(found.values())).metrics
    largest = max(int(name.partition("@")[2]) for name in names)
    days = [begin.partition("T")[0] for begin in found]
    shown = days if len(set(days)) == len(days) else list(found)
    for name in ("from", "users", "items", "new", f"hr@{largest}", f"ndcg@{largest}", "95 % interval"):
        table.add_column(name, justify="left" if name == "from" else "right", no_wrap=True)
    for begin, each in zip(shown, found.values(), strict=True):
        hit, ndcg = each.metrics[f"hr@{largest}"], each.metrics[f"ndcg@{largest}"]
        table.add_row(
            begin,
            f"{each.num_users:,}",
            f"{each.ranks.height:,}",
            f"{each.num_new_items / each.ranks.height:.1%}",
            f"{hit.mean:.4f}",
            f"{ndcg.mean:.4f}",
            f"{ndcg.low:.4f} to {ndcg.high:.4f}",
        )
    return table


def evaluation_notes(evaluation: Evaluation, *, names_other: bool = False, briefly: bool = False) -> str:
    """Return notes on an evaluation: its users, its protocol, and the coverage and popularity of recommended items.

    With ``names_other`` the option that does the opposite with seen items is named; ``briefly`` names the protocol
    alone.
    """
    seen, other = ("left out", "keep") if evaluation.filter_seen else ("ranked too", "leave-out")
    seen = f"seen items {seen}" + (f" (--seen {other} does the opposite)" if names_other else "")
    if briefly:
        return f"What is later than the data of the run, whole catalogue, {seen}; 95 % intervals over users."
    several = f" ({evaluation.ranks.height:,} held-out items)" if evaluation.ranks.height > evaluation.num_users else ""
    new = (
        f"{evaluation.num_new_items:,} held-out items appear after training: the model does not know them.\n"
        if evaluation.num_new_items
        else ""
    )
    repeats = (
        f"{evaluation.num_repeats:,} held-out items are of their user's history: left out with it, they are missed.\n"
        if evaluation.num_repeats
        else ""
    )
    return (
        f"{evaluation.part} part of {evaluation.split}, {counted(evaluation.num_users, 'user')}{several}, "
        f"whole catalogue, {seen}.\n"
        f"{new}{repeats}"
        f"Taken together, the first {evaluation.cutoff} items of all users are {evaluation.coverage:.1%} of the "
        f"catalogue. A recommended "
        f"item has {evaluation.popularity['recommended']:.1f} training interactions on average, a held-out one "
        f"{evaluation.popularity['held_out']:.1f}."
    )


def frame_table(frame: pl.DataFrame, most: int = 40) -> Table:
    """Return the first rows of a frame as a table. The caption counts the rows that are not shown."""
    left = frame.height - most
    table = Table(caption=f"and {left:,} more rows; --out FILE writes them all" if left > 0 else None)
    for name, dtype in frame.schema.items():
        table.add_column(visible(name), justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in frame.head(most).iter_rows():
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else Text(visible(str(value))) for value in row))
    return table


def comparison_table(metrics: Sequence[str], models: Mapping[str, Evaluation]) -> Table:
    """Return several models' metrics side by side, each with its interval."""
    table = Table(title_justify="left")
    table.add_column("model")
    for metric in metrics:
        table.add_column(metric, justify="right")
    table.add_column("coverage", justify="right")
    for name, evaluation in models.items():
        cells = [
            f"{each.mean:.4f} [dim]({each.low:.4f} to {each.high:.4f})[/]"
            for each in (evaluation.metrics[metric] for metric in metrics)
        ]
        table.add_row(name, *cells, f"{evaluation.coverage:.1%}")
    return table


def facts_table(facts: Facts) -> Table:
    """Return the statistics of a data set as a table."""
    table = Table(show_header=False)
    table.add_column("what")
    table.add_column("figure", overflow="fold")

    def spread(values: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {value:,.4g}" for name, value in values.items())

    rows = {
        "data set": facts.name,
        "users, items, interactions": f"{facts.users:,}, {facts.items:,}, {facts.interactions:,}",
        "density": f"{facts.density:.3%}",
        "history length": spread(facts.history_length),
        "popularity of an item": spread(facts.popularity),
        "the most popular 1 % of items": f"{facts.top_share:.1%} of all interactions",
        "time": f"{facts.first} to {facts.last}" + (" (an order only)" if facts.time_unit == "none" else ""),
        "same time as the one before": f"{facts.same_time:.1%} of a user's interactions",
        "repeats": f"{facts.repeats:.1%} of interactions",
        "seen items": f"{'kept' if facts.seen == 'keep' else 'left out'}; {facts.returning:.1%} return to one",
        "split": f"{facts.split}: {facts.trained:.1%} of interactions train",
    }
    for part, figures in facts.held_out.items():
        rows[part] = (
            f"{counted(figures['interactions'], 'interaction')} of {counted(figures['users'], 'user')}; "
            f"{figures['cold_items']:,} with items that never train, {figures['cold_users']:,} users who never train"
        )
    rows[f"the window of {facts.max_length}"] = (
        f"{facts.window_used:.1%} of its positions used in training; {facts.beyond_window:.1%} of interactions beyond"
    )
    for what, figure in rows.items():
        table.add_row(what, figure)
    return table


def recipes_table(recipes: Iterable[Recipe]) -> Table:
    """Return the known data sets as a table, one per row."""
    table = Table(caption="adrec prepare FILE --recipe NAME --out data/NAME; adrec recipes NAME shows one whole")
    for column in ("recipe", "for", "where to get it", "licence"):
        table.add_column(column, overflow="fold")
    for recipe in recipes:
        table.add_row(recipe.name, f"{recipe.title}: {recipe.files}", recipe.url, recipe.licence)
    return table


def recipe_page(recipe: Recipe) -> str:
    """Return the full description of one recipe."""
    options = ", ".join(f"{key} = {value!r}" for key, value in recipe.options.items()) or "none"
    lines = [
        f"{recipe.name}: {recipe.title}",
        f"files: {recipe.files}",
        f"from: {recipe.url}",
        f"licence: {recipe.licence}",
        f"cite: {recipe.cite}",
        f"options: {options}",
    ]
    if recipe.counts:
        lines.append("published counts: " + ", ".join(f"{number:,} {what}" for what, number in recipe.counts.items()))
    return "\n".join([*lines, *([recipe.note] if recipe.note else [])])


def config_table(config: Settings) -> Table:
    """Return the keys of a configuration that have an effect, with their values and meanings."""
    rows = list(described(config))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("key", no_wrap=True, min_width=max(len(key) for key, _, _ in rows))
    table.add_column("value", overflow="fold")
    table.add_column("meaning", overflow="fold")
    for key, value, meaning in rows:
        shown = (
            ", ".join(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else value
        )
        table.add_row(key, str(shown), Text(meaning))
    return table


def models_table(models: Mapping[str, type[Model] | UserError]) -> Table:
    """Return the models by name, or why a model is not available."""
    table = Table(caption="adrec config --model NAME prints a model's settings, which adrec train --set changes")
    table.add_column("model")
    table.add_column("settings", justify="right")
    table.add_column("paper", overflow="fold")
    for name, model in models.items():
        if isinstance(model, type):
            table.add_row(name, str(len(model.Config.keys())), model.paper)
        else:
            table.add_row(name, "", Text(str(model)))
    return table


def size(num_bytes: float) -> str:
    """Return a number of bytes as a short text: ``512 MiB``, ``3.8 GiB``."""
    mebibytes = num_bytes / 2**20
    return f"{mebibytes:,.1f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:,.1f} GiB"


def plan_tables(plan: TrainingPlan) -> Iterator[Table | Text]:
    """Yield the cost of a training run: its stages, memory and disk."""
    from adrec.train.cost import duration

    data = plan.data
    yield Text(
        f"{data['name']}: {counted(data['users'], 'user')}, {counted(data['items'], 'item')}; "
        f"{data['tokens']:,} tokens an epoch in "
        f"{data['steps']:,} steps; {plan.device}, {plan.threads} threads"
    )
    stages = Table("stage", title="time")
    for column in ("epochs at most", "an epoch", "GFLOP an epoch", "a validation", "all of it"):
        stages.add_column(column, justify="right")
    for name, cost in plan.cost.stages.items():
        if not cost.epochs:  # co-occurrences alone
            stages.add_row(name, "0", "", "", "", duration(cost.total))
            continue
        values = (
            duration(cost.epoch),
            f"{plan.flop[name] / 1e9:,.0f}",
            duration(cost.validation) if cost.validation else "",
            duration(cost.total),
        )
        stages.add_row(name, str(plan.epochs[name]), *values)
    yield stages
    if plan.ways:
        ways = Table("the last stage against the catalogue", title="ways to train")
        ways.add_column("an epoch", justify="right")
        ways.add_column("settings")
        for words, way in plan.ways.items():
            settings = " ".join(f"--set {key}={json.dumps(value)}" for key, value in way.changes.items())
            ways.add_row(words, duration(way.epoch), settings or "as they are")
        yield ways
    memory = Table("what", title="memory at the peak of training")
    memory.add_column("bytes", justify="right")
    for what, num_bytes in plan.memory.items():
        memory.add_row(what, size(num_bytes))
    memory.add_row("in all", size(plan.peak_memory))
    yield memory
    parts = ", ".join(f"{name} {count:,}" for name, count in plan.parameters.items())
    yield Text(f"{sum(plan.parameters.values()):,} parameters: {parts}")
    yield Text("disk: " + ", ".join(f"{size(num_bytes)} {when}" for when, num_bytes in plan.disk.items()))
    at_most = "at most " if plan.cost.may_stop_early else ""
    early = "; early stopping usually ends stages sooner" if plan.cost.may_stop_early else ""
    yield Text(f"time: {at_most}{duration(plan.cost.total)}{early}")
    yield Text("Times are of a few steps on this machine: while other programs run, they may be twice too long.")
