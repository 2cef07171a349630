"""Callbacks: the hook for the events of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adrec.train.loop import Trainer


class Callback:
    """Receives the events of a training; every method does nothing unless a subclass overrides it.

    Callbacks are called in order. An exception raised by one ends the training; what is already recorded is kept.
    """

    def around(self, trainers: Sequence[Trainer]) -> AbstractContextManager[None]:
        """Return a context in which :func:`adrec.runs.fit.fit` runs its ``trainers``, one after the other.

        Entering it may restore the trainers to the point where a training was interrupted.
        """
        return nullcontext()

    def on_resume(self, rows: Sequence[Mapping[str, object]]) -> None:
        """An interrupted training resumes; ``rows`` are the rows of metrics of its epochs so far, not empty."""

    def on_stage_start(self, name: str, epochs: int, done: int, steps_per_epoch: int) -> None:
        """A stage of ``epochs`` epochs starts, or resumes after ``done`` epochs."""

    def on_step_end(self) -> None:
        """An optimizer step is done."""

    def on_epoch_end(self, row: Mapping[str, object]) -> None:
        """An epoch is done; ``row`` is its row of metrics. The trainer's snapshot is that of the end of the epoch."""

    def on_stage_end(self, name: str) -> None:
        """A stage has ended, and its weights have been selected."""

    def on_message(self, sentence: str, *, warning: bool = False) -> None:
        """A message or warning: how a stage starts, why it ended, or what looks wrong."""

    def should_stop(self) -> bool:
        """Return whether to end the stage early; called after each step and each epoch."""
        return False

    def go_back(self) -> bool:
        """Restore the trainer to an earlier recorded state, as it has diverged; return whether there was one."""
        return False
