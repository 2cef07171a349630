"""One training step: a batch's losses, their gradients (in one backward pass if that is exact), and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from adrec.config.base import Precision
from adrec.config.catalogue import BucketsConfig, RowsConfig
from adrec.config.stage import StageConfig
from adrec.data.batch import PackedBatch
from adrec.data.spans import Int64s
from adrec.nn.base import SequenceNetwork
from adrec.nn.classes import draw_classes
from adrec.nn.kernels.buckets import Buckets
from adrec.nn.kernels.gbce import calibration
from adrec.nn.losses import Objective, project_conflicts
from adrec.nn.rows import Rows


@dataclass(frozen=True)
class Step:
    """The computation of a batch's gradients.

    Attributes:
        weights: the weights of the losses, see :attr:`StageConfig.loss_weights`.
        pcgrad: whether conflicting gradients are projected.
        embedding: how the item embedding is trained.
        precision: the precision of the matrix products.
        consistency: the weight of the divergence of two passes with different dropout; 0 is one pass.
        negatives: the number of softmax classes in addition to the batch's own items; 0 is the whole catalogue.
        rows: how only the rows of a step's items are trained; None for all.
        buckets: how the items near to a token are found; None if its softmax is not over these.
        future_items: the number of next items that are targets of a token.
        future_decay: the weight of each, relative to the one before.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    pcgrad: bool = False
    embedding: Literal["train", "frozen", "decaying"] = "train"
    precision: Precision = "float32"
    consistency: float = 0.0
    negatives: int = 0
    rows: RowsConfig | None = None
    buckets: BucketsConfig | None = None
    future_items: int = 1
    future_decay: float = 1.0

    @classmethod
    def of(cls, stage: StageConfig, precision: Precision = "float32") -> Step:
        """Return the step of a stage."""
        return cls(
            stage.loss_weights,
            stage.pcgrad,
            stage.embedding,
            precision,
            stage.consistency,
            stage.negatives,
            stage.rows,
            stage.buckets,
            stage.future_items,
            stage.future_decay,
        )

    def losses(
        self,
        network: SequenceNetwork,
        batch: PackedBatch,
        draws: Any = None,
        rng: Generator | None = None,
        objective: Objective | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses by name.

        Args:
            network: the network to train.
            batch: the training batch.
            draws: the random numbers that the network drew for the batch.
            rng: the generator of dropout, negatives and buckets; without it there is no dropout. The others need it.
            objective: the denominators of the batch of which ``batch`` is a part: the parts' losses add up to its own.
        """
        objective = objective or self._objective(network, batch, draws, rng)
        with torch.autocast(batch.items.device.type, torch.bfloat16, enabled=objective.low):
            outputs = network(batch, draws, rng)
        return network.losses(outputs, batch, draws, objective)

    def _objective(
        self,
        network: SequenceNetwork,
        whole: PackedBatch,
        draws: Any,
        rng: Generator | None,
        rows: Rows | None = None,
    ) -> Objective:
        classes = beta = None
        if self.rows is not None and self.rows.sampled_loss == "gbce":
            beta = calibration(self.rows.drawn, network.num_items, self.rows.calibration)
        if self.negatives and rows is None:
            assert rng is not None, "negatives are drawn"
            classes = draw_classes(whole, self.negatives, network.num_items, network.ranks_padding, rng)
        buckets = None
        if self.buckets is not None:
            assert rng is not None, "buckets are drawn"
            buckets = Buckets(self.buckets.cover, self.buckets.items, rng)
        return Objective(
            whole,
            draws,
            self.weights,
            self.precision == "bfloat16",
            self.consistency,
            classes,
            rows,
            beta,
            buckets,
            self.future_items,
            self.future_decay,
        )

    def gradients(
        self,
        network: SequenceNetwork,
        batch: PackedBatch,
        draws: Any = None,
        rng: Generator | None = None,
        max_tokens: int | None = None,
        rows: Rows | None = None,
        users: Int64s | None = None,
        counts: bool = True,
        shard: Any = None,
    ) -> Mapping[str, Tensor]:
        """Set every parameter's gradient, the mean of the losses' gradients; return the losses, detached.

        A batch of more than ``max_tokens`` tokens is computed in parts. They need less memory and add up to the same
        gradient; but each has buckets of its own, if there are any. The parts are users of similar length; they do not
        change which users are in the batch, so there is no bias.

        A frozen embedding has no gradient, so the optimizer does not change it. A decaying one has a gradient of
        zeros, which Adam's L2 term turns into a step towards 0, as in the published code.

        With ``rows``, the network has only these rows of the item embedding, and the batch is numbered within them.
        With ``users`` [b], their share of the losses and gradients of the batch is computed; it is 0 if they do not
        count.
        With ``shard``, the catalogue is divided among several processes.
        """
        embedding = network.item_embedding.weight
        embedding.requires_grad_(self.embedding == "train")
        network.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        tasks: list[list[Tensor]] = []
        objective = replace(self._objective(network, batch, draws, rng, rows), shard=shard)
        for part, part_draws in _parts(batch, draws, max_tokens, objective.passes, users):
            nothing = None if counts else torch.zeros_like(part.targets, dtype=torch.float32)
            own = part if nothing is None else replace(part, weights=nothing)
            losses = self.losses(network, own, part_draws, rng, objective)
            if self.pcgrad:
                tasks = _added(tasks, _task_gradients(network, losses))
            else:
                torch.stack(list(losses.values())).mean().backward()  # type: ignore[no-untyped-call]
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach()
        if self.pcgrad:
            for parameter, gradient in zip(_trained(network), project_conflicts(tasks), strict=True):
                parameter.grad = gradient
        if self.embedding != "train":
            embedding.grad = torch.zeros_like(embedding) if self.embedding == "decaying" else None
        return totals


def new_optimizer(network: SequenceNetwork, stage: StageConfig) -> torch.optim.Optimizer:
    """Return the stage's optimizer, fused: it allocates no temporary memory.

    The published optimizer is Adam with L2 added to the gradient.
    """
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    rows = network.item_embedding.weight if stage.rows is not None else None  # :mod:`adrec.train.lazy` trains them
    return kind(
        [parameter for parameter in network.parameters() if parameter is not rows],
        lr=stage.learning_rate,
        betas=(0.9, stage.beta2),
        weight_decay=stage.weight_decay,
        fused=True,
    )


def learning_rate(stage: StageConfig, epoch: int, share: float = 0.0) -> float:
    """Return the learning rate within an epoch, counted from 0; ``share`` is the finished share of the epoch.

    The cosine decay over ``schedule_epochs`` is updated every epoch, the warm-up every step.
    """
    rate = stage.learning_rate
    if stage.schedule == "cosine":
        rate *= (1 + math.cos(math.pi * min(epoch / stage.schedule_epochs, 1.0))) / 2
    return rate * min((epoch + share) / stage.warmup_epochs, 1.0) if stage.warmup_epochs else rate


def _parts(
    batch: PackedBatch, draws: Any, max_tokens: int | None, passes: int, users: Int64s | None = None
) -> Iterator[tuple[PackedBatch, Any]]:
    """Yield parts of at most ``max_tokens`` tokens, each repeated ``passes`` times, with their random numbers.

    They are of all users, or of some ``users`` [b].
    """
    if users is not None:
        batch, tokens = batch.select(users)
        chosen = torch.from_numpy(users).to(tokens.device, non_blocking=True)
        draws = None if draws is None else draws.select(chosen, tokens)
    parts = batch.parts(max(1, max_tokens // passes)) if max_tokens else [np.arange(batch.num_users)]
    if len(parts) < 2 and passes == 1:
        yield batch, draws
        return
    for some in parts:
        users = np.tile(some, passes)
        part, tokens = batch.select(users)
        chosen = torch.from_numpy(users).to(tokens.device, non_blocking=True)
        yield part, None if draws is None else draws.select(chosen, tokens)


def _trained(network: SequenceNetwork) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _task_gradients(network: SequenceNetwork, losses: Mapping[str, Tensor]) -> list[list[Tensor]]:
    """Return each loss's gradients of the trained parameters."""
    parameters = _trained(network)  # a loss may not depend on all: c's cross-entropy does not on ADM
    tasks = [
        torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True) for loss in losses.values()
    ]
    return [[gradient.to_dense() for gradient in task] for task in tasks]


def _added(a: list[list[Tensor]], b: list[list[Tensor]]) -> list[list[Tensor]]:
    if not a:
        return b
    return [[x + y for x, y in zip(mine, theirs, strict=True)] for mine, theirs in zip(a, b, strict=True)]
