"""A trainer that is one of several processes (:mod:`adrec.nn.ranks`).

All ranks draw the same batches, noise and negatives. Each computes its share of a batch's users, has its part of the
item embedding with the optimizer's state and the averages of these rows, and counts ranks among them. Rank 0 alone
draws the initial weights, writes snapshots and reads them; for that time it holds the embedding, its averages and the
optimizer's state as a whole, in main memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from adrec.config.base import TrainingConfig
from adrec.config.parsing import require
from adrec.config.stage import StageConfig
from adrec.data.batch import PackedBatch
from adrec.data.spans import Int64s
from adrec.nn.base import SequenceNetwork, make_network
from adrec.nn.kernels.sharded import Shard
from adrec.nn.ranks import Partition, Ranks
from adrec.nn.rows import Rows
from adrec.train.checkpoint import Snapshot
from adrec.train.divergence import update
from adrec.train.epochs import counted_losses
from adrec.train.health import embedding_health, spacing
from adrec.train.lazy import EMBEDDING, local_rows
from adrec.train.loop import Trainer
from adrec.train.sharded import PartValidation
from adrec.train.step import Step
from adrec.utils import interrupts

SETTLED = "settled"
TOTALS = "rows/totals"


def check_ranked(config: TrainingConfig, networks: Mapping[str, type[SequenceNetwork]]) -> None:
    """Raise :class:`ConfigError` if several processes cannot train these networks by the settings."""
    projects = getattr(config.network, "repeat_projection", False)
    for name, stage in config.stages.items():
        require(
            networks[stage.network].trains_in_ranks,
            "several processes train ADRec's own networks; start this model without torchrun.",
        )
        require(not stage.pcgrad, f"{name}.pcgrad needs one process; set it to false, or start without torchrun.")
        require(stage.buckets is None, f"{name}.buckets need one process; leave them out, or start without torchrun.")
        if stage.epochs and stage.rows is None:
            require(
                stage.negatives == 0,
                f"{name}.negatives need one process; set {name}.rows to true to draw items, or {name}.negatives to 0 "
                "for the whole softmax, or start without torchrun.",
            )
            require(
                not projects,
                "model.repeat_projection and the whole softmax need one process; set one of them to false, or "
                f"{name}.rows to true.",
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
        check_ranked(self.config, self.networks)
        require(
            self.split.num_items >= ranks.size,
            f"{ranks.size} processes need as many items at least; the data set has {self.split.num_items}.",
        )
        for name, stage in self.stages:
            sequences, whole = self.sequences[name], stage.epochs and stage.rows is None
            tokens = sequences.num_tokens // self.steps(sequences)
            require(
                not whole or tokens <= self.config.max_tokens,
                f"several processes compute the whole softmax of a step at once, and a step of {name} has {tokens:,} "
                "tokens, more than max_tokens; set tokens_per_step, or max_tokens.",
            )
        self.validate = PartValidation(self.validate, self.partition)

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return False

    def health(self, weight: Tensor) -> dict[str, float]:
        """Return the health of the item embedding of all ranks."""
        items = torch.arange(1, self.split.num_items + 1, device=self.device)[:: spacing(self.split.num_items)]
        owned = self.partition.owned(items)
        rows = self.partition.exchanged(items, weight.detach()[self.partition.local(items[owned])].float(), owned)
        return embedding_health(rows.cpu().numpy())

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
        assert network is not None and optimizer is not None
        batch = batch.to(self.device)
        draws, weight = network.draw(batch, self.rng), network.item_embedding.weight
        rows = _rows_of(batch) if lazy is None else lazy.sampler.rows(batch, self.rng)
        owned = self.partition.owned(rows.items)
        mine = self.partition.local(rows.items[owned])
        read = weight.detach()[mine] if lazy is None else lazy.table.read(mine)
        values = self.partition.exchanged(rows.items, read, owned)
        users = [self._share_of(batch, rank) for rank in range(self.ranks.size)]
        given: dict[str, Any] = {"rows": rows} if lazy is not None else {"shard": self._shard(step, batch, users)}
        most = self.config.max_tokens if lazy is not None else None  # the ranks compute all their blocks together
        weight.grad = None
        with local_rows(network, values) as own:
            how = draws, self._dropout(), most
            given |= {"users": users[self.ranks.rank], "counts": batch.num_users > self.ranks.rank}
            losses = dict(step.gradients(network, rows.local(batch), *how, **given))
            trained = [each for each in network.parameters() if each.grad is not None]  # the same on all ranks
            self.ranks.sum([*(each.grad for each in trained if each.grad is not None), *losses.values()])
            unusable = self.watch.judge(losses, trained)
        if lazy is None:
            self._add_rows(step, weight, own.grad, mine, owned)
        update(optimizer, unusable)
        if lazy is not None:
            gradient = None if own.grad is None or bool(unusable) else own.grad[owned]
            lazy.table.update(mine, gradient, optimizer.param_groups[0]["lr"], share)
        return counted_losses(losses, unusable)

    def _shard(self, step: Step, batch: PackedBatch, users: list[Int64s]) -> Shard:
        """Return this rank's items for the softmax over all."""
        assert self.network is not None
        weight = self.network.item_embedding.weight
        weight.requires_grad_(step.embedding == "train")
        return Shard(self.partition, weight, tuple(users), batch, batch.num_users < self.ranks.size)

    def _add_rows(self, step: Step, weight: Tensor, own: Tensor | None, mine: Tensor, owned: Tensor) -> None:
        """Complete the gradient of this rank's item vectors by that of the rows that the network read."""
        weight.requires_grad_(True)
        if step.embedding == "frozen":
            weight.grad = None
            return
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        if own is not None and step.embedding == "train":
            weight.grad.index_add_(0, mine, own[owned])

    def _share_of(self, batch: PackedBatch, rank: int) -> Int64s:
        """Return the users of a batch that a rank computes: as many tokens as the others have, or nearly so."""
        order = np.argsort(-batch.lengths, kind="stable")
        return order[rank :: self.ranks.size] if rank < len(order) else order[:1]

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
        return network if whole is None else with_embedding(network, whole.to(self.device))

    def stage_1(self) -> Tensor | None:
        """Return the item embedding that the stage before has chosen, on rank 0."""
        return self.partition.gathered(self.weights.selected[EMBEDDING])

    def snapshot(self) -> Snapshot:
        """Return the state of all ranks on rank 0, and this rank's on others; all ranks call it together."""
        made = super().snapshot()
        tensors = {}
        for name, value in made.tensors.items():
            whole = self.partition.gathered(value) if _is_by_row(name, value.dim()) else value
            tensors[name] = value if whole is None else whole
        return Snapshot(tensors, made.values)

    def restore(self, snapshot: Snapshot) -> None:
        """Restore the state of a snapshot on all ranks; rank 0 calls it, and the others :meth:`follow`."""
        kinds = {name: (value.shape, value.dtype) for name, value in snapshot.tensors.items()}
        self.ranks.object_from_first((kinds, snapshot.values))
        self._take(snapshot.tensors, snapshot.values)

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
            empty = {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in kinds.items()}
            self._take(empty, values)
        raise AssertionError("rank 0 does not settle")

    def _take(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        taken = {}
        for name, value in tensors.items():
            if _is_by_row(name, value.dim()):
                like = torch.empty(value.shape[1:], dtype=value.dtype, device=self.device)
                taken[name] = self.partition.scattered(value if self.ranks.leads else None, like)
            else:
                own = value if self.ranks.leads else torch.empty_like(value, device=self.device)
                taken[name] = self.ranks.from_first(own.to(self.device, copy=True))
            if name.startswith("generator/"):  # whose states are on the CPU
                taken[name] = taken[name].cpu()
        super().restore(Snapshot(taken, values))


def _rows_of(batch: PackedBatch) -> Rows:
    """Return the rows that a network reads for a batch: those of its items and targets, and the padding."""
    items = torch.unique(torch.cat([batch.items.new_zeros(1), batch.items, batch.targets]))
    return Rows(items, torch.zeros(len(items)), torch.zeros(len(items)))


def _is_by_row(name: str, dimensions: int) -> bool:
    """Return whether a tensor of a snapshot has a row for each item: weights, moments and averages have."""
    by_row = EMBEDDING in name or (name.startswith("rows/") and name != TOTALS)
    return by_row and dimensions > 0  # the optimizer's number of steps is one number


def with_embedding(network: SequenceNetwork, rows: Tensor) -> SequenceNetwork:
    """Return ``network`` with other item vectors."""
    padding = network.item_embedding.padding_idx
    network.item_embedding = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=padding)  # type: ignore[no-untyped-call]
    return network


class _Whole(Trainer):
    """The trainer as if it were the only process, to draw whole networks with."""

    def __init__(self, trainer: Trainer) -> None:
        self.__dict__.update(trainer.__dict__)
