"""The settings of training against a part of a large catalogue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adrec.config.parsing import ConfigGroup, require


@dataclass(frozen=True)
class RowsConfig(ConfigGroup):
    """Training of only the rows of the item embedding that a step needs (:mod:`adrec.nn.rows`).

    Attributes:
        draw: how a step's negatives are drawn: ``uniform``; ``popularity``, in proportion to their interactions;
            ``mixed``, half of each; or ``batch``, which takes the items of the batch alone.
        drawn: the number of draws in a step, with replacement.
        sampled_loss: ``softmax``, corrected for the draw (logQ), or ``gbce`` (arXiv 2308.07192).
        calibration: t of the generalised binary cross-entropy.
        moments: the precision in which the optimizer's moments of the rows are kept.
    """

    draw: Literal["uniform", "popularity", "mixed", "batch"] = "mixed"
    drawn: int = 1000
    sampled_loss: Literal["softmax", "gbce"] = "softmax"
    calibration: float = 0.75
    moments: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        require(0 <= self.calibration <= 1, f"rows.calibration must be in [0, 1]; it is {self.calibration}.")
        require(self.drawn >= 1, f"rows.drawn must be at least 1; it is {self.drawn}.")
        require(
            not (self.sampled_loss == "gbce" and self.draw == "batch"),
            "rows.sampled_loss 'gbce' counts drawn items, and rows.draw 'batch' draws none; choose another.",
        )

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        found = {}
        if self.sampled_loss != "gbce":
            found["calibration"] = "rows.sampled_loss is the softmax"
        if self.draw == "batch":
            found["drawn"] = "rows.draw is 'batch', which draws nothing"
        return found


@dataclass(frozen=True)
class BucketsConfig(ConfigGroup):
    """The scalable cross-entropy (SCE, arXiv 2409.18721): a token's softmax is over the items of a bucket near to it.

    Every step divides tokens and items into buckets anew (:mod:`adrec.nn.kernels.buckets`).

    Attributes:
        cover: the tokens of all buckets, as a multiple of a step's: alpha of the paper. There are as many buckets as
            tokens in each.
        items: the number of items of a bucket.
    """

    cover: float = 2.0
    items: int = 1024

    def __post_init__(self) -> None:
        require(0 < self.cover <= 100, f"buckets.cover must be above 0 and at most 100; it is {self.cover}.")
        require(self.items >= 2, f"buckets.items must be at least 2; it is {self.items}.")

    def logits(self, num_tokens: float, num_items: int, passes: int = 1) -> float:
        """Return the mean number of products with an item for each of a step's ``num_tokens``.

        Those of the centres with all items have no backward pass: they count for one of ``passes``.
        """
        return self.cover * self.items + math.sqrt(self.cover / num_tokens) * num_items / passes
