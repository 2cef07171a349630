"""The base class of every model: the interface used by evaluation, recommendation, diagnosis and the benchmark.

A model is fitted to a split of a prepared data set, scores the catalogue for histories, and saves and restores its
state as tensors. ADRec, every baseline and user-defined models implement it; one test mix-in checks them
(``tests/models``). A model trained by gradient descent names its networks instead of implementing ``fit``: see
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
    """A recommendation model. Train it with :func:`adrec.runs.fit`, or call :meth:`restore`, before other methods.

    Attributes:
        name: the model's name on the command line and in tables.
        paper: the authors and year of its paper.
        Config: the class of its configuration, with its presets.
        config: its configuration.
        num_items: V: the model scores item numbers 1 to V.
        uses_seed: whether the fitted model depends on the seed.
        max_length: the number of last items of a history that the model reads.
        ranks_padding: whether item number 0 is ranked among the items, as in ADRec's published code.
        weighs_events: whether event weights change what it learns.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    Config: ClassVar[type[Settings]]

    uses_seed: ClassVar[bool] = True
    num_items: int = 0
    max_length: int = NO_LIMIT
    ranks_padding: bool = False
    weighs_events: bool = False

    def __init__(self, config: Settings | None = None) -> None:
        self.config = config or self.Config()

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Fit the model to the training part of ``split``: items 1 to ``split.num_items``, up to each ``train_ends``.

        Every model except a :class:`~adrec.models.network.NetworkModel` implements it. The same seed gives the same
        model. Raises :class:`DataError` if there is no training data.
        """
        raise NotImplementedError

    @abstractmethod
    def __call__(self, batch: PackedBatch) -> Scores:
        """Return the scores of each history of a packed batch; they depend only on that history."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """Return the learnt state, as tensors by name."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        """Load the output of :meth:`state`. Raises KeyError or RuntimeError if it does not fit."""

    def with_inference(self, num_steps: int | None, sampler: Literal["ancestral", "ddim"] | None) -> None:
        """Set the denoising steps and sampler; None keeps a setting. Raises :class:`ConfigError` without diffusion."""
        if num_steps is not None or sampler is not None:
            raise ConfigError(NO_DIFFUSION)

    @property
    def item_vectors(self) -> NDArray[np.float32] | None:
        """Vectors whose cosine measures the similarity of items, [V + 1, D]; None if the model has none."""
        return None

    @property
    def num_parameters(self) -> int:
        """The number of learnt parameters."""
        return sum(each.numel() for each in self.state().values())

    def describe(self) -> dict[str, Any]:
        """Return its name, paper, number of parameters and configuration, as JSON values."""
        return {
            "model": self.name,
            "paper": self.paper,
            "parameters": self.num_parameters,
            "config": self.config.to_dict(),
        }


def training_weights(dataset: Dataset, split: Split) -> NDArray[np.float32] | None:
    """Return the event weights of the training part, in the order of its items; None if all count the same."""
    if dataset.weights is None:
        return None
    starts = np.asarray(dataset.offsets[:-1])
    return np.asarray(dataset.weights[spans(starts, np.asarray(split.train_ends) - starts)])


def training_sequences(dataset: Dataset, split: Split) -> tuple[NDArray[np.int32], Int64s]:
    """Return the item numbers of the training part, user by user, and the offsets of the users.

    Raises :class:`DataError` if the training part is empty.
    """
    starts = np.asarray(dataset.offsets[:-1])
    lengths = np.asarray(split.train_ends) - starts
    if not lengths.any():
        raise DataError(
            f"the split {split.name!r} of {dataset.info.name!r} leaves nothing to learn from; choose another."
        )
    return np.asarray(dataset.items[spans(starts, lengths)]), np.concatenate([[0], np.cumsum(lengths)])
