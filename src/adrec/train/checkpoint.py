"""Snapshots: tensors and JSON values in one safetensors file, written atomically and verified when read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from adrec.utils.errors import RunError
from adrec.utils.files import atomic_file
from adrec.utils.sealed import digest_of


@dataclass(frozen=True)
class Snapshot:
    """Tensors by name and plain JSON values, written and read as a whole; the digest of one that was read."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose name starts with ``prefix/``, with the prefix removed."""
        start = f"{prefix}/"
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}


@dataclass
class Progress:
    """The progress of a training: all of its state except tensors.

    Attributes:
        stage: the index of the current stage.
        epoch: finished epochs of the current stage.
        schedule_epoch: epochs of the learning-rate schedule; a stage that continues another continues its schedule.
        best: the best value of each selecting metric in this stage.
        best_epoch: the epoch whose weights are kept; 0 before the first validation.
        stale: validations since ``best_epoch``.
        rows: epochs of all stages.
        ended: the record of each stage that has ended (:func:`adrec.train.stages.ended_stage`).
        alive: whether the item embedding was not collapsed at the last measurement; at the start it is noise.
        step: finished steps of the current epoch; 0 too once all are finished and it is validated.
        spent: the seconds and core-seconds of these steps.
        first_loss: the loss of the stage's first step; much more is a divergence (:mod:`adrec.train.divergence`).
        halved: the indices of stages that diverged, and went back to a snapshot at half the learning rate.
        diverged: whether the stage has ended by a divergence.
    """

    stage: int = 0
    epoch: int = 0
    schedule_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    stale: int = 0
    rows: int = 0
    ended: list[dict[str, Any]] = field(default_factory=list)
    alive: bool = False
    step: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    first_loss: float | None = None
    halved: list[int] = field(default_factory=list)
    diverged: bool = False

    def begin_stage(self) -> None:
        """Forget the validations of the stage before."""
        self.best, self.best_epoch, self.stale = {}, 0, 0

    def end_stage(self) -> None:
        """Go on to the next stage."""
        self.stage, self.epoch, self.step, self.diverged = self.stage + 1, 0, 0, False
        self.first_loss = None

    @property
    def rate(self) -> float:
        """The factor of the learning rate in this stage."""
        return 0.5 if self.stage in self.halved else 1.0

    def improves(self, values: Mapping[str, float], metrics: Iterable[str]) -> bool:
        """Record the validation ``values`` of this epoch; return whether any of ``metrics`` is the best so far."""
        better = {metric: values[metric] for metric in metrics if values[metric] > self.best.get(metric, -math.inf)}
        self.best.update(better)
        self.best_epoch, self.stale = (self.epoch, 0) if better else (self.best_epoch, self.stale + 1)
        return bool(better)


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with ``prefix/`` prepended to their names; the inverse of :meth:`Snapshot.part`."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _digest(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> str:
    hasher = hashlib.blake2b(digest_of(values).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        hasher.update(tensor.flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def write_snapshot(path: Path, snapshot: Snapshot) -> str:
    """Write ``snapshot`` to ``path`` atomically: the old file is replaced once the new one is complete on disk.

    Return the digest of its tensors and values.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in snapshot.tensors.items()}
    digest = _digest(tensors, snapshot.values)
    # One key: safetensors writes several keys in random order, and equal snapshots should give equal files.
    metadata = {"adrec": json.dumps({"values": snapshot.values, "digest": digest})}
    with atomic_file(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error
    return digest


def read_snapshot(path: Path) -> Snapshot:
    """Read the output of :func:`write_snapshot`.

    Raises:
        RunError: if the file is missing, truncated or altered.
    """
    if not path.is_file():
        raise RunError(f"{path} is missing; the folder is not a complete run.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["adrec"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        values, expected = metadata["values"], metadata["digest"]
        found = _digest(tensors, values)
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, RecursionError, RuntimeError) as error:
        raise RunError(
            f"{path} is damaged or was not written by adrec; restore it from a copy or train again."
        ) from error
    if found != expected:
        raise RunError(f"{path} was altered: its content does not match its digest; restore it from a copy.")
    return Snapshot(tensors, values, found)


def optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """Return an optimizer's state of a network's parameters, named ``<parameter>/<what>``."""
    return {
        f"{name}/{what}": value
        for name, parameter in network.named_parameters()
        for what, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the output of :func:`optimizer_tensors`."""
    for name, parameter in network.named_parameters():
        state = Snapshot(tensors).part(name)
        if state:
            # Fused Adam also keeps its step count on the parameter's device.
            optimizer.state[parameter] = {what: value.to(parameter.device, copy=True) for what, value in state.items()}
