"""One training step: the losses of a batch and their gradients, in one backward pass where that is exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from adrec.config import StageConfig
from adrec.data.batch import PackedBatch
from adrec.nn.losses import cross_entropy, project_conflicts, squared_error
from adrec.nn.networks import ADRecNetwork, Draws, SASRecNetwork


@dataclass(frozen=True)
class Step:
    """How gradients are computed: see :class:`adrec.config.StageConfig` for the fields."""

    loss: Literal["ce", "ce+mse"]
    mse_weight: float
    pcgrad: bool
    embedding: Literal["train", "frozen", "decaying"]

    @classmethod
    def of(cls, stage: StageConfig) -> Step:
        """Return the step of a stage."""
        return cls(stage.loss, stage.mse_weight, stage.pcgrad, stage.embedding)

    def losses(
        self,
        network: ADRecNetwork | SASRecNetwork,
        batch: PackedBatch,
        draws: Draws | None = None,
        rng: Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses by name; ``draws`` are ADRecNetwork's noise and timesteps, ``rng`` draws the dropout."""
        if isinstance(network, SASRecNetwork):
            return {"ce": self._cross_entropy(network, network(batch, rng), batch)}
        assert draws is not None, "ADRecNetwork needs noise and timesteps"
        x0_hat, x0 = network(batch, draws, rng)
        losses = {"ce": self._cross_entropy(network, x0_hat, batch)}
        if self.loss == "ce+mse":
            losses["mse"] = self.mse_weight * squared_error(x0_hat, x0, batch)
        return losses

    def _cross_entropy(self, network: ADRecNetwork | SASRecNetwork, x: Tensor, batch: PackedBatch) -> Tensor:
        embedding, padding_class = network.item_embedding.weight, network.config.padding_class
        # PCGrad goes backward through one graph twice.
        return cross_entropy(x, embedding, batch.targets, padding_class=padding_class, chunked=not self.pcgrad)

    def gradients(
        self,
        network: ADRecNetwork | SASRecNetwork,
        batch: PackedBatch,
        draws: Draws | None = None,
        rng: Generator | None = None,
    ) -> Mapping[str, Tensor]:
        """Set every parameter's gradient, the mean of the losses' gradients; return the losses, detached.

        A frozen embedding has no gradient, so the optimizer leaves it alone. A decaying one has a gradient of
        zeros, which Adam's L2 term turns into a step towards 0, as in the published code.
        """
        embedding = network.item_embedding.weight
        embedding.requires_grad_(self.embedding == "train")
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        losses = self.losses(network, batch, draws, rng)
        if self.pcgrad:
            tasks = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses.values()]
            for parameter, gradient in zip(parameters, project_conflicts(tasks), strict=True):
                parameter.grad = gradient
        else:
            network.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).mean().backward()  # type: ignore[no-untyped-call]
        if self.embedding != "train":
            embedding.grad = torch.zeros_like(embedding) if self.embedding == "decaying" else None
        return {name: loss.detach() for name, loss in losses.items()}
