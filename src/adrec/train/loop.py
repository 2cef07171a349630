"""The loop: one for every stage, read from top to bottom; its whole state is one value.

``Trainer.run`` goes through the stages of the configuration. After each epoch :meth:`Trainer.snapshot` holds all that
the rest of the run depends on: weights, their average, Adam's moments, both generators, the best weights so far and
the place in the stages. A trainer restored from it goes on to the same weights, bit for bit, on the same CPU and thread
count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adrec.augment.diffuasr import NETWORKS as AUGMENTING
from adrec.augment.diffuasr import DiffuASRNetwork
from adrec.config.augmentation import DIFFUSION
from adrec.config.base import StageConfig, TrainingConfig, check_seed
from adrec.data.dataset import Dataset
from adrec.data.sequences import Sequences
from adrec.data.spans import Int64s
from adrec.data.split import Split
from adrec.evaluate.metrics import means, metric_names
from adrec.evaluate.ranking import held_out, ranking
from adrec.inference.scorer import NetworkScorer
from adrec.nn.adrec import NETWORKS, make_network
from adrec.nn.base import SequenceNetwork
from adrec.train import watch as space
from adrec.train.checkpoint import Place, Snapshot, load_optimizer, optimizer_tensors, with_prefix
from adrec.train.cooccurrence import begin_from_cooccurrences, few_enough
from adrec.train.ema import Kept, copied
from adrec.train.report import Reporter, Silent
from adrec.train.sequences import sequences_of_stages, training_histories
from adrec.train.step import Step, learning_rate, new_optimizer, update_average
from adrec.utils.errors import RunError
from adrec.utils.text import counted

FEW_STEPS = 200  # within which patience that is counted in epochs may end a stage before anything is learnt
VALIDATION_METRICS = metric_names((5, 10, 20))


class Trainer:
    """Trains the stages of ``config`` on the training part of ``split``.

    Args:
        config: what is trained, and how.
        dataset: the prepared data set.
        split: what is held out; validation selects weights and stops early where it has users.
        seed: of every random number; the same seed gives the same weights on the same machine.
        networks: the classes of what the stages train, by ``StageConfig.network_kind``; ADRec's by default.
        device: where the networks live.
        reporter: is told what happens.
        on_epoch: called after each epoch with its row of metrics; what it does must not change the trainer.

    Raises:
        DataError: where no user has two interactions to learn from, or too few have what an augmentation needs.
        ConfigError: for a noise schedule that cannot have so few timesteps, or a seed that is none.
    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset: Dataset,
        split: Split,
        *,
        seed: int,
        networks: Mapping[str, type[SequenceNetwork]] = NETWORKS,
        device: torch.device | None = None,
        reporter: Reporter | None = None,
        on_epoch: Callable[[Mapping[str, Any]], None] = lambda row: None,
    ) -> None:
        self.config, self.dataset, self.split, self.seed = config, dataset, split, check_seed(seed)
        self.device = device or torch.device("cpu")
        self.reporter, self.on_epoch = reporter or Silent(), on_epoch
        self.after_epoch: Callable[[Mapping[str, Any]], None] = lambda row: None  # called last: raising loses nothing
        self.on_stage: Callable[[str], None] = lambda name: None  # called with each stage that has ended
        self.on_embedding: Callable[[Tensor], None] = lambda embedding: None  # called with what stage 1 hands over
        self.stop: Callable[[], bool] = lambda: False  # asked after each epoch: whether a stage ends with what it has
        self.stops: bool | None = None  # what it said: the epoch that is the last is validated
        self.networks = {**networks, **AUGMENTING} if config.augment.on else networks
        for stage in config.all_stages.values():  # what cannot be made fails here, not after stage 1
            make_network(self.networks[stage.network_kind], config.network_of(stage.network_kind), 1)
        self.stages = [(name, stage) for name, stage in config.all_stages.items() if stage.epochs > 0]
        self.histories = training_histories(dataset, split, config.network.max_length)
        # Until prefixes are generated others of their size stand in, by which a run can be planned.
        size = len(self.histories), config.augment.num_items
        self._arrange(torch.ones(size, dtype=torch.int64) if config.augment.on else None)
        self.order = torch.Generator().manual_seed(seed)
        self.rng = torch.Generator(self.device).manual_seed(seed)
        self.place = Place()
        self.network: SequenceNetwork | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.kept = Kept()

    def _arrange(self, prefixes: Tensor | None) -> None:
        """Let the model's own stages train on the histories behind ``prefixes``, [U, M]."""
        self.prefixes = prefixes
        self.sequences = sequences_of_stages(self.config, self.stages, self.histories, prefixes)

    @property
    def own_sequences(self) -> Sequences:
        """What the model's own stages train on."""
        return self.sequences[self.stages[-1][0]]

    @property
    def num_tokens(self) -> int:
        """Training tokens of one epoch of the model's own stages."""
        return self.own_sequences.num_tokens

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch of the model's own stages."""
        return self.steps(self.own_sequences)

    def steps(self, sequences: Sequences) -> int:
        """Return the optimizer steps of one epoch on ``sequences``."""
        return math.ceil(len(sequences) / self.users_per_step(sequences))

    def users_per_step(self, sequences: Sequences) -> int:
        """Return the users of one optimizer step on ``sequences``: the fewer of ``batch_size`` and a step's tokens."""
        most, tokens = min(self.config.batch_size, len(sequences)), self.config.tokens_per_step
        if not tokens or any(sequences is self.sequences.get(name) for name in self.config.augment.stages):
            return most
        return max(1, min(most, tokens * len(sequences) // sequences.num_tokens))

    @property
    def _current(self) -> Sequences:
        """What the stage that runs now trains on."""
        return self.sequences[self.stages[self.place.stage][0]]

    def left(self) -> list[tuple[str, StageConfig, int]]:
        """Return the stages that have not ended, with how many epochs of each are done."""
        place, left = self.place, self.stages[self.place.stage :]
        if left and place.epoch > 0 and self._has_ended(left[0][1]):
            return [(name, stage, 0) for name, stage in left[1:]]
        return [(name, stage, 0 if number else place.epoch) for number, (name, stage) in enumerate(left)]

    def run(self) -> SequenceNetwork:
        """Train what is left of the stages and return the network with its selected weights."""
        while self.place.stage < len(self.stages):
            name, stage = self.stages[self.place.stage]
            began = time.perf_counter(), time.process_time()
            if self.place.epoch == 0:
                self._begin(stage)
            self.reporter.stage(name, stage.epochs, self.place.epoch, self.steps(self._current))
            while not self._has_ended(stage) and not self._cut(stage):
                losses = self._epoch(stage)
                self.place.epoch += 1
                self.place.schedule_epoch += 1
                if stage.network_kind == DIFFUSION and self.place.epoch == stage.epochs:
                    self._generate()
                row = self._judged(name, stage, losses, began)
                self.on_epoch(row)  # first: an epoch that is shown is one that is kept
                self.reporter.epoch(row)
                self.after_epoch(row)
                began = time.perf_counter(), time.process_time()
            self._end(name, stage)
        assert self.network is not None
        self.network.load_state_dict(self.kept.selected)
        return self.network

    def _begin(self, stage: StageConfig) -> None:
        """Make the network and the optimizer that ``stage`` starts from."""
        if stage.begins_with != "continue" or type(self.network) is not self.networks[stage.network_kind]:
            self.network = self.new_network(stage)
            self.network.initialize(self.rng)
            if stage.begins_with != "scratch" and self.kept.selected:
                embedding = self.kept.selected["item_embedding.weight"]
                self.network.item_embedding.weight.data.copy_(embedding)
                if stage.network_kind != DIFFUSION:  # not what an augmentation is trained on
                    self.on_embedding(embedding)
            elif stage.initial_embedding == "cooccurrence":
                self._count_cooccurrences(self.network)
            self.optimizer = new_optimizer(self.network, stage)
            self.place.schedule_epoch = 0
        self.kept.begin(self.network, averages=stage.averaging > 0)
        self.place.best, self.place.best_epoch, self.place.stale = {}, 0, 0

    def _count_cooccurrences(self, network: SequenceNetwork) -> None:
        """Let the item embedding begin with what stands together in the sequences of the stage."""
        name, rng = self.stages[self.place.stage][0], np.random.default_rng(self.seed)
        sequences = few_enough(self._current, rng)
        number = sequences.num_interactions
        self.reporter.tell(f"{name:>8}  begins with the items' co-occurrences in {number:,} interactions.")
        begin_from_cooccurrences(network.item_embedding, sequences, self.split.num_items, rng)

    def new_network(self, stage: StageConfig) -> SequenceNetwork:
        """Return a network as ``stage`` trains it, with weights still to be drawn."""
        kind = stage.network_kind
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
            rate = learning_rate(stage, self.place.schedule_epoch, done / num_steps)
            for group in self.optimizer.param_groups:
                group["lr"], group["weight_decay"] = rate, stage.weight_decay
            losses = self._step(step, users[first : first + size])
            if self.kept.average:
                update_average(self.kept.average, self.network, stage.averaging, self.place.epoch * num_steps + done)
            for name, loss in losses.items():
                totals[name] = totals.get(name, torch.zeros_like(loss)) + loss
            self.reporter.step()
        means = {name: float(total) / num_steps for name, total in totals.items()}
        if not all(math.isfinite(value) for value in means.values()):
            raise RunError("the loss is no longer a number: training has diverged; set a smaller learning_rate.")
        return means

    def _step(self, step: Step, users: Int64s) -> Mapping[str, Tensor]:
        assert self.network is not None and self.optimizer is not None
        batch = self._current.batch(users).to(self.device)
        draws = self.network.draw(batch, self.rng)
        losses = step.gradients(self.network, batch, draws, self.rng, self.config.max_tokens)
        self.optimizer.step()
        return losses

    def _is_due(self, stage: StageConfig) -> bool:
        """Whether the epoch is one of those that are validated: the last one is, where there is another to choose."""
        after = self.place.epoch - stage.first_evaluation
        if not stage.validates or after < 0 or len(self.split.validation.users) == 0:
            return False
        return after % stage.evaluate_every == 0 or self.place.epoch == stage.epochs or bool(self.stops)

    def _generate(self) -> None:
        """Put what the network of the augmentation generates in front of what the model trains on."""
        assert isinstance(self.network, DiffuASRNetwork)
        self._arrange(self.network.prefixes(self.histories, self.seed))

    def _forget(self) -> None:
        """Leave nothing of the augmentation behind but its prefixes: the model's own stages begin as without it."""
        self.network, self.optimizer, self.kept = None, None, Kept()
        self.order.manual_seed(self.seed)
        self.rng.manual_seed(self.seed)

    def _validate(self) -> dict[str, float]:
        """Rank the validation items; the noise is the evaluation's own, so that training is not changed."""
        assert self.network is not None
        histories, items = held_out(self.dataset, self.split.validation)
        wanted = {*VALIDATION_METRICS, *(metric for _, stage in self.stages for metric in stage.select_by)}
        ranks = ranking(NetworkScorer(self.network, self.seed), histories, items).ranks
        return means(sorted(wanted), ranks, self.split.validation.users)

    def _select(self, stage: StageConfig, validation: Mapping[str, float]) -> bool:
        """Keep the weights where any selecting metric is better than ever in this stage."""
        assert self.network is not None
        best = self.place.best
        better = [metric for metric in stage.select_by if validation[metric] > best.get(metric, -math.inf)]
        best.update({metric: validation[metric] for metric in better})
        if better:
            self.place.best_epoch, self.place.stale = self.place.epoch, 0
            self.kept.best = copied(self.network.state_dict())
        else:
            self.place.stale += 1
        return bool(better)

    def _cut(self, stage: StageConfig) -> bool:
        """Return whether time is up; a stage has an epoch at least, and all where there is nothing to choose by."""
        if not stage.validates or self.place.epoch == 0:
            return False
        return self.stop() if self.stops is None else self.stops

    def _has_ended(self, stage: StageConfig) -> bool:
        return self.place.epoch >= stage.epochs or self._stopped_early(stage)

    def _stopped_early(self, stage: StageConfig) -> bool:
        return 0 < stage.patience <= self.place.stale

    def _judged(
        self, name: str, stage: StageConfig, losses: Mapping[str, float], began: tuple[float, float]
    ) -> dict[str, Any]:
        """Validate where that is due, keep what is best so far, and return the epoch's row of metrics."""
        assert self.network is not None
        self.stops = self.stop()
        self.place.rows += 1
        row: dict[str, Any] = {"stage": name, "epoch": self.place.epoch, "loss": dict(losses)}
        if self._is_due(stage):
            with self.kept.lent(self.network):
                validation = self._validate()
                row |= {"validation": validation, "selected": self._select(stage, validation)}
                row["embedding"] = space.watch(self.network, self.place, self.reporter)
        row["seconds"] = round(time.perf_counter() - began[0], 4)
        row["core_seconds"] = round(time.process_time() - began[1], 4)  # all threads': other work does not change them
        return row

    def _end(self, name: str, stage: StageConfig) -> None:
        """Keep the stage's selected weights (the last ones where nothing was validated) and move on."""
        assert self.network is not None
        self.kept.select(self.network)
        chosen = self.place.best_epoch or self.place.epoch
        cut = self.place.epoch < stage.epochs and not self._stopped_early(stage)
        ended = {"stage": name, "epochs": self.place.epoch, "chosen_epoch": chosen}
        self.place.ended.append({**ended, "cut": True} if cut else ended)
        early = " (validation stopped improving)" if self._stopped_early(stage) else " (time is up)" if cut else ""
        kept = f"epoch {chosen} is kept" if self.place.best_epoch else "the last one is kept, as none was validated"
        self.reporter.tell(f"{name:>8}  ended after {counted(self.place.epoch, 'epoch')}{early}; {kept}.")
        steps = self.place.epoch * self.steps(self._current)
        size = self.users_per_step(self._current)
        if self._stopped_early(stage) and steps < FEW_STEPS and size > 1:
            self.reporter.tell(
                f"{'':>8}  That is only {counted(steps, 'step')}: set a batch_size below {size} for more."
            )
        if stage.validates:
            space.warn_of_collapse(self.kept.selected["item_embedding.weight"], self.network, name, self.reporter)
        self.place.stage, self.place.epoch = self.place.stage + 1, 0
        if stage.network_kind == DIFFUSION:
            self._forget()
        self.on_stage(name)

    def snapshot(self) -> Snapshot:
        """Return all that the rest of the run depends on."""
        tensors = {"generator/order": self.order.get_state(), "generator/rng": self.rng.get_state()}
        tensors |= self.kept.tensors()
        if self.prefixes is not None:
            tensors["augment/prefixes"] = self.prefixes
        if self.network is not None and self.optimizer is not None:
            tensors |= with_prefix("network", self.network.state_dict())
            tensors |= with_prefix("optimizer", optimizer_tensors(self.optimizer, self.network))
        return Snapshot(tensors, asdict(self.place))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to where ``snapshot`` was taken."""
        self.place = Place(**snapshot.values)
        self.order.set_state(snapshot.tensors["generator/order"])
        self.rng.set_state(snapshot.tensors["generator/rng"])
        self.kept = Kept.restored(snapshot, self.device)
        if "augment/prefixes" in snapshot.tensors:
            self._arrange(snapshot.tensors["augment/prefixes"])
        weights = snapshot.part("network")
        if weights:
            _, stage = self.stages[self.place.stage]
            self.network = self.new_network(stage)
            self.network.load_state_dict(weights)
            self.optimizer = new_optimizer(self.network, stage)
            load_optimizer(self.optimizer, self.network, snapshot.part("optimizer"))
