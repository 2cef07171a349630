"""What a run will cost, measured before it starts: a few real steps, scaled up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from adrec.config import StageConfig
from adrec.data.batch import training_batch
from adrec.evaluate.ranking import ranking
from adrec.nn.networks import ADRecNetwork
from adrec.recommend import Histories, NetworkScorer
from adrec.train.loop import Network, Trainer, new_optimizer
from adrec.train.step import Step

SAMPLED_USERS = 128


@dataclass(frozen=True)
class Cost:
    """Estimated seconds.

    Attributes:
        epochs: of one epoch of each stage, by its name.
        total: of every epoch that the stages may take, with their validations.
        may_stop_early: whether a stage can end sooner.
    """

    epochs: dict[str, float]
    total: float
    may_stop_early: bool

    def sentence(self, stages: list[tuple[str, StageConfig]]) -> str:
        """Return the cost of the stages in words."""
        each = ", ".join(f"{name} {stage.epochs} x {duration(self.epochs[name])}" for name, stage in stages)
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


def estimate(trainer: Trainer) -> Cost:
    """Time a few steps and validations on weights of their own; the trainer is left as it is."""
    epochs, total = {}, 0.0
    num_validated = len(trainer.split.validation.users)
    for name, stage in trainer.stages:
        network = trainer.new_network(stage)
        network.initialize(torch.Generator(trainer.device).manual_seed(0))
        epochs[name] = _epoch_seconds(trainer, stage, network)
        validations = max(0, stage.epochs - stage.first_evaluation + stage.evaluate_every) // stage.evaluate_every
        per_user = _seconds_per_history(trainer, network) if num_validated and validations else 0.0
        total += stage.epochs * epochs[name] + validations * num_validated * per_user
    stops = num_validated > 0 and any(stage.patience for _, stage in trainer.stages)
    return Cost(epochs, total, stops)


def _sample(trainer: Trainer) -> tuple[np.ndarray, np.ndarray]:
    """Return where the training parts of some users begin and end."""
    count = min(SAMPLED_USERS, trainer.config.batch_size, len(trainer.starts))
    users = np.random.default_rng(0).choice(len(trainer.starts), count, replace=False)
    return trainer.starts[users], trainer.ends[users]


def _epoch_seconds(trainer: Trainer, stage: StageConfig, network: Network) -> float:
    starts, ends = _sample(trainer)
    batch = training_batch(trainer.dataset.items, starts, ends, trainer.config.model.max_length).to(trainer.device)
    rng = torch.Generator(trainer.device).manual_seed(0)
    step, optimizer = Step.of(stage, trainer.config.precision), new_optimizer(network, stage)

    def gradients() -> None:
        draws = network.draw(batch, rng) if isinstance(network, ADRecNetwork) else None
        step.gradients(network, batch, draws, rng)

    per_token = _seconds(gradients) / len(batch.items)
    return trainer.num_tokens * per_token + trainer.steps_per_epoch * _seconds(optimizer.step)


def _seconds_per_history(trainer: Trainer, network: Network) -> float:
    starts, ends = _sample(trainer)
    histories, scorer = Histories(trainer.dataset.items, starts, ends), NetworkScorer(network)
    items = np.ones(len(histories), dtype=np.int64)
    return _seconds(lambda: ranking(scorer, histories, items)) / len(histories)


def _seconds(work: Callable[[], object]) -> float:
    """Return the seconds of ``work`` the second time it is done."""
    for _ in range(2):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return time.perf_counter() - began
