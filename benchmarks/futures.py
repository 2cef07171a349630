"""A head on ADRec's finished network that samples the next H items of a user together, by diffusion over H slots.

Each of H slots has a vector of its own and sees the others by attention; the network's condition and query are given
and get no gradient. Three kinds: ``masked`` (a slot's item is there or masked, each slot at random: masked discrete
diffusion), ``continuous`` (a slot's item vector is noised, each slot with its own timestep, as in ADRec), and
``independent`` (every slot is always masked, so slots know nothing of each other: a control).
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from adrec.data.batch import PackedBatch, history_batch, training_batch
from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s, spans
from adrec.data.split import Split
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.kernels.layout import NEVER
from adrec.nn.noise import HistoryNoise
from adrec.utils.errors import UserError

Kind = Literal["masked", "continuous", "independent"]
TIMESTEPS = 32


@dataclass(frozen=True)
class Windows:
    """Histories ``items[start:end]`` that are followed by at least H items of the same part.

    Attributes:
        items: item numbers of the data set.
        starts: start of each history, int64 [n].
        ends: its end (exclusive), int64 [n].
        users: its user, int64 [n].
        horizon: H.
    """

    items: Any
    starts: Int64s
    ends: Int64s
    users: Int64s
    horizon: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def futures(self) -> Int64s:
        """The next H items of each, [n, H]."""
        return np.stack([self.items[self.ends + h] for h in range(self.horizon)], 1).astype(np.int64)

    def batch(self, some: slice, max_length: int) -> PackedBatch:
        """Return some histories as a batch."""
        return history_batch(self.items, self.starts[some], self.ends[some], max_length)

    def seen(self, some: slice, num_items: int) -> Tensor:
        """Return the items of each history and the padding, bool [b, V + 1]."""
        return seen_items(self.items, self.starts[some], self.ends[some], num_items)


def seen_items(items: Any, starts: Int64s, ends: Int64s, num_items: int) -> Tensor:
    """Return the items of the histories ``items[start:end]`` and the padding, bool [n, V + 1]."""
    mask = torch.zeros(len(starts), num_items + 1, dtype=torch.bool)
    rows = torch.from_numpy(np.repeat(np.arange(len(starts)), ends - starts))
    mask[rows, torch.from_numpy(items[spans(starts, ends - starts)].astype(np.int64))] = True
    mask[:, 0] = True
    return mask


def windows(dataset: Dataset, split: Split, part: str, horizon: int, most: int) -> Windows:
    """Return up to ``most`` windows of each user whose held-out part has ``horizon`` items, evenly spaced."""
    targets = split.targets(part)
    found: list[tuple[int, int, int]] = []
    users, firsts, counts = np.unique(targets.users, return_index=True, return_counts=True)
    for user, first, count in zip(users, firsts, counts, strict=True):
        number = count - horizon + 1
        if number > 0:
            picked = np.unique(np.linspace(0, number - 1, min(number, most)).astype(int))
            found += [(user, dataset.offsets[user], targets.positions[first + each]) for each in picked]
    if not found:
        raise UserError(f"nobody has {horizon} interactions in the {part} part; take another split.")
    table = np.array(found, dtype=np.int64)
    return Windows(np.asarray(dataset.items), table[:, 1], table[:, 2], table[:, 0], horizon)


class FutureHead(nn.Module):
    """Vectors of the next H items from the query and the condition of a history, and what is known of the slots."""

    def __init__(self, size: int, horizon: int, kind: Kind, *, blocks: int = 2, heads: int = 4, dropout: float = 0.3):
        super().__init__()
        self.kind, self.horizon = kind, horizon
        self.condition, self.item = nn.Linear(2 * size, size), nn.Linear(size, size)
        self.slot, self.mask = (nn.Parameter(0.02 * torch.randn(shape)) for shape in ((horizon, size), (size,)))
        layer = nn.TransformerEncoderLayer(size, heads, 4 * size, dropout, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)
        self.norm, self.out = nn.LayerNorm(size), nn.Linear(size, size)
        nn.init.zeros_(self.out.weight)  # at first every slot is the next item
        nn.init.zeros_(self.out.bias)
        self.temb = nn.Embedding(TIMESTEPS, size)
        level = torch.linspace(0, 1, TIMESTEPS + 1)[1:]
        self.register_buffer("alpha_bars", torch.cos(level * math.pi / 2).clamp_min(1e-3) ** 2)

    def forward(self, query: Tensor, condition: Tensor, slots: Tensor) -> Tensor:
        """Return item vectors [b, (S,) H, D] from ``query`` and ``condition`` [b, D] and ``slots`` [b, (S,) H, D]."""
        given = self.condition(torch.cat([query, condition], -1))
        while given.dim() < slots.dim():
            given, query = given[:, None], query[:, None]
        x = slots + given + self.slot
        x = self.blocks(x.reshape(-1, *x.shape[-2:])).view(x.shape)
        return query + self.out(self.norm(x))

    def masked(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Return slots [.., H, D]: item vectors, or the mask where ``mask`` [.., H] is true."""
        return torch.where(mask[..., None], self.mask, self.item(vectors))

    def unknown(self, batch: Tensor) -> Tensor:
        """Return slots of which nothing is known, [b, H, D]."""
        nothing = batch.new_zeros(len(batch), self.horizon, batch.shape[1])
        return self.masked(nothing, torch.ones(nothing.shape[:2], dtype=torch.bool))

    def noised(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return slots [.., H, D] from noised item vectors and their timesteps [.., H]."""
        return self.item(x_t) + self.temb(t)


class Futures:
    """Trains heads on the training part of a split and on the dropped-out outputs of the finished network."""

    def __init__(self, network: ADRecNetwork, dataset: Dataset, split: Split, horizon: int, seed: int = 0) -> None:
        self.network, self.horizon, self.seed = network, horizon, seed
        self.items = np.asarray(dataset.items)
        self.starts, self.ends = np.asarray(dataset.offsets[:-1]), np.asarray(split.train_ends)
        self.embedding = network.item_embedding.weight.detach()
        self.scaled = self.embedding / self.embedding[1:].std()  # about unit variance, as the noise
        bias = network.repeat_bias
        self.bias = 0.0 if bias is None else float(bias.detach())

    def train(
        self, kind: Kind, validation: Windows, *, epochs: int = 10, most: int = 12, users: int = 96
    ) -> FutureHead:
        """Return a head trained until the validation loss no longer falls (patience 3); ``seconds`` is its cost."""
        torch.manual_seed(self.seed)
        rng, order = Generator().manual_seed(self.seed), np.random.default_rng(self.seed)
        head = FutureHead(self.network.config.hidden_size, self.horizon, kind)
        optimizer = torch.optim.AdamW(head.parameters(), lr=3e-4, weight_decay=0.3)
        long = np.flatnonzero(self.ends - self.starts >= 2)
        began, best, waited = time.process_time(), math.inf, 0
        kept = copy.deepcopy(head.state_dict())
        given = self._given(validation)
        for epoch in range(epochs):
            head.train()
            for rate in optimizer.param_groups:
                rate["lr"] = 3e-4 * min(1.0, (epoch + 1) / 2)
            shuffled = order.permutation(long)
            for first in range(0, len(shuffled), users):
                loss = self._loss(head, *self._batch(shuffled[first : first + users], most, rng, order), rng)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(head.parameters(), 1.0)
                optimizer.step()
            head.eval()
            with torch.no_grad():
                found = float(self._loss(head, *given, Generator().manual_seed(1)))
            print(f"{kind}, horizon {self.horizon}: epoch {epoch + 1}, validation loss {found:.4f}", flush=True)
            if found < best:
                best, waited, kept = found, 0, copy.deepcopy(head.state_dict())
            else:
                waited += 1
                if waited == 3:
                    break
        head.load_state_dict(kept)
        print(f"{kind}, horizon {self.horizon}: {time.process_time() - began:.0f} core seconds", flush=True)
        return head.eval()

    def outputs(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Return the query and the condition of each history, [B, D] each."""
        noise = HistoryNoise(batch, self.network.config.hidden_size, 0, self.embedding.device)
        return self.network.predict(batch, noise), self.network.last_conditions(batch)

    def _given(self, some: Windows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        chosen = np.arange(len(some))[:: max(1, len(some) // 2000)]
        few = Windows(some.items, some.starts[chosen], some.ends[chosen], some.users[chosen], some.horizon)
        with torch.no_grad():
            query, condition = self.outputs(few.batch(slice(None), self.network.config.max_length))
        futures = torch.from_numpy(np.where(few.futures > self.network.num_items, 0, few.futures))
        return query, condition, futures, few.seen(slice(None), self.network.num_items)

    def _batch(
        self, users: Int64s, most: int, rng: Generator, order: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return query and condition (with dropout), futures [n, H] and seen items at random positions of ``users``."""
        network = self.network
        batch = training_batch(self.items, self.starts[users], self.ends[users], network.config.max_length)
        lengths = batch.lengths
        own = [np.sort(order.permutation(length)[:most]) for length in lengths]
        first = np.cumsum(lengths) - lengths
        tokens = torch.from_numpy(np.concatenate([begin + each for begin, each in zip(first, own, strict=True)]))
        counts = [len(each) for each in own]
        ends = np.repeat(self.ends[users], counts)
        now = np.concatenate(own) + np.repeat(self.ends[users] - lengths - 1, counts) + 1  # end of each history
        futures = np.zeros((len(now), self.horizon), dtype=np.int64)
        for h in range(self.horizon):
            there = now + h < ends
            futures[there, h] = self.items[now[there] + h]
        with torch.no_grad():
            outputs = network(batch, network.draw(batch, rng), rng)
        seen = seen_items(self.items, np.repeat(self.starts[users], counts), now, network.num_items)
        return outputs.x0_hat[tokens], outputs.c[tokens], torch.from_numpy(futures), seen

    def _loss(
        self, head: FutureHead, query: Tensor, condition: Tensor, futures: Tensor, seen: Tensor, rng: Generator
    ) -> Tensor:
        """Return the cross-entropy of the slots that are unknown (masked, or all if noised)."""
        there, shape = futures > 0, futures.shape
        if head.kind == "continuous":
            t = torch.randint(TIMESTEPS, shape, generator=rng)
            level, noise = head.alpha_bars[t][..., None], torch.randn(*shape, query.shape[1], generator=rng)
            slots = head.noised(level.sqrt() * self.scaled[futures] + (1 - level).sqrt() * noise, t)
        else:
            share = torch.rand(len(futures), 1, generator=rng) if head.kind == "masked" else 1.0
            masked = (torch.rand(shape, generator=rng) <= share) | ~there
            slots, there = head.masked(self.scaled[futures], masked), there & masked
        logits = head(query, condition, slots)[there] @ self.embedding.T
        logits = (logits + self.bias * seen[there.nonzero()[:, 0]]).index_fill(1, torch.tensor(0), NEVER)
        return F.cross_entropy(logits, futures[there])
