"""What training tells while it runs: to a terminal, to a log, or to nobody."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Reporter(Protocol):
    """Receives the events of a training run."""

    def stage(self, name: str, epochs: int, done: int, steps_per_epoch: int) -> None:
        """A stage begins, or goes on after ``done`` epochs."""

    def step(self) -> None:
        """One optimizer step is done."""

    def epoch(self, row: Mapping[str, object]) -> None:
        """An epoch is done; ``row`` is what the metrics file gets."""

    def warn(self, sentence: str) -> None:
        """Something looks wrong."""

    def tell(self, sentence: str) -> None:
        """How a stage begins, or why it has ended."""


class Silent:
    """Tells nothing."""

    def stage(self, name: str, epochs: int, done: int, steps_per_epoch: int) -> None:
        """Tell nothing."""

    def step(self) -> None:
        """Tell nothing."""

    def epoch(self, row: Mapping[str, object]) -> None:
        """Tell nothing."""

    def warn(self, sentence: str) -> None:
        """Tell nothing."""

    def tell(self, sentence: str) -> None:
        """Tell nothing."""


class Live:
    """Shows stage, epoch, loss, validation metric and time left; a bar only where there is a terminal.

    The time left counts every epoch that the stage may take; early stopping often ends it sooner. A log, which has no
    bar, has a line for each validation, and for an epoch that ends ``silence`` seconds or more behind the last line.
    """

    def __init__(self, console: Console, silence: float = 30.0) -> None:
        self.console, self.silence, self.told = console, silence, time.monotonic()
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TextColumn("at most"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=1, state="")
        self.loss, self.validation, self.steps_per_epoch = "", "", 1

    def __enter__(self) -> Live:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def stage(self, name: str, epochs: int, done: int, steps_per_epoch: int) -> None:
        """Begin a bar for the stage."""
        self.loss, self.validation, self.steps_per_epoch = "", "", steps_per_epoch
        self.told = time.monotonic()
        self.progress.reset(self.task, description=name, total=epochs, completed=done, state="")

    def step(self) -> None:
        """Move the bar by one step."""
        self.progress.advance(self.task, 1 / self.steps_per_epoch)

    def epoch(self, row: Mapping[str, object]) -> None:
        """Show the epoch's loss, and its validation metrics where there are any."""
        loss, validation = row["loss"], row.get("validation")
        validated = isinstance(validation, Mapping)
        assert isinstance(loss, Mapping)
        self.loss = "  ".join(f"{name} {value:.4f}" for name, value in loss.items())
        if isinstance(validation, Mapping):
            shown = [(name, validation[name]) for name in ("hr@20", "ndcg@20") if name in validation]
            self.validation = "  ".join(f"{name} {value:.4f}" for name, value in shown) + _space(row)
        if validated or (not self.console.is_terminal and time.monotonic() - self.told >= self.silence):
            line = Text(f"{row['stage']:>8}  epoch {row['epoch']:>3}  {self.loss}")
            line.append(f"  {self.validation}" if validated else "")
            line.append("  best so far" if row.get("selected") else "", style="green")
            self.console.print(line)
            self.told = time.monotonic()
        state = f"{self.loss}  [cyan]{self.validation}[/]"
        self.progress.update(self.task, completed=float(str(row["epoch"])), state=state)

    def warn(self, sentence: str) -> None:
        """Print what looks wrong."""
        self.console.print(Text(f"warning: {sentence}", style="yellow"))

    def tell(self, sentence: str) -> None:
        """Print how a stage begins, or why it ended."""
        self.console.print(sentence)


def _space(row: Mapping[str, object]) -> str:
    """Return what the embedding space is like, in a few words."""
    signs = row.get("embedding")
    if not isinstance(signs, Mapping) or not signs:
        return ""
    return f"  embedding: rank {signs['effective_rank']:.0f}, noise {signs['noise_share']:.0%}"
