"""Several processes (ranks) that train or evaluate together: what they exchange, and which item rows each trains.

Every rank computes its share of a batch's users with the denominators of the whole batch, so gradients are summed.
The network's other weights are the same on all ranks. Item ``r`` belongs to rank ``(r - 1) mod N``; padding to rank 0.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from adrec.utils.errors import ConfigError, RunError
from adrec.utils.platforms import rank_of_environment

LOST = "connection|closed|peer|timed? ?out|transport|broken pipe|reset"  # in Gloo's message if another is gone
PATIENCE = datetime.timedelta(minutes=30)  # of a rank that is alive; one that has died is noticed at once


@contextmanager
def _answered() -> Iterator[None]:
    """Turn the failure of an exchange into one sentence."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not re.search(LOST, str(error), re.IGNORECASE):
            raise
        raise RunError(
            "another of the processes has ended or does not answer; once that is mended, start again (a training that "
            "has begun: with --resume, it goes on from its last snapshot)."
        ) from error


@dataclass(frozen=True)
class Ranks:
    """The processes of one training or evaluation, seen from one of them.

    Attributes:
        rank: the number of this process.
        size: N, the number of processes.
        device: where its tensors are.
    """

    rank: int
    size: int
    device: torch.device

    @classmethod
    def start(cls, device: torch.device) -> Ranks:
        """Connect the processes that ``torchrun`` started. Raises :class:`RunError` if they do not find each other."""
        rank, size = rank_of_environment()
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            if device.index >= torch.cuda.device_count():
                raise ConfigError(
                    f"this machine has {torch.cuda.device_count()} GPUs, so it has no more processes; set "
                    "--nproc-per-node, or --device cpu."
                )
            torch.cuda.set_device(device)
        with _answered():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        return cls(rank, size, device)

    def end(self) -> None:
        """Disconnect."""
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 ``tensors`` by their sums over the ranks, in one exchange."""
        flat = self.total(torch.cat([each.flatten() for each in tensors]))
        parts = torch.split(flat, [each.numel() for each in tensors])
        for each, total in zip(tensors, parts, strict=True):
            each.copy_(total.view_as(each))

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum of ``tensor`` over the ranks, in place."""
        with _answered():
            dist.all_reduce(tensor)
        return tensor

    def most(self, tensor: Tensor) -> Tensor:
        """Return the maximum of ``tensor`` over the ranks, in place."""
        with _answered():
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """Return the ``tensor`` of each rank; all have the same shape."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        with _answered():
            dist.all_gather(found, tensor.contiguous())
        return found

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is true on any rank."""
        return bool(self.most(torch.tensor([float(flag)], device=self.device)))

    def agreed(self, flag: bool) -> bool:
        """Return the ``flag`` of rank 0."""
        return bool(self.from_first(torch.tensor([float(flag)], device=self.device)))

    def from_first(self, tensor: Tensor) -> Tensor:
        """Return the ``tensor`` of rank 0, in place."""
        with _answered():
            dist.broadcast(tensor, 0)
        return tensor

    def object_from_first(self, value: Any = None) -> Any:
        """Return the plain ``value`` of rank 0."""
        found = [value]
        with _answered():
            dist.broadcast_object_list(found, 0)
        return found[0]

    def same_state(self, generator: Generator) -> None:
        """Give ``generator`` the state that it has on rank 0."""
        generator.set_state(self.from_first(generator.get_state().to(self.device)).cpu())

    def check_same(self, values: Mapping[str, str]) -> None:
        """Raise :class:`ConfigError` on every rank if one of them has another of the named ``values``."""
        found: list[Mapping[str, str] | None] = [None] * self.size
        with _answered():
            dist.all_gather_object(found, dict(values))
        for name, value in values.items():
            for rank, other in enumerate(found):
                if other is not None and other[name] != (found[0] or {})[name]:
                    raise ConfigError(
                        f"the processes need the same {name}: process 0 has {(found[0] or {})[name]}, "
                        f"process {rank} has {other[name]}; this one has {value}."
                    )

    def send(self, tensor: Tensor, rank: int) -> None:
        """Send a tensor to another rank, which calls :meth:`receive`."""
        with _answered():
            dist.send(tensor.contiguous(), rank)

    def receive(self, like: Tensor, rank: int) -> Tensor:
        """Return a tensor of the shape and type of ``like`` from another rank."""
        found = torch.empty_like(like)
        with _answered():
            dist.recv(found, rank)
        return found


@dataclass(frozen=True)
class Partition:
    """The rows of the item embedding of one rank: row 0 is the padding, which only rank 0's is used; then its items.

    Attributes:
        num_items: V.
        ranks: the processes.
    """

    num_items: int
    ranks: Ranks

    def count(self, rank: int | None = None) -> int:
        """Return the number of items of a rank, by default of this one."""
        rank = self.ranks.rank if rank is None else rank
        return (self.num_items - rank + self.ranks.size - 1) // self.ranks.size

    def owned(self, items: Tensor) -> Tensor:
        """Return whether each of ``items`` belongs to this rank, bool."""
        return torch.where(items > 0, (items - 1) % self.ranks.size, 0) == self.ranks.rank

    def local(self, items: Tensor) -> Tensor:
        """Return the row of each of ``items`` at its rank."""
        return torch.where(items > 0, (items - 1) // self.ranks.size + 1, 0)

    def part_of(self, whole: Tensor, rank: int | None = None) -> Tensor:
        """Return a copy of the rows of a rank, by default this one, from those of all items, [V + 1, ..]."""
        rank = self.ranks.rank if rank is None else rank
        return torch.cat([whole[:1], whole[1 : self.num_items + 1][rank :: self.ranks.size]])

    def scattered(self, whole: Tensor | None, like: Tensor) -> Tensor:
        """Return this rank's rows of the ``whole`` [V + 1, ..] of rank 0; ``like`` is a row of it, [..]."""
        ranks = self.ranks
        if ranks.leads:
            assert whole is not None
            for rank in range(1, ranks.size):
                ranks.send(self.part_of(whole, rank).to(ranks.device), rank)
            return self.part_of(whole).to(ranks.device)
        return ranks.receive(like.new_empty(1 + self.count(), *like.shape), 0)

    def gathered(self, part: Tensor) -> Tensor | None:
        """Return the rows of all items, [V + 1, ..], on the CPU of rank 0; None on the others.

        ``part`` are the rows of a rank.
        """
        ranks = self.ranks
        if not ranks.leads:
            ranks.send(part, 0)
            return None
        whole = torch.empty(self.num_items + 1, *part.shape[1:], dtype=part.dtype)
        whole[0] = part[0]
        whole[1:][:: ranks.size] = part[1:]
        for rank in range(1, ranks.size):
            like = part.new_empty(1 + self.count(rank), *part.shape[1:])
            whole[1:][rank :: ranks.size] = ranks.receive(like, rank)[1:]
        return whole

    def exchanged(self, items: Tensor, read: Tensor, owned: Tensor) -> Tensor:
        """Return the rows of ``items`` [R, D] on every rank, from those that each has ``read``, where ``owned``."""
        rows = read.new_zeros(len(items), *read.shape[1:])
        rows[owned] = read
        return self.ranks.total(rows)
