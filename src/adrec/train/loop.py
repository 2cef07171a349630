"""The training loop: one for every stage, read from top to bottom; its whole state is one value.

``Trainer.run`` goes through the stages of the configuration. After each epoch :meth:`Trainer.snapshot` holds all that
the rest of the training depends on: weights, their average, Adam's moments, both generators, the best weights so far
and the progress. A trainer restored from it ends with the same weights, bit for bit, on the same CPU and thread count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adrec.config.base import TrainingConfig, check_seed
from adrec.config.stage import StageConfig
from adrec.data.dataset import Dataset
from adrec.data.sequences import Sequences
from adrec.data.spans import Int64s
from adrec.data.split import Split
from adrec.nn.base import SequenceNetwork, make_network
from adrec.train.callbacks import Callback
from adrec.train.checkpoint import Progress, Snapshot, load_optimizer, optimizer_tensors, with_prefix
from adrec.train.cooccurrence import few_enough, initialize_from_cooccurrences
from adrec.train.ema import KeptWeights, copied, update_ema
from adrec.train.health import collapse, health_of
from adrec.train.precision import slow_bfloat16
from adrec.train.sequences import stage_sequences, training_histories, users_per_step
from adrec.train.step import Step, learning_rate, new_optimizer
from adrec.train.validation import Validation
from adrec.utils.errors import RunError
from adrec.utils.text import counted

FEW_STEPS = 200  # within which patience that is counted in epochs may end a stage before anything is learnt
CHECK_EVERY = 20  # steps between two looks at whether the loss is a number: a look makes the processor wait for a GPU


class Trainer:
    """Trains the stages of ``config`` on the training part of ``split``.

    Args:
        config: what is trained, and how.
        dataset: the prepared data set.
        split: what is held out; validation selects weights and stops early where it has users.
        networks: the classes of what the stages train, by ``StageConfig.network``.
        seed: the random seed; the same seed gives the same weights on the same machine.
        device: where the networks are.
        callbacks: are told of each event, in their order; what they do must not change the trainer.
        prefixes: items in front of each user's training sequence, int64 [U, M], where an augmentation made some.

    Raises:
        DataError: where no user has two interactions to learn from.
        ConfigError: for a noise schedule that cannot have so few timesteps, or a seed that is none.
    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset: Dataset,
        split: Split,
        *,
        networks: Mapping[str, type[SequenceNetwork]],
        seed: int,
        device: torch.device | None = None,
        callbacks: Iterable[Callback] = (),
        prefixes: Tensor | None = None,
    ) -> None:
        self.config, self.dataset, self.split, self.seed = config, dataset, split, check_seed(seed)
        self.networks, self.device = networks, device or torch.device("cpu")
        self.callbacks = list(callbacks)
        for stage in config.stages.values():  # what cannot be made fails here, not after stage 1
            make_network(networks[stage.network], config.network_of(stage.network), 1)
        self.stages = list(config.stages.items())
        self.histories = training_histories(dataset, split, config.network.max_length)
        self.use_prefixes(prefixes)
        self.validate = Validation(dataset, split, seed, [stage for _, stage in self.stages])
        self.order = torch.Generator().manual_seed(seed)
        self.rng = torch.Generator(self.device).manual_seed(seed)
        self.progress, self.weights = Progress(), KeptWeights()
        self.network: SequenceNetwork | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.stopping: bool | None = None  # what callbacks said after the last epoch, which is then validated

    def use_prefixes(self, prefixes: Tensor | None) -> None:
        """Train on the histories behind ``prefixes``, int64 [U, M]; None for the histories alone."""
        self.sequences = stage_sequences(self.config, self.histories, prefixes)

    @property
    def last_sequences(self) -> Sequences:
        """What the last stage trains on."""
        return self.sequences[self.stages[-1][0]]

    def users_per_step(self, sequences: Sequences) -> int:
        """Return the users of one optimizer step on ``sequences``."""
        return users_per_step(self.config, sequences)

    def steps(self, sequences: Sequences) -> int:
        """Return the optimizer steps of one epoch on ``sequences``."""
        return math.ceil(len(sequences) / self.users_per_step(sequences))

    @property
    def _current(self) -> Sequences:
        """What the stage that runs now trains on."""
        return self.sequences[self.stages[self.progress.stage][0]]

    def left(self) -> list[tuple[str, StageConfig, int]]:
        """Return the stages that have not ended, with how many epochs of each are done."""
        progress, left = self.progress, self.stages[self.progress.stage :]
        if left and progress.epoch > 0 and self._has_ended(left[0][1]):
            return [(name, stage, 0) for name, stage in left[1:]]
        return [(name, stage, 0 if number else progress.epoch) for number, (name, stage) in enumerate(left)]

    def run(self) -> SequenceNetwork:
        """Train what is left of the stages and return the network with its selected weights."""
        if self.config.precision == "bfloat16" and (slow := slow_bfloat16(self.device)):
            self._tell(slow, warning=True)
        while self.progress.stage < len(self.stages):
            name, stage = self.stages[self.progress.stage]
            started = time.perf_counter(), time.process_time()
            if self.progress.epoch == 0:
                self._start(name, stage)
            for each in self.callbacks:
                each.on_stage_start(name, stage.epochs, self.progress.epoch, self.steps(self._current))
            while not self._has_ended(stage) and not self._is_cut(stage):
                losses = self._epoch(stage)
                self.progress.epoch += 1
                self.progress.schedule_epoch += 1
                row = self._row(name, stage, losses, started)
                for each in self.callbacks:
                    each.on_epoch_end(row)
                started = time.perf_counter(), time.process_time()
            self._end(name, stage)
        assert self.network is not None
        self.network.load_state_dict(self.weights.selected)
        return self.network

    def _start(self, name: str, stage: StageConfig) -> None:
        """Make the network and the optimizer that ``stage`` starts from."""
        if stage.start != "continue":
            self.network = self.new_network(stage)
            self.network.initialize(self.rng)
            if stage.start == "embedding":
                self.network.item_embedding.weight.data.copy_(self.weights.selected["item_embedding.weight"])
            elif stage.initial_embedding == "cooccurrence":
                rng = np.random.default_rng(self.seed)
                sequences = few_enough(self._current, rng)
                self._tell(
                    f"{name:>8}  starts from the items' co-occurrences in {sequences.num_interactions:,} interactions."
                )
                initialize_from_cooccurrences(self.network.item_embedding, sequences, self.split.num_items, rng)
            self.optimizer = new_optimizer(self.network, stage)
            self.progress.schedule_epoch = 0
        assert self.network is not None
        self.weights.start_stage(self.network, averages=stage.averaging > 0)
        self.progress.best, self.progress.best_epoch, self.progress.stale = {}, 0, 0

    def new_network(self, stage: StageConfig) -> SequenceNetwork:
        """Return a network as ``stage`` trains it, with weights still to be drawn."""
        kind = stage.network
        made = make_network(self.networks[kind], self.config.network_of(kind), self.split.num_items)
        return made.to(self.device)

    def _epoch(self, stage: StageConfig) -> dict[str, float]:
        """Go once through the users in random order; return each loss's mean over the steps."""
        assert self.network is not None and self.optimizer is not None
        step, num_steps = Step.of(stage, self.config.precision), self.steps(self._current)
        totals: dict[str, Tensor] = {}
        users = torch.randperm(len(self._current), generator=self.order).numpy()
        size = self.users_per_step(self._current)
        for done, first in enumerate(range(0, len(users), size), start=1):
            rate = learning_rate(stage, self.progress.schedule_epoch, done / num_steps)
            for group in self.optimizer.param_groups:
                group["lr"], group["weight_decay"] = rate, stage.weight_decay
            losses = self._step(step, users[first : first + size])
            if self.weights.average:
                steps = self.progress.epoch * num_steps + done
                update_ema(self.weights.average, self.network, stage.averaging, steps)
            for name, loss in losses.items():
                totals[name] = totals.get(name, torch.zeros_like(loss)) + loss
            if done % CHECK_EVERY == 0 or done == num_steps:
                self._check_finite(totals)
            for each in self.callbacks:
                each.on_step_end()
        return {name: float(total) / num_steps for name, total in totals.items()}

    def _step(self, step: Step, users: Int64s) -> Mapping[str, Tensor]:
        assert self.network is not None and self.optimizer is not None
        batch = self._current.batch(users).to(self.device)
        draws = self.network.draw(batch, self.rng)
        losses = step.gradients(self.network, batch, draws, self.rng, self.config.max_tokens)
        self.optimizer.step()
        return losses

    def _check_finite(self, totals: Mapping[str, Tensor]) -> None:
        if not all(math.isfinite(float(total)) for total in totals.values()):
            raise RunError("the loss is no longer a number: training has diverged; set a smaller learning_rate.")

    def _is_due(self, stage: StageConfig) -> bool:
        """Whether the epoch is one of those that are validated: the last one is, where there is another to choose."""
        after = self.progress.epoch - stage.first_evaluation
        if not stage.validates or after < 0 or not self.validate.has_users:
            return False
        return after % stage.evaluate_every == 0 or self.progress.epoch == stage.epochs or bool(self.stopping)

    def _select(self, stage: StageConfig, validation: Mapping[str, float]) -> bool:
        """Keep the weights where any selecting metric is better than ever in this stage."""
        assert self.network is not None
        best = self.progress.best
        better = [metric for metric in stage.select_by if validation[metric] > best.get(metric, -math.inf)]
        best.update({metric: validation[metric] for metric in better})
        if better:
            self.progress.best_epoch, self.progress.stale = self.progress.epoch, 0
            self.weights.best = copied(self.network.state_dict())
        else:
            self.progress.stale += 1
        return bool(better)

    def _is_cut(self, stage: StageConfig) -> bool:
        """Return whether time is up; a stage has an epoch at least, and all where there is nothing to choose by."""
        if not stage.validates or self.progress.epoch == 0:
            return False
        return self._asked_to_stop() if self.stopping is None else self.stopping

    def _asked_to_stop(self) -> bool:
        return any(each.should_stop() for each in self.callbacks)

    def _has_ended(self, stage: StageConfig) -> bool:
        return self.progress.epoch >= stage.epochs or self._stopped_early(stage)

    def _stopped_early(self, stage: StageConfig) -> bool:
        return 0 < stage.patience <= self.progress.stale

    def _row(
        self, name: str, stage: StageConfig, losses: Mapping[str, float], started: tuple[float, float]
    ) -> dict[str, Any]:
        """Validate where that is due, keep what is best so far, and return the epoch's row of metrics."""
        assert self.network is not None
        self.stopping = self._asked_to_stop()
        self.progress.rows += 1
        row: dict[str, Any] = {"stage": name, "epoch": self.progress.epoch, "loss": dict(losses)}
        if self._is_due(stage):
            with self.weights.swapped_in(self.network):
                validation = self.validate(self.network, stage)
                row |= {"validation": validation, "selected": self._select(stage, validation)}
                row["embedding"] = health_of(self.network.item_embedding.weight, self.network.num_items)
            found = collapse(row["embedding"], self.network.config.hidden_size, self.network.num_items)
            if found and self.progress.alive:
                self._tell(f"The embedding space is collapsing: {found}.", warning=True)
            self.progress.alive = found is None
        row["seconds"] = round(time.perf_counter() - started[0], 4)
        row["core_seconds"] = round(time.process_time() - started[1], 4)  # all threads': other work leaves them alone
        return row

    def _end(self, name: str, stage: StageConfig) -> None:
        """Keep the stage's selected weights (the last ones where nothing was validated) and move on."""
        assert self.network is not None
        self.weights.select(self.network)
        progress, early = self.progress, self._stopped_early(stage)
        cut = progress.epoch < stage.epochs and not early
        ended = {"stage": name, "epochs": progress.epoch, "chosen_epoch": progress.best_epoch or progress.epoch}
        progress.ended.append({**ended, "cut": True} if cut else ended)
        why = " (validation stopped improving)" if early else " (time is up)" if cut else ""
        kept = f"epoch {progress.best_epoch} is kept"
        if not progress.best_epoch:
            kept = "the last one is kept, as none was validated"
        self._tell(f"{name:>8}  ended after {counted(progress.epoch, 'epoch')}{why}; {kept}.")
        steps, size = progress.epoch * self.steps(self._current), self.users_per_step(self._current)
        if early and steps < FEW_STEPS and size > 1:
            self._tell(f"{'':>8}  That is only {counted(steps, 'step')}: set a batch_size below {size} for more.")
        health = health_of(self.weights.selected["item_embedding.weight"], self.network.num_items)
        found = collapse(health, self.network.config.hidden_size, self.network.num_items)
        if found and stage.validates:
            looks = "looks collapsed, or hardly trained yet"
            self._tell(f"after {name} the embedding space {looks}: {found}; adrec diagnose tells more.", warning=True)
        progress.stage, progress.epoch = progress.stage + 1, 0
        for each in self.callbacks:
            each.on_stage_end(name)

    def _tell(self, sentence: str, *, warning: bool = False) -> None:
        for each in self.callbacks:
            each.on_message(sentence, warning=warning)

    def snapshot(self) -> Snapshot:
        """Return all that the rest of the training depends on."""
        tensors = {"generator/order": self.order.get_state(), "generator/rng": self.rng.get_state()}
        tensors |= self.weights.tensors()
        if self.network is not None and self.optimizer is not None:
            tensors |= with_prefix("network", self.network.state_dict())
            tensors |= with_prefix("optimizer", optimizer_tensors(self.optimizer, self.network))
        return Snapshot(tensors, asdict(self.progress))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to where ``snapshot`` was taken."""
        self.progress = Progress(**snapshot.values)
        self.order.set_state(snapshot.tensors["generator/order"])
        self.rng.set_state(snapshot.tensors["generator/rng"])
        self.weights = KeptWeights.restored(snapshot, self.device)
        weights = snapshot.part("network")
        if weights:
            _, stage = self.stages[self.progress.stage]
            self.network = self.new_network(stage)
            self.network.load_state_dict(weights)
            self.optimizer = new_optimizer(self.network, stage)
            load_optimizer(self.optimizer, self.network, snapshot.part("optimizer"))
