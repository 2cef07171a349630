"""A progress display of training for a terminal or a log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

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

from adrec.train.callbacks import Callback


class Live(Callback):
    """Shows stage, epoch, loss, validation metric and time left, with a progress bar on a terminal.

    The time left includes every epoch that the stage may take; early stopping often ends it sooner. A log has no bar.
    It has a line for each validation, and for an epoch that ends ``silence`` seconds or more after the last line.
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

    def on_resume(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Say where training resumes."""
        self.console.print(f"Resumes after epoch {rows[-1]['epoch']} of {rows[-1]['stage']}.")

    def on_stage_start(self, name: str, epochs: int, done: int, steps_per_epoch: int) -> None:
        """Start a progress bar for the stage."""
        self.loss, self.validation, self.steps_per_epoch = "", "", steps_per_epoch
        self.told = time.monotonic()
        self.progress.reset(self.task, description=name, total=epochs, completed=done, state="")

    def on_step_end(self) -> None:
        """Advance the bar by one step."""
        self.progress.advance(self.task, 1 / self.steps_per_epoch)

    def on_epoch_end(self, row: Mapping[str, object]) -> None:
        """Show the epoch's loss, and its validation metrics if there are any."""
        loss, validation = row["loss"], row.get("validation")
        validated = isinstance(validation, Mapping)
        assert isinstance(loss, Mapping)
        self.loss = "  ".join(f"{name} {value:.4f}" for name, value in loss.items())
        if isinstance(validation, Mapping):
            shown = [(name, validation[name]) for name in ("hr@20", "ndcg@20") if name in validation]
            of = f" of {row['validation_users']:,} users drawn" if "validation_users" in row else ""
            self.validation = "  ".join(f"{name} {value:.4f}" for name, value in shown) + of + _embedding_health(row)
        if validated or (not self.console.is_terminal and time.monotonic() - self.told >= self.silence):
            line = Text(f"{row['stage']:>8}  epoch {row['epoch']:>3}  {self.loss}")
            line.append(f"  {self.validation}" if validated else "")
            line.append("  best so far" if row.get("selected") else "", style="green")
            self.console.print(line)
            self.told = time.monotonic()
        state = f"{self.loss}  [cyan]{self.validation}[/]"
        self.progress.update(self.task, completed=float(str(row["epoch"])), state=state)

    def on_message(self, sentence: str, *, warning: bool = False) -> None:
        """Print the message."""
        self.console.print(Text(f"warning: {sentence}", style="yellow") if warning else Text(sentence))


def _embedding_health(row: Mapping[str, object]) -> str:
    """Return a short description of the health of the item embedding."""
    health = row.get("embedding")
    if not isinstance(health, Mapping) or not health:
        return ""
    return f"  embedding: rank {health['effective_rank']:.0f}, noise {health['noise_share']:.0%}"
