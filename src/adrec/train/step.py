"""One training step: the losses of a batch and their gradients, in one backward pass where that is exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from adrec.config import Precision, StageConfig
from adrec.data.batch import PackedBatch
from adrec.nn.losses import cross_entropy, project_conflicts, squared_error
from adrec.nn.networks import ADRecNetwork, Draws, SASRecNetwork


@dataclass(frozen=True)
class Step:
    """How gradients are computed: see :class:`adrec.config.StageConfig`, and ``Config`` for ``precision``."""

    loss: Literal["ce", "ce+mse"]
    mse_weight: float
    pcgrad: bool
    embedding: Literal["train", "frozen", "decaying"]
    precision: Precision = "float32"

    @classmethod
    def of(cls, stage: StageConfig, precision: Precision = "float32") -> Step:
        """Return the step of a stage."""
        return cls(stage.loss, stage.mse_weight, stage.pcgrad, stage.embedding, precision)

    def losses(
        self,
        network: ADRecNetwork | SASRecNetwork,
        batch: PackedBatch,
        draws: Draws | None = None,
        rng: Generator | None = None,
        whole: PackedBatch | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses by name.

        Args:
            network: what is trained.
            batch: what it is trained on.
            draws: ADRecNetwork's noise and timesteps.
            rng: draws the dropout; without it there is none.
            whole: the batch of which ``batch`` is a part: the parts' losses add up to its own.
        """
        whole = whole or batch
        embedding, padding_class = network.item_embedding.weight, network.config.padding_class
        low = self.precision == "bfloat16"
        with torch.autocast(embedding.device.type, torch.bfloat16, enabled=low):
            if isinstance(network, SASRecNetwork):
                x = network(batch, rng)  # [N, D]
            else:
                assert draws is not None, "ADRecNetwork needs noise and timesteps"
                x, x0 = network(batch, draws, rng)  # [N, D] each
        num_tokens = len(whole.items)
        query = x.bfloat16() if low else x
        ce = cross_entropy(query, embedding, batch.targets, padding_class=padding_class, num_tokens=num_tokens)
        losses = {"ce": ce}
        if self.loss == "ce+mse":
            losses["mse"] = self.mse_weight * squared_error(x, x0, batch, whole.num_users)
        return losses

    def gradients(
        self,
        network: ADRecNetwork | SASRecNetwork,
        batch: PackedBatch,
        draws: Draws | None = None,
        rng: Generator | None = None,
        max_tokens: int | None = None,
    ) -> Mapping[str, Tensor]:
        """Set every parameter's gradient, the mean of the losses' gradients; return the losses, detached.

        A batch of more than ``max_tokens`` tokens is computed in parts, which need less memory and add up to the same.
        The parts are users of similar length; who is in the batch was drawn before, so that nothing is biased.

        A frozen embedding has no gradient, so the optimizer leaves it alone. A decaying one has a gradient of
        zeros, which Adam's L2 term turns into a step towards 0, as in the published code.
        """
        embedding = network.item_embedding.weight
        embedding.requires_grad_(self.embedding == "train")
        network.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        tasks: list[list[Tensor]] = []
        for part, part_draws in _parts(batch, draws, max_tokens):
            losses = self.losses(network, part, part_draws, rng, batch)
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


def _parts(
    batch: PackedBatch, draws: Draws | None, max_tokens: int | None
) -> Iterator[tuple[PackedBatch, Draws | None]]:
    parts = batch.parts(max_tokens) if max_tokens else []
    if len(parts) < 2:
        yield batch, draws
        return
    for users in parts:
        part, tokens = batch.select(users)
        chosen = torch.from_numpy(users).to(tokens.device, non_blocking=True)
        yield part, None if draws is None else draws.select(chosen, tokens)


def _trained(network: ADRecNetwork | SASRecNetwork) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _task_gradients(network: ADRecNetwork | SASRecNetwork, losses: Mapping[str, Tensor]) -> list[list[Tensor]]:
    """Return each loss's gradients of the trained parameters."""
    tasks = [torch.autograd.grad(loss, _trained(network), retain_graph=True) for loss in losses.values()]
    return [[gradient.to_dense() for gradient in task] for task in tasks]


def _added(a: list[list[Tensor]], b: list[list[Tensor]]) -> list[list[Tensor]]:
    if not a:
        return b
    return [[x + y for x, y in zip(mine, theirs, strict=True)] for mine, theirs in zip(a, b, strict=True)]
