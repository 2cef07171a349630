"""The contract of every model: all that evaluation, recommendation, diagnosis and the benchmark know of one.

A model learns from a prepared data set and its split, scores the catalogue for histories, gives its state as tensors
and takes it back, and says what it is. ADRec, every baseline and a user's own model obey it; one test mix-in holds them
to it (``tests/models``). A model that is trained by gradients names its networks in place of a method ``fit``: see
:class:`adrec.models.network.NetworkModel` and :mod:`adrec.nn.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.config.base import Settings
from adrec.config.stage import NO_DIFFUSION
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s, spans
from adrec.data.split import Split
from adrec.nn.scores import Scores
from adrec.utils.errors import ConfigError, DataError

NO_LIMIT = 1 << 30


class Model(ABC):
    """What recommends. It is trained by :func:`adrec.runs.fit`; its methods hold after that, or after :meth:`restore`.

    Attributes:
        name: what the command line and the tables call it.
        paper: who proposed it, where.
        Config: the class of its configuration, with its presets.
        config: its configuration.
        num_items: V: it knows item numbers 1 to V.
        uses_seed: whether another seed gives another model.
        max_length: how many last items of a history it sees.
        ranks_padding: whether item number 0 is ranked among the items, as in ADRec's published code.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    Config: ClassVar[type[Settings]]

    uses_seed: ClassVar[bool] = True
    num_items: int = 0
    max_length: int = NO_LIMIT
    ranks_padding: bool = False

    def __init__(self, config: Settings | None = None) -> None:
        self.config = config or self.Config()

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Learn from the training part of ``split``: items 1 to ``split.num_items``, up to each ``train_ends``.

        Every model has it but a :class:`~adrec.models.network.NetworkModel`. The same seed gives the same model.
        Raises :class:`DataError` where there is nothing to learn from.
        """
        raise NotImplementedError

    @abstractmethod
    def __call__(self, batch: PackedBatch) -> Scores:
        """Return the scores of each history of a packed batch; they depend on that history alone."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """Return everything that was learnt, as tensors by name."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        """Take back what :meth:`state` gave. Raises KeyError or RuntimeError where it does not fit."""

    def with_inference(self, num_steps: int | None, sampler: Literal["ancestral", "ddim"] | None) -> None:
        """Set how it denoises, where it does; None leaves a setting as it is. Raises :class:`ConfigError` elsewhere."""
        if num_steps is not None or sampler is not None:
            raise ConfigError(NO_DIFFUSION)

    @property
    def item_vectors(self) -> NDArray[np.float32] | None:
        """Vectors whose cosine says how alike items are, [V + 1, D]; None where the model has none."""
        return None

    @property
    def num_parameters(self) -> int:
        """How many numbers were learnt."""
        return sum(each.numel() for each in self.state().values())

    def describe(self) -> dict[str, Any]:
        """Return its name, paper, number of parameters and configuration, as JSON values."""
        return {
            "model": self.name,
            "paper": self.paper,
            "parameters": self.num_parameters,
            "config": self.config.to_dict(),
        }


def training_sequences(dataset: Dataset, split: Split) -> tuple[NDArray[np.int32], Int64s]:
    """Return the item numbers of the training part, user after user, and where each begins and the last ends.

    Raises :class:`DataError` where the training part is empty.
    """
    starts = np.asarray(dataset.offsets[:-1])
    lengths = np.asarray(split.train_ends) - starts
    if not lengths.any():
        raise DataError(
            f"the split {split.name!r} of {dataset.info.name!r} leaves nothing to learn from; choose another."
        )
    return np.asarray(dataset.items[spans(starts, lengths)]), np.concatenate([[0], np.cumsum(lengths)])
