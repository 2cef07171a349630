"""BERT4Rec (Sun et al. 2019): a bidirectional transformer that predicts masked items; at inference, the next item."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Generator, Tensor, nn

from adrec.config.base import OneStageConfig
from adrec.config.parsing import require
from adrec.config.stage import StageConfig, TransformerConfig
from adrec.data.batch import PackedBatch
from adrec.models.baselines.stage import STAGE
from adrec.models.network import NetworkModel
from adrec.nn.base import Noise, SequenceNetwork, last_tokens
from adrec.nn.blocks import Blocks
from adrec.nn.initialize import initialize_bias
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.kernels.dropout import dropout_
from adrec.nn.kernels.gelu import gelu
from adrec.nn.losses import Objective
from adrec.nn.positions import EMBEDDING_STD, Positions
from adrec.nn.scores import InnerProducts


@dataclass(frozen=True)
class BERT4RecNetworkConfig(TransformerConfig):
    """BERT4Rec's network; its input is up to ``max_length`` items followed by the mask of the next one.

    Attributes:
        mask_share: rho, the share of a sequence's items that are masked, rounded, but at least one item. The paper
            uses 0.6 for short sequences (Beauty) and 0.2 for long ones (MovieLens).
        last_share: the share of sequences in which only the last item is masked, as at inference (section 3.6). The
            published code adds one such copy to every ten.
    """

    num_heads: int = 2
    embedding_dropout: float = 0.2
    dropout: float = 0.2
    mask_share: float = 0.6
    last_share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mask_share", "last_share"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"model.{name} must be in [0, 1]; it is {share}.")


@dataclass(frozen=True)
class BERT4RecConfig(OneStageConfig):
    """BERT4Rec's configuration.

    Attributes:
        model: the network.
    """

    model: BERT4RecNetworkConfig = field(default_factory=BERT4RecNetworkConfig)
    train: StageConfig = STAGE


@dataclass(frozen=True)
class Masks:
    """The masked items of a training step.

    Attributes:
        items: bool [N], whether each of the items s_1..s_n is masked.
        last: bool [B], whether each last item s_{n+1} is masked.
    """

    items: Tensor
    last: Tensor

    def select(self, users: Tensor, tokens: Tensor) -> Masks:
        """Return the draws of some ``users`` [b] of the batch, whose tokens are ``tokens`` [n]."""
        return Masks(self.items[tokens], self.last[users])

    @property
    def count(self) -> int:
        """The number of masked items."""
        return int(self.items.sum() + self.last.sum())


class BERT4RecNetwork(SequenceNetwork):
    """Predicts masked items from the items on both sides (section 3)."""

    causal = False
    config: BERT4RecNetworkConfig

    def __init__(self, config: BERT4RecNetworkConfig, num_items: int) -> None:
        super().__init__(config, num_items, more_rows=1)
        size = config.hidden_size
        self.mask = num_items + 1  # the row of [MASK]
        self.positions = Positions(config.max_length + 1, size)
        self.norm = nn.LayerNorm(size, eps=1e-12)
        self.blocks = Blocks(config.num_blocks, size, config.num_heads, config.dropout)
        self.head = nn.Linear(size, size)
        self.item_bias = nn.Parameter(torch.zeros(num_items + 1))

    def initialize(self, rng: Generator) -> None:
        """Draw small embeddings and Xavier-normal layers; layer norms start as the identity, item biases as 0."""
        nn.init.normal_(self.item_embedding.weight, std=EMBEDDING_STD, generator=rng)
        self.positions.initialize(rng)
        self.norm.reset_parameters()
        self.blocks.initialize(rng)
        nn.init.xavier_normal_(self.head.weight, generator=rng)
        initialize_bias(self.head, rng)
        nn.init.zeros_(self.item_bias)

    def draw(self, batch: PackedBatch, rng: Generator) -> Masks:
        """Draw which items of each sequence s_1..s_{n+1} are masked."""
        whole, device = with_last(batch, last_targets(batch)), batch.items.device
        lengths, ends = whole.cu_seqlens.diff(), whole.cu_seqlens[1:]  # [B] each
        users = torch.arange(batch.num_users, device=device).repeat_interleave(lengths, output_size=len(whole.items))
        number = (self.config.mask_share * lengths).round().clamp_(min=1)  # [B]
        chance = torch.rand(len(users), generator=rng, device=device, dtype=torch.float64)
        order = torch.argsort(users + chance)  # user by user, each one's items in random order
        rank = torch.arange(len(users), device=device) - whole.cu_seqlens[users]
        masked = torch.empty_like(users, dtype=torch.bool).index_copy_(0, order, rank < number[users])
        last_alone = torch.rand(batch.num_users, generator=rng, device=device) < self.config.last_share  # [B]
        masked = (masked & ~last_alone[users]).index_put_((ends - 1,), masked[ends - 1] | last_alone)
        return Masks(masked[items_of(whole)], masked[ends - 1])

    def forward(self, batch: PackedBatch, draws: Masks | None = None, rng: Generator | None = None) -> Tensor:
        """Return the query vector of each masked item, [M, D]."""
        assert draws is not None, "BERT4Rec needs masks"
        whole = with_last(batch, last_targets(batch))
        masked = _masked(whole, draws)
        seen = whole.items.masked_fill(masked, self.mask)
        return self._query(self._states(_with_items(whole, seen), rng)[masked])

    def losses(self, outputs: Tensor, batch: PackedBatch, draws: Masks, objective: Objective) -> dict[str, Tensor]:
        """Return the mean cross-entropy of the masked items (equation 8)."""
        whole = with_last(batch, last_targets(batch))
        targets = whole.items[_masked(whole, draws)]  # [M]
        x = nn.functional.pad(objective.query(outputs), (0, 1), value=1.0)  # [M, D + 1]: with the bias's factor
        count = objective.draws.count
        return {"ce": cross_entropy(x, self._items(), targets, padding_class=False, total=count)}

    @torch.no_grad()
    def predict(self, batch: PackedBatch, noise: Noise | None = None, num_steps: int | None = None) -> Tensor:
        """Return the query vector of the mask after each history, [B, D]."""
        asked = with_last(batch, batch.items.new_full((batch.num_users,), self.mask))
        return self._query(last_tokens(self._states(asked, None), asked))

    def scored(self, query: Tensor, batch: PackedBatch) -> InnerProducts:
        """Return the scores of the queries of :meth:`predict`, [B, D], including each item's bias."""
        return InnerProducts(nn.functional.pad(query, (0, 1), value=1.0), self._items().detach())

    def _states(self, batch: PackedBatch, rng: Generator | None) -> Tensor:
        """Return the output of the last block for every token, [N, D]."""
        x = self.norm(self.item_embedding(batch.items) + self.positions(batch))  # [N, D]
        return self.blocks(dropout_(x, self.config.embedding_dropout, rng), self.plan(batch), rng)

    def _query(self, states: Tensor) -> Tensor:
        """Return ``GELU(h W + b)``, whose products with the items' embedding are scores (equation 7)."""
        return gelu(self.head(states))

    def _items(self) -> Tensor:
        """Return the items' embedding and bias, [V + 1, D + 1]."""
        return torch.cat([self.item_embedding.weight[: self.num_items + 1], self.item_bias[:, None]], 1)


