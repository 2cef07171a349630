"""What a run will cost, told before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from adrec.config import Config, StageConfig

# Measured time over the time of the matrix products alone, on a CPU, hidden size 64 to 128.
OVERHEAD = 1.2


@dataclass(frozen=True)
class Cost:
    """Estimated seconds: of an epoch of each kind of network, and of one validation."""

    epoch: dict[str, float]
    validation: float

    def sentence(self, stages: Sequence[tuple[str, StageConfig]], *, validated: bool) -> str:
        """Return the cost of the stages in words; ``validated`` says whether a stage can stop early."""
        most = sum(
            stage.epochs * (self.epoch[stage.network] + self.validation / stage.evaluate_every) for _, stage in stages
        )
        each = ", ".join(f"{name} {stage.epochs} x {duration(self.epoch[stage.network])}" for name, stage in stages)
        if validated and any(stage.patience for _, stage in stages):
            return f"at most about {duration(most)} (early stopping usually ends stages sooner): {each}."
        return f"about {duration(most)}: {each}."


def duration(seconds: float) -> str:
    """Return seconds as a short text: ``3.1 s``, ``4 min``, ``2.5 h``."""
    if seconds < 0.1:
        return "under 0.1 s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _seconds_per_multiplication(hidden_size: int, device: torch.device) -> float:
    """Time matrix products of the network's own size for a moment."""
    x = torch.ones(2048, hidden_size, device=device)
    weight = torch.ones(hidden_size, 4 * hidden_size, device=device)
    x @ weight
    began, repeats = time.perf_counter(), 0
    while repeats < 5 or time.perf_counter() - began < 0.03:
        x @ weight
        repeats += 1
    return (time.perf_counter() - began) / (repeats * x.shape[0] * weight.numel())


def estimate(config: Config, num_tokens: int, num_validated: int, num_items: int) -> Cost:
    """Estimate from the multiplications of a token and the measured speed of this machine's CPU.

    A token costs 12 D^2 in each block and V D for the scores; a backward pass costs twice the forward pass.
    """
    model = config.model
    size = model.hidden_size
    block = 12 * size * size * model.num_blocks
    unit = _seconds_per_multiplication(size, torch.device("cpu")) * OVERHEAD
    scores = num_items * size
    tokens = {"sasrec": block + scores, "adrec": 2 * block + scores}
    per_user = num_tokens / max(num_validated, 1) * 2 * block + model.num_inference_steps * block + scores
    return Cost(
        epoch={name: 3 * each * num_tokens * unit for name, each in tokens.items()},
        validation=num_validated * per_user * unit,
    )
