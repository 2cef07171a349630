"""The estimated cost of a run, extrapolated from a few real steps and validations before it starts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from adrec.config.stage import StageConfig
from adrec.data.batch import PackedBatch
from adrec.data.seen import leaves_out
from adrec.data.sequences import Sequences
from adrec.evaluate.ranking import ranking
from adrec.inference.scorer import BATCH_SIZE, Histories
from adrec.models.network import NetworkScorer
from adrec.nn.base import SequenceNetwork
from adrec.train.cooccurrence import MOST_INTERACTIONS
from adrec.train.divergence import Watch
from adrec.train.epochs import take_step
from adrec.train.lazy import LazyRows
from adrec.train.loop import Trainer
from adrec.train.step import Step, new_optimizer

STEPS = 3  # minimum number of timed steps, after a warm-up step
MOST_STEPS, BRIEF = 12, 1.0  # quick steps are timed for BRIEF seconds, at most MOST_STEPS: the first ones are slower
COUNTED = 150_000  # interactions a second whose co-occurrences are counted and factorised, on one core
ENOUGH = 5.0  # seconds after which no further step is timed


@dataclass(frozen=True)
class StageCost:
    """Estimated seconds of a stage.

    Attributes:
        step: seconds of one optimizer step.
        epoch: seconds of one epoch, without its validation.
        validation: seconds of one validation.
        total: seconds of all remaining epochs and validations.
        epochs: the maximum number of remaining epochs.
    """

    step: float
    epoch: float
    validation: float
    total: float
    epochs: int

    def amount(self) -> str:
        """Return the epochs and the time of one, or the time of a stage without epochs, in words."""
        return f"{self.epochs} x {duration(self.epoch)}" if self.epochs else duration(self.total)


@dataclass(frozen=True)
class Cost:
    """Estimated seconds of the remaining training.

    Attributes:
        stages: the cost of each stage, by name; of a resumed run, only of the stages that have not ended.
        may_stop_early: whether a stage can end early.
    """

    stages: dict[str, StageCost]
    may_stop_early: bool

    @property
    def total(self) -> float:
        """Seconds of all remaining epochs and validations of the stages."""
        return sum(stage.total for stage in self.stages.values())

    def sentence(self) -> str:
        """Return the cost of the stages in words."""
        each = ", ".join(f"{name} {stage.amount()}" for name, stage in self.stages.items())
        if self.may_stop_early:
            return f"at most {duration(self.total)} (early stopping usually ends stages sooner): {each}."
        return f"{duration(self.total)} in all: {each}."


def duration(seconds: float) -> str:
    """Return seconds as a short text: ``3.1 s``, ``4 min``, ``2.5 h``."""
    if seconds < 0.1:
        return "under 0.1 s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(trainers: Sequence[Trainer]) -> Cost:
    """Time a few steps and validations on separate weights; the trainers are unchanged.

    The time of co-occurrences, for an embedding initialised from them, is not measured but taken as :data:`COUNTED`.
    """
    stages: dict[str, StageCost] = {}
    may_stop_early = False
    for trainer in trainers:
        num_validated, left = len(trainer.validate.users), trainer.left()
        for name, stage, done in left:
            sequences = trainer.sequences[name]
            counting = 0.0
            if not done and stage.start == "scratch" and stage.initial_embedding == "cooccurrence":
                counting = min(sequences.num_interactions, MOST_INTERACTIONS) / COUNTED
            if stage.epochs == 0:
                stages[name] = StageCost(0.0, 0.0, 0.0, counting, 0)
                continue
            network = fresh_network(trainer, stage)
            step = _step_seconds(trainer, stage, sequences, network)
            validations = _validations(stage, stage.epochs, last=True) - _validations(stage, done)
            validated = num_validated and validations and stage.validates
            validation = _validation_seconds(trainer, stage, fresh_network(trainer, stage)) if validated else 0.0
            epoch, epochs = step * trainer.steps(sequences), stage.epochs - done
            total = counting + epochs * epoch + validations * validation
            stages[name] = StageCost(step, epoch, validation, total, epochs)
            may_stop_early |= bool(num_validated and stage.patience and stage.validates)
    return Cost(stages, may_stop_early)


def _validations(stage: StageConfig, epochs: int, *, last: bool = False) -> int:
    """Return the number of validations in the first ``epochs`` of a stage; with ``last``, including its last epoch."""
    after = epochs - stage.first_evaluation
    further = last and after > 0 and after % stage.evaluate_every > 0
    return max(0, after + stage.evaluate_every) // stage.evaluate_every + further


def fresh_network(trainer: Trainer, stage: StageConfig) -> SequenceNetwork:
    """Return a network of ``stage`` with new weights."""
    network = trainer.new_network(stage)
    network.initialize(torch.Generator(trainer.device).manual_seed(0))
    return network


def sample_batches(trainer: Trainer, sequences: Sequences, count: int) -> list[PackedBatch]:
    """Return ``count`` training batches, of users drawn independently of the trainer's generators."""
    rng, size = np.random.default_rng(0), trainer.users_per_step(sequences)
    chosen = (rng.choice(len(sequences), size, replace=False) for _ in range(count))
    return [sequences.batch(users).to(trainer.device) for users in chosen]


def _step_seconds(trainer: Trainer, stage: StageConfig, sequences: Sequences, network: SequenceNetwork) -> float:
    """Return the mean seconds of a step, scaled to the mean batch: the last batch of an epoch has fewer users."""
    rng = torch.Generator(trainer.device).manual_seed(0)
    step, optimizer = Step.of(stage, trainer.config.precision), new_optimizer(network, stage)
    lazy = None if stage.rows is None else LazyRows.of(network, stage, sequences)
    watch = Watch(network.num_items, trainer.device, None)
    batches = sample_batches(trainer, sequences, MOST_STEPS + 1)
    times: list[float] = []
    for number, batch in enumerate(batches):
        if sum(times) > (ENOUGH if number <= STEPS else BRIEF):
            break

        def whole_step(batch: PackedBatch = batch) -> None:
            take_step(step, network, optimizer, batch, rng, trainer.config.max_tokens, watch, lazy)

        took = _seconds(trainer.device, whole_step)
        times = [took] if number == 1 else [*times, took]  # the first is dropped if there is another
    tokens = statistics.mean(len(batch.items) for batch in batches)
    return statistics.median(times) * sequences.num_tokens / trainer.steps(sequences) / tokens


def _validation_seconds(trainer: Trainer, stage: StageConfig, network: SequenceNetwork) -> float:
    """Return the seconds of a validation, extrapolated from some of its histories."""
    histories, items = trainer.validate.histories, trainer.validate.items
    chosen = np.random.default_rng(0).permutation(len(items))[:BATCH_SIZE]
    some = Histories(histories.items, histories.starts[chosen], histories.ends[chosen])
    scorer = NetworkScorer(network)
    left_out = leaves_out(stage.seen, trainer.dataset)
    times = [
        _seconds(trainer.device, lambda: ranking(scorer, some, items[chosen], filter_seen=left_out)) for _ in range(2)
    ]
    return times[-1] * len(items) / len(chosen)


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    _finish(device)
    started = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
