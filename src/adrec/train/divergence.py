"""Divergence of a training: steps whose loss or gradient cannot be used are skipped, and several in a row are an end.

A step is unusable if a loss or a gradient is not finite, or if the loss is :data:`EXPLODED` times what a first step
has. Its update is skipped, as an optimizer's moments would keep what it brings for many steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

IN_A_ROW = 3  # unusable steps that are a divergence
EXPLODED = 10.0
CHECK_EVERY = 20  # steps between two checks on a GPU, which a check makes wait


class DivergedError(Exception):
    """Raised if several steps in a row were unusable."""


class Watch:
    """Judges each step of a stage.

    Args:
        num_items: V; before anything is learnt, the cross-entropy is about log(V + 1).
        device: the device of the network.
        first_loss: the loss of the stage's first usable step; None before it.

    Attributes:
        skipped: the unusable steps so far.
    """

    def __init__(self, num_items: int, device: torch.device, first_loss: float | None) -> None:
        self.floor, self.first_loss = math.log(num_items + 1), first_loss
        self.skipped, self._in_a_row, self._most = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))
        self._every, self._since = (1 if device.type == "cpu" else CHECK_EVERY), 0

    @property
    def limit(self) -> float:
        """The loss beyond which a step is unusable."""
        return math.inf if self.first_loss is None else EXPLODED * max(self.first_loss, self.floor)

    @property
    def is_calm(self) -> bool:
        """Whether the last step was usable."""
        return not bool(self._in_a_row)

    def judge(self, losses: Mapping[str, Tensor], parameters: Iterable[nn.Parameter]) -> Tensor:
        """Return whether the step is unusable, bool []; its parameters have their gradients."""
        loss = torch.stack([each.detach() for each in losses.values()]).mean()
        gradients = [each.grad for each in parameters if each.grad is not None]
        norms = torch._foreach_norm([each.to_dense() for each in gradients])
        sound = torch.stack([*norms, loss.to(norms[0].dtype)]).isfinite().all() & (loss <= self.limit)
        unusable = ~sound
        self.skipped += unusable
        self._in_a_row = (self._in_a_row + 1) * unusable
        self._most = torch.maximum(self._most, self._in_a_row)
        if self.first_loss is None and bool(sound):
            self.first_loss = float(loss)
        return unusable

    def check(self, *, last: bool = False) -> None:
        """Raise :class:`DivergedError` after several unusable steps in a row; ``last`` of an epoch."""
        self._since += 1
        if self._since < self._every and not last:
            return
        self._since = 0
        if int(self._most) >= IN_A_ROW:
            raise DivergedError


def update(optimizer: torch.optim.Optimizer, unusable: Tensor) -> None:
    """Make a step of a fused ``optimizer``; one that is ``unusable``, bool [], leaves everything as it is.

    Fused optimizers read the flag on their device, as they do for a gradient scaler, so that a GPU does not wait.
    """
    if not unusable.is_cuda:
        if not bool(unusable):
            optimizer.step()
        return
    optimizer.grad_scale, optimizer.found_inf = None, unusable.float()  # type: ignore[attr-defined]
    optimizer.step()
