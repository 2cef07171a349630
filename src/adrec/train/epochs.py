"""The steps of one epoch: batches in random order, losses, the optimizer, and where a training may be interrupted."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from adrec.config.base import TrainingConfig
from adrec.config.stage import StageConfig
from adrec.data.batch import PackedBatch
from adrec.data.sequences import Sequences
from adrec.nn.base import SequenceNetwork
from adrec.train.callbacks import Callback
from adrec.train.checkpoint import Progress
from adrec.train.divergence import Watch, update
from adrec.train.ema import KeptWeights, ema_share, update_ema
from adrec.train.lazy import EMBEDDING, LazyRows, local_rows
from adrec.train.sequences import users_per_step
from adrec.train.step import Step, learning_rate
from adrec.utils import interrupts


class Epochs:
    """The part of a trainer that makes the steps of an epoch; :class:`adrec.train.loop.Trainer` sets what it needs.

    Attributes:
        config: the configuration of the networks and stages.
        device: the device of the networks.
        callbacks: receive each event.
        stages: the stages by name.
        sequences: the training sequences of each stage.
        progress: how far the training is.
        weights: the copies of the weights.
        network: the network in training.
        optimizer: its optimizer.
        lazy: what trains the rows of its item embedding, if the stage trains only those that a step needs.
        order: the generator of the order of users.
        rng: the generator of dropout, noise and negatives.
        order_before: the state of ``order`` at the beginning of the epoch.
        totals: the sum of each loss over the steps of the epoch, and the number of ``skipped`` steps.
        watch: judges each step.
        at_rest: whether a snapshot is whole: between two steps.
    """

    config: TrainingConfig
    device: torch.device
    callbacks: list[Callback]
    stages: list[tuple[str, StageConfig]]
    sequences: Mapping[str, Sequences]
    progress: Progress
    weights: KeptWeights
    network: SequenceNetwork | None
    optimizer: torch.optim.Optimizer | None
    lazy: LazyRows | None
    order: torch.Generator
    rng: torch.Generator
    order_before: Tensor
    totals: dict[str, Tensor]
    watch: Watch
    at_rest: bool

    def users_per_step(self, sequences: Sequences) -> int:
        """Return the number of users in one optimizer step on ``sequences``."""
        return users_per_step(self.config, sequences)

    def steps(self, sequences: Sequences) -> int:
        """Return the number of optimizer steps in one epoch on ``sequences``."""
        return math.ceil(len(sequences) / self.users_per_step(sequences))

    @property
    def _current(self) -> Sequences:
        """The training sequences of the current stage."""
        return self.sequences[self.stages[self.progress.stage][0]]

    def _asked_to_stop(self) -> bool:
        return any(each.should_stop() for each in self.callbacks)

    def _rest(self) -> None:
        """Let a waiting signal interrupt the training here, where a snapshot is whole."""
        self.at_rest = True
        interrupts.check()
        self.at_rest = False

    def _epoch(self, stage: StageConfig) -> dict[str, float]:
        """Train the remaining steps of an epoch over the users in random order; return each loss's mean over the steps.

        A callback that asks to stop ends it early, unless it is the first epoch of its stage.
        """
        assert self.network is not None and self.optimizer is not None
        step, num_steps = Step.of(stage, self.config.precision), self.steps(self._current)
        progress = self.progress
        if progress.step == 0:
            self.order_before, self.totals = self.order.get_state(), {}
        self.order.set_state(self.order_before)
        sequences = self._current.shuffled(self.order)
        users = torch.randperm(len(sequences), generator=self.order).numpy()
        size = self.users_per_step(sequences)
        for first in range(progress.step * size, len(users), size):
            rate = progress.rate * learning_rate(stage, progress.schedule_epoch, (progress.step + 1) / num_steps)
            for group in self.optimizer.param_groups:
                group["lr"], group["weight_decay"] = rate, stage.weight_decay
            share = 0.0
            if self.weights.average:
                share = ema_share(stage.averaging, progress.epoch * num_steps + progress.step + 1)
            losses = self._step(step, sequences.batch(users[first : first + size]), share)
            progress.step, progress.first_loss = progress.step + 1, self.watch.first_loss
            if self.weights.average:
                update_ema(self.weights.average, self.network, share, () if self.lazy is None else {EMBEDDING})
            for name, loss in losses.items():
                self.totals[name] = self.totals.get(name, torch.zeros_like(loss)) + loss
            self.watch.check(last=progress.step == num_steps)
            self.at_rest = True
            for each in self.callbacks:
                each.on_step_end()
            self._rest()
            if stage.validates and progress.epoch > 0 and self._asked_to_stop():
                break
        usable = max(progress.step - int(self.totals["skipped"]), 1)
        return {name: float(total) / usable for name, total in self.totals.items() if name != "skipped"}

    def _step(self, step: Step, batch: PackedBatch, share: float) -> Mapping[str, Tensor]:
        """Make a step: :func:`take_step`."""
        assert self.network is not None and self.optimizer is not None
        batch, most = batch.to(self.device), self.config.max_tokens
        return take_step(step, self.network, self.optimizer, batch, self.rng, most, self.watch, self.lazy, share)


def take_step(
    step: Step,
    network: SequenceNetwork,
    optimizer: torch.optim.Optimizer,
    batch: PackedBatch,
    rng: torch.Generator,
    max_tokens: int,
    watch: Watch,
    lazy: LazyRows | None = None,
    share: float = 0.0,
) -> Mapping[str, Tensor]:
    """Make a step; return its losses, 0 if it is unusable and ``skipped`` then 1.

    Args:
        step: what is computed.
        network: the network in training.
        optimizer: its optimizer, with the learning rate of this step.
        batch: the training batch, on the device of the network.
        rng: the generator of dropout, noise and negatives.
        max_tokens: the largest number of tokens computed at once.
        watch: judges the step.
        lazy: what trains the rows of the item embedding; None if the optimizer trains all of them.
        share: the share of the new rows in their moving average; 0 without one.
    """
    draws = network.draw(batch, rng)
    if lazy is None:
        losses = step.gradients(network, batch, draws, rng, max_tokens)
        unusable = watch.judge(losses, network.parameters())
        update(optimizer, unusable)
    else:
        rows = lazy.sampler.rows(batch, rng)
        with local_rows(network, lazy.table.read(rows.items)) as own:
            losses = step.gradients(network, rows.local(batch), draws, rng, max_tokens, rows)
            unusable = watch.judge(losses, network.parameters())
        update(optimizer, unusable)
        gradient = None if own.grad is None or bool(unusable) else own.grad
        lazy.table.update(rows.items, gradient, optimizer.param_groups[0]["lr"], share)
    return counted_losses(losses, unusable)


def counted_losses(losses: Mapping[str, Tensor], unusable: Tensor) -> Mapping[str, Tensor]:
    """Return the losses of a step, 0 if it is ``unusable``, bool [], and ``skipped`` then 1."""
    counted_in = {name: torch.where(unusable, torch.zeros_like(loss), loss) for name, loss in losses.items()}
    return {**counted_in, "skipped": unusable.long()}
