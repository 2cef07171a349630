"""What is told of a training while it runs: the one kind of hook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adrec.train.loop import Trainer


class Callback:
    """Is told of each event of a training; its methods do nothing unless a subclass says otherwise.

    Callbacks are called in their order. What one raises ends the training; what is recorded by then is kept.
    """

    def around(self, trainers: Sequence[Trainer]) -> AbstractContextManager[None]:
        """Return a context in which :func:`adrec.runs.fit.fit` runs its ``trainers``, one after the other.

        As it is entered it may restore them to where a training was interrupted.
        """
        return nullcontext()

    def on_stage_start(self, name: str, epochs: int, done: int, steps_per_epoch: int) -> None:
        """A stage of so many ``epochs`` starts, or is resumed after ``done`` of them."""

    def on_step_end(self) -> None:
        """An optimizer step is done."""

    def on_epoch_end(self, row: Mapping[str, object]) -> None:
        """An epoch is done; ``row`` is its row of metrics. The trainer's snapshot is that after the epoch."""

    def on_stage_end(self, name: str) -> None:
        """A stage has ended, and its weights are selected."""

    def on_message(self, sentence: str, *, warning: bool = False) -> None:
        """There is something to tell: how a stage starts, why it ended, or what looks wrong."""

    def should_stop(self) -> bool:
        """Return whether the stage should end with what it has; asked after each epoch."""
        return False
