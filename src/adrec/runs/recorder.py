"""The callback that records a training in its run folder, so that it can be resumed after any interruption."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from adrec.runs.folder import Run
from adrec.train.callbacks import Callback
from adrec.train.loop import Trainer
from adrec.utils.errors import UserError
from adrec.utils.files import remove_temporaries

SHARE = 0.05  # the largest share of the training time that writing snapshots takes, where no time is given
FIRST = 30.0  # seconds before the first snapshot within an epoch, whose cost is not known yet


class Recorder(Callback):
    """Records a training in the folder of ``run``, and resumes from its last snapshot.

    A row of metrics is written after each epoch. A snapshot is written at the end of each stage, and at the end of a
    step or an epoch once enough time has passed: ``every`` seconds, by default so many that the snapshots take at most
    :data:`SHARE` of the time. An interrupted training writes one too.
    """

    def __init__(self, run: Run, every: float | None = None) -> None:
        self.run, self.every = run, every
        self.trainers: Sequence[Trainer] = ()
        self.active: Trainer | None = None
        self._written, self._cost = time.monotonic(), 0.0

    @contextmanager
    def around(self, trainers: Sequence[Trainer]) -> Iterator[None]:
        """Restore the trainers from the run's snapshots. Raises :class:`RunError` if both are damaged."""
        self.trainers = trainers
        remove_temporaries(self.run.path)
        for sentence in self.run.restore(trainers):
            for each in trainers[-1].callbacks:
                each.on_message(sentence, warning=True)
        self._written = time.monotonic()
        try:
            yield
        except BaseException:  # whatever ends it, such as an interrupt or a callback whose time is up
            if self.active is not None and self.active.at_rest:
                with contextlib.suppress(UserError):  # a full disk may be what ends it
                    self._write()
            raise

    def _is_due(self, *, within_epoch: bool) -> bool:
        since = time.monotonic() - self._written
        if self.every is not None:
            return since >= self.every
        if self._cost == 0.0:
            return since >= FIRST or not within_epoch
        return since >= self._cost * (1 - SHARE) / SHARE

    def _write(self) -> None:
        assert self.active is not None
        began = time.monotonic()
        self.run.states(self.active, self.trainers).write(self.active, self.run.metrics.digest())
        self._written = time.monotonic()
        self._cost = self._written - began

    def on_step_end(self) -> None:
        """Write a snapshot if it is time, but not after a step that could not be used."""
        if self.active is not None and self._is_due(within_epoch=True) and self.active.watch.is_calm:
            self._write()

    def on_epoch_end(self, row: Mapping[str, object]) -> None:
        """Append the epoch to the metrics, and write a snapshot if it is time; later rows are dropped on resuming."""
        try:
            self.run.metrics.append(row)
        except UserError:
            if self.active is not None:
                self.active.at_rest = False  # a snapshot would count a row that is not there
            raise
        if self._is_due(within_epoch=False):
            self._write()

    def on_stage_start(self, name: str, epochs: int, done: int, steps_per_epoch: int) -> None:
        """Save the item embedding passed on by the first stage; later stages do not replace it."""
        own = self.trainers[-1]
        self.active = next((each for each in self.trainers if each.progress.stage < len(each.stages)), own)
        if self.active is own and own.config.stages[name].start == "embedding":
            self.run.keep_stage_1(own.weights.selected["item_embedding.weight"])

    def on_stage_end(self, name: str) -> None:
        """Write a snapshot."""
        self._write()

    def go_back(self) -> bool:
        """Restore the trainers from the snapshot before the last one."""
        found = self.active is not None and bool(self.run.states(self.active, self.trainers).paths())
        if found:
            self.run.restore(self.trainers, older=True)  # the last one may be of weights that had exploded already
        return found
