"""The memory, operations, time and disk space of a run, measured on a few real steps before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from adrec.config.stage import StageConfig
from adrec.data.sequences import Sequences
from adrec.nn.base import SequenceNetwork
from adrec.nn.kernels.catalogue import tokens_per_block
from adrec.train.cost import Cost, estimate, fresh_network, sample_batches
from adrec.train.lazy import LazyRows, local_rows
from adrec.train.loop import Trainer
from adrec.train.step import Step
from adrec.utils.platforms import peak_memory

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Way:
    """A way of training the last stage against the catalogue.

    Attributes:
        epoch: seconds of an epoch.
        changes: what is to be set for it, by full key; nothing if the configuration has it.
    """

    epoch: float
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class TrainingPlan:
    """The resources a run needs.

    Attributes:
        data: the data set's name and its number of users, items and training tokens.
        parameters: the number of parameters of each part of the largest network.
        memory: bytes at the peak of training, by their use.
        disk: bytes of the run folder during training and when finished.
        flop: floating-point operations of the matrix products in one epoch of each stage.
        cost: estimated seconds.
        epochs: the maximum number of epochs of each stage.
        device: the device of training.
        threads: the number of CPU threads.
        ways: the ways of training against the catalogue, if it is large, with the other settings as they are.
    """

    data: Mapping[str, Any]
    parameters: Mapping[str, int]
    memory: Mapping[str, int]
    disk: Mapping[str, int]
    flop: Mapping[str, float]
    cost: Cost
    epochs: Mapping[str, int]
    device: str
    threads: int
    ways: Mapping[str, Way] = field(default_factory=dict)

    @property
    def peak_memory(self) -> int:
        """Bytes at the peak of training."""
        return sum(self.memory.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the output of ``adrec plan --json``."""
        values = asdict(self)
        values |= {"peak_memory": self.peak_memory, "total_seconds": self.cost.total}
        return values


def make_plan(trainers: Sequence[Trainer]) -> TrainingPlan:
    """Measure a few steps and validations of every stage; the trainers are unchanged."""
    trainer = trainers[-1]  # the model's own
    stages = [(each, name, stage) for each in trainers for name, stage in each.stages if stage.epochs]
    base, dataset = memory_now(trainer.device), trainer.dataset
    cost = estimate(trainers)
    peak = memory_peak(trainer.device)
    measured = {name: _measure(each, stage, each.sequences[name]) for each, name, stage in stages}
    largest = max(measured.values(), key=lambda each: sum(each.parameters.values()))
    weights = FLOAT * sum(largest.parameters.values())
    whole = [stage for _, _, stage in stages if stage.rows is None and stage.embedding != "frozen"]
    embedding = 0 if whole else FLOAT * largest.parameters["item_embedding"]  # of which a step has some rows alone
    last = FLOAT * sum(measured[trainer.stages[-1][0]].parameters.values())
    # The selected weights of the previous stage; the best weights of this one; their average.
    averaged = any(stage.averaging for _, _, stage in stages)
    copies = 1 + int(len(trainer.split.validation.users) > 0) + int(averaged)
    held = {"weights": weights, "gradients": weights - embedding, "Adam's two moments": 2 * weights}
    held["activations"] = max(each.activations for each in measured.values())
    held["a block of logits"] = FLOAT * max(_logits_at_once(each, stage) for each, _, stage in stages)
    return TrainingPlan(
        data={
            "name": dataset.info.name,
            "users": dataset.num_users,
            "items": dataset.num_items,
            "tokens": trainer.last_sequences.num_tokens,
            "steps": trainer.steps(trainer.last_sequences),
        },
        parameters=largest.parameters,
        memory={
            "the program itself": base,
            **held,
            "everything else in a step or a validation": max(0, peak - base - sum(held.values())),
            "copies of weights": copies * weights,
            "writing the state": (3 + copies) * weights,
        },
        disk={"while it trains": (3 + copies) * weights, "finished": last},
        flop={name: measured[name].flop if name in measured else 0.0 for each in trainers for name, _ in each.stages},
        cost=cost,
        epochs={name: stage.epochs for each in trainers for name, stage in each.stages},
        device=str(trainer.device),
        threads=torch.get_num_threads(),
    )


def _logits_at_once(trainer: Trainer, stage: StageConfig) -> int:
    """Return the approximate number of logits that a stage's cross-entropy holds."""
    sequences, classes = trainer.last_sequences, trainer.split.num_items
    tokens = min(trainer.config.max_tokens, sequences.num_tokens)
    if stage.buckets is not None:
        return int(tokens * min(classes, stage.buckets.logits(tokens, classes)))
    if stage.drawn is not None:  # in addition to the items and targets of a batch
        of_a_batch = sequences.num_tokens // trainer.steps(sequences) + 1
        classes = min(classes, 2 * of_a_batch + stage.drawn)
    if stage.consistency:  # two passes, and as many intermediates
        return 4 * tokens_per_block(4 * classes, tokens // 2) * classes
    return tokens_per_block(classes, tokens) * classes


def memory_now(device: torch.device) -> int:
    """Return the bytes in use: on a GPU by tensors, otherwise by this process."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # before it, a numbered device has no statistics
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return _of_process("VmRSS")


def memory_peak(device: torch.device) -> int:
    """Return the peak of bytes in use: on a GPU since :func:`memory_now`, otherwise since the process started."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _of_process("VmHWM")


def _of_process(what: str) -> int:
    """Return an entry of Linux's memory status of this process, in bytes; on other systems its peak memory."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024
    except (OSError, StopIteration):
        return peak_memory()


@dataclass(frozen=True)
class _Measured:
    """Measures of one stage: parameters by part, matrix products of an epoch, bytes kept for a backward pass."""

    parameters: Mapping[str, int]
    flop: float
    activations: int


def _parameters(network: SequenceNetwork) -> dict[str, int]:
    """Return the number of parameters of each part of a network."""
    counts = {name: sum(each.numel() for each in part.parameters()) for name, part in network.named_children()}
    counts |= {name: each.numel() for name, each in network.named_parameters(recurse=False)}
    return {name: count for name, count in counts.items() if count}


def _in_place_flop(total: Sequence[int], a: Sequence[int], b: Sequence[int], **_: Any) -> int:
    """Return the operations of ``total += a @ b``, from the shapes."""
    return 2 * a[0] * a[1] * b[1]


def _measure(trainer: Trainer, stage: StageConfig, sequences: Sequences) -> _Measured:
    """Measure one step on separate weights."""
    (batch,) = sample_batches(trainer, sequences, 1)
    network = fresh_network(trainer, stage)
    rng = torch.Generator(trainer.device).manual_seed(0)
    step = Step.of(stage, trainer.config.precision)
    draws = network.draw(batch, rng)
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}
    most = 0

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def give(tensor: Tensor) -> Tensor:
        nonlocal most
        most = max(most, sum(kept.values()))
        kept.clear()
        return tensor

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _in_place_flop})
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, give), ExitStack() as stack:
        rows = None
        if stage.rows is not None:
            lazy = LazyRows.of(network, stage, sequences)
            rows = lazy.sampler.rows(batch, rng)
            batch = rows.local(batch)
            stack.enter_context(local_rows(network, lazy.table.read(rows.items)))
        step.gradients(network, batch, draws, rng, trainer.config.max_tokens, rows)
    flop = counter.get_total_flops() * sequences.num_tokens / len(batch.items)
    return _Measured(_parameters(network), flop, most)
