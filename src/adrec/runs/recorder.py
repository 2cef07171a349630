"""The callback that records a training in its run folder, so that it can be resumed after any interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from adrec.runs.folder import Run
from adrec.train.callbacks import Callback
from adrec.train.checkpoint import write_snapshot
from adrec.train.loop import Trainer
from adrec.utils.files import remove_temporaries


class Recorder(Callback):
    """Records each epoch of a training in the folder of ``run``, and resumes from its state."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.trainers: Sequence[Trainer] = ()

    @property
    def _trainer(self) -> Trainer:
        """The current trainer."""
        return next(each for each in self.trainers if each.progress.stage < len(each.stages))

    @contextmanager
    def around(self, trainers: Sequence[Trainer]) -> Iterator[None]:
        """Restore the trainers from the run's state. Raises :class:`RunError` if it is damaged."""
        self.trainers = trainers
        remove_temporaries(self.run.path)
        self.run.restore(trainers)
        yield

    def on_epoch_end(self, row: Mapping[str, object]) -> None:
        """Append the epoch to the metrics and replace the state; on resuming, a row without its state is dropped."""
        with (self.run.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        trainer = self._trainer
        write_snapshot(self.run.state_path(trainer, self.trainers), trainer.snapshot())

    def on_stage_start(self, name: str, epochs: int, done: int, steps_per_epoch: int) -> None:
        """Save the item embedding passed on by the first stage; later stages do not replace it."""
        own = self.trainers[-1]
        if self._trainer is own and own.config.stages[name].start == "embedding":
            self.run.keep_stage_1(own.weights.selected["item_embedding.weight"])
