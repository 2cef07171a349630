"""What the loop, inference and evaluation ask of a network: the contract of every model that is trained by gradients.

A network's rows are the tokens of a packed batch and, where padding is attended, one sink per user (see ``layout``).
Noise, timesteps and negatives come in as tensors, drawn outside; dropout is on exactly where a generator is passed.
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
    """The random numbers of one training step, which a batch's parts share out."""

    def select(self, users: Tensor, tokens: Tensor) -> Self:
        """Return the draws of some ``users`` [b] of the batch, whose tokens are ``tokens`` [n]."""


class SequenceNetwork(nn.Module, ABC):
    """A network that turns histories into vectors, whose products with the item embedding are scores.

    Args:
        config: the field ``model`` of its configuration.
        num_items: V.
        padding_idx: a row of the embedding that enters without gradient; None trains every row.
        more_rows: of the embedding, behind the items'.

    Attributes:
        causal: whether a token attends to those before it alone.
        attends_padding: whether tokens attend to the padding (as the sink).
        ranks_padding: whether the padding's row is a class of the softmax, and ranked.
        uses_noise: whether inference is random.
        reads: the keys of ``config`` that decide what it learns; None is all of them.
    """

    reads: ClassVar[frozenset[str] | None] = None

    causal: bool = True
    attends_padding: bool = False
    ranks_padding: bool = False
    uses_noise: bool = False

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
        """Draw the random numbers of a training step but dropout: :class:`RandomDraws`, or None for none."""
        return None

    @abstractmethod
    def forward(self, batch: PackedBatch, draws: Any = None, rng: Generator | None = None) -> Any:
        """Return what the losses are computed from; dropout is on with ``rng``."""

    @abstractmethod
    def losses(self, outputs: Any, batch: PackedBatch, draws: Any, objective: Objective) -> dict[str, Tensor]:
        """Return the losses by name, from what :meth:`forward` returned; their mean is trained.

        Each is a sum over the batch with the denominators of ``objective.whole``.
        """

    @abstractmethod
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Return what each history asks for, [B, D], without gradients.

        Args:
            batch: histories; the last token's target is not known.
            noise: unit normal noise [B, D] of a step (:class:`adrec.nn.noise.HistoryNoise`), where ``uses_noise``.
            num_steps: of inference, where it takes steps.
        """

    def scored(self, query: Tensor, batch: PackedBatch) -> Scores:
        """Return the scores of what :meth:`predict` returned for ``batch``: products with the items' vectors."""
        return InnerProducts(query, self.item_embedding.weight.detach()[: self.num_items + 1])

    def plan(self, batch: PackedBatch, *, inference: bool = False) -> Layout:
        """Return where each row of ``batch`` stands in attention; without gradients and dropout for ``inference``."""
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
    """Return a network of a class, with weights still to be drawn or loaded.

    PyTorch's layers draw weights from the global generator when they are made; it is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        return network(config, num_items)
