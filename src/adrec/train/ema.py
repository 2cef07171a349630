"""Copies of the weights kept during training: their exponential moving average (EMA) and the selected ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from adrec.train.checkpoint import Snapshot, with_prefix


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of a network's state."""
    return {name: value.clone() for name, value in state.items()}


def ema_share(decay: float, steps: int) -> float:
    """Return the share of the new weights in an exponential moving average, after ``steps`` optimizer steps.

    It is the larger of 1 - decay and 9 / (10 + steps).
    """
    return 1 - min(decay, (1 + steps) / (10 + steps))


@torch.no_grad()
def update_ema(average: Mapping[str, Tensor], network: nn.Module, share: float, apart: Collection[str] = ()) -> None:
    """Update an exponential moving average of a network's weights in place, but for those named in ``apart``."""
    for name, value in network.state_dict().items():
        if name in apart:
            continue
        if value.is_floating_point():
            average[name].lerp_(value, share)
        else:
            average[name].copy_(value)


@dataclass
class KeptWeights:
    """Copies of a network's state; unused ones are empty.

    Attributes:
        average: the EMA of the weights, if the stage keeps one: it is validated and selected.
        best: the weights with the best validation in this stage.
        selected: the final weights of the previous stage.
    """

    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    selected: dict[str, Tensor] = field(default_factory=dict)

    def start_stage(self, network: nn.Module, *, averages: bool) -> None:
        """Clear the best weights of the previous stage, and start an average from the weights of ``network``."""
        self.average, self.best = copied(network.state_dict()) if averages else {}, {}

    @contextmanager
    def swapped_in(self, network: nn.Module) -> Iterator[None]:
        """Load the average, if there is one, into ``network`` within the context."""
        if not self.average:
            yield
            return
        own = copied(network.state_dict())
        network.load_state_dict(self.average)
        try:
            yield
        finally:
            network.load_state_dict(own)

    def select(self, network: nn.Module) -> None:
        """Select the final weights of the stage: the best ones, or the last ones if there was no validation."""
        self.selected, self.best = self.best or copied(self.average or network.state_dict()), {}

    def tensors(self) -> dict[str, Tensor]:
        """Return all of the copies by name, as :meth:`restored` reads them from a snapshot."""
        return {key: value for name, weights in vars(self).items() for key, value in with_prefix(name, weights).items()}

    @classmethod
    def restored(cls, snapshot: Snapshot, device: torch.device) -> KeptWeights:
        """Return the copies in ``snapshot``, on ``device``."""
        return cls(
            **{
                each.name: copied({name: value.to(device) for name, value in snapshot.part(each.name).items()})
                for each in fields(cls)
            }
        )
