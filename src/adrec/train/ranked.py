"""A trainer that is one of several processes (:mod:`adrec.nn.ranks`).

All ranks draw the same batches, noise and negatives. Each computes its share of a batch's users, has its part of the
item embedding with the optimizer's state and the averages of these rows, and counts ranks among them. Rank 0 alone
draws the initial weights, writes snapshots and reads them; for that time it holds the embedding as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from adrec.config.base import TrainingConfig
from adrec.config.stage import StageConfig
from adrec.data.batch import PackedBatch
from adrec.data.spans import Int64s
from adrec.nn.base import SequenceNetwork, make_network
from adrec.nn.ranks import Partition, Ranks
from adrec.train.checkpoint import Snapshot
from adrec.train.divergence import update
from adrec.train.lazy import EMBEDDING, local_rows
from adrec.train.loop import Trainer
from adrec.train.sharded import PartValidation
from adrec.train.step import Step
from adrec.utils import interrupts
from adrec.utils.errors import ConfigError

SETTLED = "settled"
TOTALS = "rows/totals"


def check_ranked(config: TrainingConfig) -> None:
    """Raise :class:`ConfigError` if a stage trains more rows of the item embedding than a step needs."""
    for name, stage in config.stages.items():
        if stage.epochs and stage.rows is None:
            raise ConfigError(
                f"several processes train the rows that a step needs; set {name}.rows to true, or take the preset "
                "'large'."
            )


class RankedTrainer(Trainer):
    """A trainer in one of several processes; the arguments are those of :class:`Trainer`, and the ranks.

    Args:
        ranks: the processes.
        given: the arguments of the trainer.
        options: its options.

    Raises:
        ConfigError: for a stage that trains more rows than a step needs.
    """

    def __init__(self, *given: Any, ranks: Ranks, **options: Any) -> None:
        super().__init__(*given, **options)
        self.ranks, self.partition = ranks, Partition(self.split.num_items, ranks)
        check_ranked(self.config)
        made = PartValidation.__new__(PartValidation)
        made.__dict__.update(self.validate.__dict__)
        made.partition = self.partition
        self.validate = made

    def agreed(self, flag: bool) -> bool:
        """Return the ``flag`` of rank 0."""
        return self.ranks.agreed(flag)

    def _asked_to_stop(self) -> bool:
        return self.agreed(super()._asked_to_stop())

    def _rest(self) -> None:
        self.at_rest = True
        if self.ranks.any(interrupts.waits()):
            interrupts.interrupt()
        self.at_rest = False

    def new_network(self, stage: StageConfig) -> SequenceNetwork:
        """Return a network for ``stage`` with this rank's rows of the item embedding, still to be drawn."""
        kind = stage.network
        made = make_network(self.networks[kind], self.config.network_of(kind), 1)
        made.num_items = self.split.num_items
        rows = torch.zeros(1 + self.partition.count(), made.item_embedding.embedding_dim)
        return with_embedding(made, rows).to(self.device)

    def drawn_network(self, name: str, stage: StageConfig) -> SequenceNetwork:
        """Return the network that ``stage`` starts from: rank 0 draws it, and gives the others their rows."""
        network, whole = self.new_network(stage), None
        if self.ranks.leads:
            drawn = _Whole(self).drawn_network(name, stage)
            whole = drawn.item_embedding.weight.data
            network.load_state_dict({**drawn.state_dict(), EMBEDDING: network.item_embedding.weight})
        rows = network.item_embedding.weight.data
        rows.copy_(self.partition.scattered(whole, rows[0]))
        for key, value in network.state_dict().items():
            if key != EMBEDDING:
                self.ranks.from_first(value)
        self.ranks.same_state(self.rng)
        return network

    def _step(self, step: Step, batch: PackedBatch, share: float) -> Mapping[str, Tensor]:
        """Make a step: :func:`adrec.train.epochs.take_step` of this rank's share of the users."""
        network, optimizer, lazy = self.network, self.optimizer, self.lazy
        assert network is not None and optimizer is not None and lazy is not None
        batch = batch.to(self.device)
        draws, rows = network.draw(batch, self.rng), lazy.sampler.rows(batch, self.rng)
        owned = self.partition.owned(rows.items)
        mine = self.partition.local(rows.items[owned])
        values = self.partition.exchanged(rows.items, lazy.table.read(mine), owned)
        users, most = self._share_of(batch), self.config.max_tokens
        with local_rows(network, values) as own:
            losses = step.gradients(network, rows.local(batch), draws, self._dropout(), most, rows, users)
            if batch.num_users <= self.ranks.rank:  # this rank has computed another's user
                losses = {name: torch.zeros_like(loss) for name, loss in losses.items()}
                network.zero_grad()
            trained = [each for each in network.parameters() if each.requires_grad]
            for each in trained:
                each.grad = torch.zeros_like(each) if each.grad is None else each.grad
            self.ranks.sum([*(each.grad for each in trained if each.grad is not None), *losses.values()])
            unusable = self.watch.judge(losses, trained)
        update(optimizer, unusable)
        gradient = None if own.grad is None or bool(unusable) else own.grad[owned]
        lazy.table.update(mine, gradient, optimizer.param_groups[0]["lr"], share)
        counted_in = {name: torch.where(unusable, torch.zeros_like(loss), loss) for name, loss in losses.items()}
        return {**counted_in, "skipped": unusable.long()}

    def _share_of(self, batch: PackedBatch) -> Int64s:
        """Return the users of a batch that this rank computes: as many tokens as the others have, or nearly so."""
        order = np.argsort(-batch.lengths, kind="stable")
        return order[self.ranks.rank :: self.ranks.size] if self.ranks.rank < len(order) else order[:1]

    def _dropout(self) -> Generator:
        """Return the generator of this step's dropout, which differs between ranks."""
        progress = self.progress
        where = [self.seed, self.ranks.rank, progress.stage, progress.epoch, progress.step]
        seed = int(np.random.SeedSequence(where).generate_state(1, np.uint64)[0] >> 1)
        return Generator(self.device).manual_seed(seed)

    def run(self) -> SequenceNetwork:
        """Train the remaining stages; return the network, whose item embedding is whole on rank 0 alone."""
        network = super().run()
        whole = self.partition.gathered(network.item_embedding.weight.data)
        return network if whole is None else with_embedding(network, whole)

    def stage_1(self) -> Tensor | None:
        """Return the item embedding that the stage before has chosen, on rank 0."""
        return self.partition.gathered(self.weights.selected[EMBEDDING])

    def snapshot(self) -> Snapshot:
        """Return the state of all ranks on rank 0, and this rank's on others; all ranks call it together."""
        made = super().snapshot()
        tensors = {}
        for name, value in made.tensors.items():
            whole = self.partition.gathered(value) if _is_by_row(name) else value
            tensors[name] = value if whole is None else whole
        return Snapshot(tensors, made.values)

    def restore(self, snapshot: Snapshot) -> None:
        """Restore the state of a snapshot on all ranks; rank 0 calls it, and the others :meth:`follow`."""
        kinds = {name: (value.shape, value.dtype) for name, value in snapshot.tensors.items()}
        self.ranks.object_from_first((kinds, snapshot.values))
        self._take({name: value.to(self.device) for name, value in snapshot.tensors.items()}, snapshot.values)

    def settle(self) -> None:
        """Tell the others that nothing more is restored."""
        self.ranks.object_from_first(SETTLED)

    def follow(self) -> int:
        """Be restored as often as rank 0 is, until it says that no more comes; return how often."""
        if self.ranks.leads:
            self.settle()
            return 0
        for count in range(1 << 30):
            found = self.ranks.object_from_first()
            if found == SETTLED:
                return count
            kinds, values = found
            self._take({name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in kinds.items()}, values)
        raise AssertionError("rank 0 does not settle")

    def _take(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        taken = {}
        for name, value in tensors.items():
            if _is_by_row(name):
                whole = value if self.ranks.leads else None
                taken[name] = self.partition.scattered(whole, value.new_empty(value.shape[1:]))
            else:
                taken[name] = self.ranks.from_first(value.clone())
        super().restore(Snapshot(taken, values))


def _is_by_row(name: str) -> bool:
    """Return whether a tensor of a snapshot has a row for each item."""
    return name.endswith(EMBEDDING) or (name.startswith("rows/") and name != TOTALS)


def with_embedding(network: SequenceNetwork, rows: Tensor) -> SequenceNetwork:
    """Return ``network`` with other item vectors."""
    padding = network.item_embedding.padding_idx
    network.item_embedding = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=padding)  # type: ignore[no-untyped-call]
    return network


class _Whole(Trainer):
    """The trainer as if it were the only process, to draw whole networks with."""

    def __init__(self, trainer: Trainer) -> None:
        self.__dict__.update(trainer.__dict__)
