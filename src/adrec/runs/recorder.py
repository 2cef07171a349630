"""The callback that records a training in its run folder, so that it can be resumed after any interruption."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from adrec.runs.folder import Run
from adrec.train.callbacks import Callback
from adrec.train.loop import Trainer
from adrec.train.ranked import RankedTrainer
from adrec.utils.errors import UserError
from adrec.utils.files import remove_temporaries
from adrec.utils.interrupts import Interrupted

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
        trainers[-1].settle()
        self._written = time.monotonic()
        try:
            yield
        except BaseException as error:  # whatever ends it, such as an interrupt or a callback whose time is up
            if self.active is not None and self.active.at_rest and _is_shared(self.active, error):
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
        if self.active is not None:
            due = self._is_due(within_epoch=True) and self.active.watch.is_calm
            if self.active.agreed(due):
                self._write()

    def on_epoch_end(self, row: Mapping[str, object]) -> None:
        """Append the epoch to the metrics, and write a snapshot if it is time; later rows are dropped on resuming."""
        try:
            self.run.metrics.append(row)
        except UserError:
            if self.active is not None:
                self.active.at_rest = False  # a snapshot would count a row that is not there
            raise
        if self.active is not None and self.active.agreed(self._is_due(within_epoch=False)):
            self._write()

    def on_stage_start(self, name: str, epochs: int, done: int, steps_per_epoch: int) -> None:
        """Save the item embedding passed on by the first stage; later stages do not replace it."""
        own = self.trainers[-1]
        self.active = next((each for each in self.trainers if each.progress.stage < len(each.stages)), own)
        if self.active is own and own.config.stages[name].start == "embedding":
            embedding = own.stage_1()
            assert embedding is not None
            self.run.keep_stage_1(embedding)

    def on_stage_end(self, name: str) -> None:
        """Write a snapshot."""
        self._write()

    def go_back(self) -> bool:
        """Restore the trainers from the snapshot before the last one."""
        found = self.active is not None and bool(self.run.states(self.active, self.trainers).paths())
        if found:
            self.run.restore(self.trainers, older=True)  # the last one may be of weights that had exploded already
        if self.active is not None:
            self.active.settle()
        return found


def _is_shared(trainer: Trainer, error: BaseException) -> bool:
    """Return whether all processes of a training end by ``error``: an interrupt, on which they agree."""
    return trainer.alone or isinstance(error, Interrupted)


class Follower(Callback):
    """Takes part in what a :class:`Recorder` does in another process of the same training."""

    def __init__(self) -> None:
        self.trainer: RankedTrainer | None = None

    @contextmanager
    def around(self, trainers: Sequence[Trainer]) -> Iterator[None]:
        """Be restored with the other process."""
        (trainer,) = trainers
        assert isinstance(trainer, RankedTrainer)
        self.trainer = trainer
        trainer.follow()
        try:
            yield
        except BaseException as error:
            if trainer.at_rest and _is_shared(trainer, error):
                trainer.snapshot()
            raise

    def _share(self) -> None:
        assert self.trainer is not None
        if self.trainer.agreed(False):
            self.trainer.snapshot()

    def on_step_end(self) -> None:
        """Take part in a snapshot, if one is due."""
        self._share()

    def on_epoch_end(self, row: Mapping[str, object]) -> None:
        """Take part in a snapshot, if one is due."""
        self._share()

    def on_stage_start(self, name: str, epochs: int, done: int, steps_per_epoch: int) -> None:
        """Take part in keeping the item embedding of the stage before."""
        assert self.trainer is not None
        if self.trainer.config.stages[name].start == "embedding":
            self.trainer.stage_1()

    def on_stage_end(self, name: str) -> None:
        """Take part in a snapshot."""
        assert self.trainer is not None
        self.trainer.snapshot()

    def go_back(self) -> bool:
        """Be restored with the other process."""
        assert self.trainer is not None
        return self.trainer.follow() > 0