def items_of(whole: PackedBatch) -> Tensor:
    """Return the indices of the items before the last one of each sequence."""
    before = torch.ones_like(whole.items, dtype=torch.bool).index_fill_(0, whole.cu_seqlens[1:] - 1, False)
    return before.nonzero()[:, 0]


def last_targets(batch: PackedBatch) -> Tensor:
    """Return the last item s_{n+1} of each sequence, [B]."""
    return batch.targets[batch.cu_seqlens[1:] - 1]


def with_last(batch: PackedBatch, last: Tensor) -> PackedBatch:
    """Return the sequences with ``last`` [B] appended, one item each; the result has no targets."""
    cu_seqlens = batch.cu_seqlens + torch.arange(batch.num_users + 1, device=last.device)
    items = batch.items.new_empty(len(batch.items) + batch.num_users)
    whole = PackedBatch(items, items, batch.lengths + 1, cu_seqlens)
    items[cu_seqlens[1:] - 1] = last
    items[items_of(whole)] = batch.items
    return whole


def _masked(whole: PackedBatch, draws: Masks) -> Tensor:
    """Return the mask over the items of the whole sequences, bool."""
    masked = torch.empty_like(whole.items, dtype=torch.bool)
    masked[items_of(whole)] = draws.items
    masked[whole.cu_seqlens[1:] - 1] = draws.last
    return masked


def _with_items(batch: PackedBatch, items: Tensor) -> PackedBatch:
    return PackedBatch(items, items, batch.lengths, batch.cu_seqlens)


class BERT4Rec(NetworkModel):
    """BERT4Rec."""

    name = "bert4rec"
    paper = (
        "Sun et al.: BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer "
        "(CIKM 2019)"
    )
    Config = BERT4RecConfig
    networks = MappingProxyType({"network": BERT4RecNetwork})
