"""The base class of every network trained by gradient descent: its interface to training, inference and evaluation.

The rows of a network are the tokens of a packed batch and, if padding is attended, one sink per user (see ``layout``).
Noise, timesteps and negatives are drawn outside and passed as tensors. Dropout is on if and only if a generator is
passed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Generator, Tensor, nn

from adrec.config.stage import NetworkConfig
from adrec.data.batch import PackedBatch
from adrec.nn.kernels.layout import Layout, layout
from adrec.nn.losses import Objective
from adrec.nn.scores import InnerProducts, Scores

Noise = Callable[[int], Tensor]


class RandomDraws(Protocol):
    """The random numbers of one training step, divided among the parts of a batch."""

    def select(self, users: Tensor, tokens: Tensor) -> Self:
        """Return the draws of some ``users`` [b] of the batch, whose tokens are ``tokens`` [n]."""


class SequenceNetwork(nn.Module, ABC):
    """A network that maps each history to a vector, whose inner products with the item embedding are scores.

    Args:
        config: the ``model`` section of the configuration.
        num_items: V.
        padding_idx: the row of the embedding whose input receives no gradient; None trains every row.
        more_rows: the number of embedding rows after the items' rows.

    Attributes:
        causal: whether a token attends only to itself and the tokens before it.
        attends_padding: whether tokens attend to the padding (as the sink).
        ranks_padding: whether the padding row is a class of the softmax and is ranked.
        uses_noise: whether inference is random.
        weighs_events: whether its losses count each target by its weight.
        trains_in_ranks: whether several processes can train it, each with a part of the item embedding.
        reads: the keys of ``config`` that affect training; None means all of them.
    """

    reads: ClassVar[frozenset[str] | None] = None

    causal: bool = True
    attends_padding: bool = False
    ranks_padding: bool = False
    uses_noise: bool = False
    weighs_events: ClassVar[bool] = False
    trains_in_ranks: ClassVar[bool] = False

    def __init__(
        self, config: NetworkConfig, num_items: int, *, padding_idx: int | None = None, more_rows: int = 0
    ) -> None:
        super().__init__()
        self.config, self.num_items = config, num_items
        self.item_embedding = nn.Embedding(num_items + 1 + more_rows, config.hidden_size, padding_idx=padding_idx)

    @abstractmethod
    def initialize(self, rng: Generator) -> None:
        """Draw the initial weights."""

    def draw(self, batch: PackedBatch, rng: Generator) -> Any:
        """Draw the random numbers of a training step except dropout: :class:`RandomDraws`, or None if none."""
        return None

    @abstractmethod
    def forward(self, batch: PackedBatch, draws: Any = None, rng: Generator | None = None) -> Any:
        """Return the inputs of :meth:`losses`; dropout is on if ``rng`` is passed."""

    @abstractmethod
    def losses(self, outputs: Any, batch: PackedBatch, draws: Any, objective: Objective) -> dict[str, Tensor]:
        """Return the losses by name, from the output of :meth:`forward`; their mean is trained.

        Each loss is a sum over the batch with the denominators of ``objective.whole``.
        """

    @abstractmethod
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Return the query vector of each history, [B, D], without gradients.

        Args:
            batch: histories; the last token's target is unknown.
            noise: unit normal noise [B, D] of a step (:class:`adrec.nn.noise.HistoryNoise`), if ``uses_noise``.
            num_steps: the number of inference steps, for networks that take steps.
        """

    def scored(self, query: Tensor, batch: PackedBatch) -> Scores:
        """Return the scores of the queries of ``batch`` (see :meth:`predict`): inner products with the item vectors."""
        return InnerProducts(query, self.item_embedding.weight.detach()[: self.num_items + 1])

    def plan(self, batch: PackedBatch, *, inference: bool = False) -> Layout:
        """Return the attention layout of ``batch``; for ``inference``, without gradients and dropout."""
        heads: int = self.config.num_heads  # type: ignore[attr-defined]
        return layout(
            batch.lengths,
            self.config.max_length,
            heads=heads,
            sink=self.attends_padding,
            causal=self.causal,
            device=self.item_embedding.weight.device,
            one_sink=inference and self.causal,
        )


def last_tokens(x: Tensor, batch: PackedBatch) -> Tensor:
    """Return the row of each user's last token, [N, D] -> [B, D]."""
    return x[batch.cu_seqlens[1:] - 1]


AnyNetwork = TypeVar("AnyNetwork", bound=SequenceNetwork)


def make_network(network: type[AnyNetwork], config: NetworkConfig, num_items: int) -> AnyNetwork:
    """Return a network of the given class; its weights are still to be drawn or loaded.

    PyTorch's layers draw weights from the global generator when they are constructed; its state is restored.
    """
    with torch.random.fork_rng(devices=[]):
        return network(config, num_items)
