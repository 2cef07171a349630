"""How results look on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
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

from adrec.data.dataset import DatasetInfo

if TYPE_CHECKING:
    from adrec.evaluate.protocol import Evaluation


def counter(console: Console) -> Progress:
    """Return a transient progress bar that counts users; nothing where there is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


def preparation(info: DatasetInfo, out: Path) -> Iterator[str]:
    """Yield what to tell about a data set that was prepared into ``out``."""
    yield "columns: " + ", ".join(f"{role} = {column!r}" for role, column in info.columns.items())
    yield f"read {info.num_read:,} interactions, kept {info.num_interactions:,}"
    yield f"{info.num_users:,} users, {info.num_items:,} items: {out}"
    yield f"Next: adrec train {out} --out runs/{info.name}"


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


def evaluation_notes(evaluation: Evaluation) -> str:
    """Return of whom and how the metrics are, and what the recommended items are like."""
    seen = "seen items left out" if evaluation.filter_seen else "seen items ranked too"
    return (
        f"{evaluation.part} part of {evaluation.split}, {evaluation.ranks.height:,} users, whole catalogue, {seen}.\n"
        f"Taken together, the first {evaluation.cutoff} items of all users are {evaluation.coverage:.1%} of the "
        f"catalogue. A recommended "
        f"item has {evaluation.popularity['recommended']:.1f} training interactions on average, a held-out one "
        f"{evaluation.popularity['held_out']:.1f}."
    )


def frame_table(frame: pl.DataFrame, most: int = 40) -> Table:
    """Return the first rows of a frame as a table; the caption counts those left out."""
    left = frame.height - most
    table = Table(caption=f"and {left:,} more rows; --out FILE writes them all" if left > 0 else None)
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in frame.head(most).iter_rows():
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else Text(str(value)) for value in row))
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
