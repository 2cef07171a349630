"""Auto-regressive roll-outs of ADRec: each sampled item is appended, and the network predicts the next one.

Keys and values of the history are computed once, and those of sampled items are appended to them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.blocks import Block
from adrec.nn.kernels.layout import NEVER
from adrec.nn.kernels.rotary import rotations
from adrec.utils.errors import UserError


class RollOuts:
    """The network on the histories of a batch, padded to one length, and on S continuations of each."""

    def __init__(self, network: ADRecNetwork, batch: PackedBatch) -> None:
        if network.config.positions != "rotary":
            raise UserError(f"roll-outs know rotary positions only; these are {network.config.positions!r}.")
        self.network, self.lengths = network, torch.from_numpy(batch.lengths)
        self.blocks: list[Block] = [*network.cam, *network.adm]
        self.heads = network.config.num_heads
        self.cache: list[tuple[Tensor, Tensor]] = []  # of each block: keys and values of the history, [B, l + 1, H, d]
        self.own: list[tuple[Tensor, Tensor] | None] = [None] * len(
            self.blocks
        )  # and of the items since, [B, S, j, H, d]
        self.query = self._read(batch)  # [B, D]

    def _read(self, batch: PackedBatch) -> Tensor:
        network, users, longest = self.network, len(self.lengths), int(self.lengths.max())
        places = torch.arange(longest + 1)
        items = torch.zeros(users, longest + 1, dtype=torch.long)  # the sink first
        items[(places > 0) & (places <= self.lengths[:, None])] = batch.items
        x = network.history_norm(network.item_embedding(items))
        sink = self._sink(0)
        bias = torch.full((longest + 1, longest + 1), NEVER).triu(1).repeat(users, 1, 1)
        bias[:, 1:, 0] += sink[:, None]
        self.seen = torch.where(places <= self.lengths[:, None], 0.0, NEVER)  # [B, l + 1]
        self.seen[:, 0] = sink
        rows, after = torch.arange(users), torch.zeros_like(items)
        after[:, :-1] = items[:, 1:]
        after[:, 0] = 0  # the target of the sink is the padding
        noise, temb = network.noise_weight, network.time_embedding()
        for number, block in enumerate(self.blocks):
            if number == len(network.cam):  # the history's targets are known; the last one's is not
                known = network.item_embedding(after) + temb[0]
                known[rows, self.lengths] = temb[-1]
                x = x + noise * known
            q, k, v = self._project(block, x, places.expand(users, -1))
            self.cache.append((k, v))
            logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1]) + bias[:, None]
            mixed = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2)
            x = block._behind(x, block.attention.output(mixed), None)
        return x[rows, self.lengths]

    def extend(self, items: Tensor, position: int) -> Tensor:
        """Append an item to each continuation, [B, S], the ``position``-th from 0; return the queries [B, S, D]."""
        network = self.network
        x = network.history_norm(network.item_embedding(items))
        places = (self.lengths + 1 + position)[:, None].expand(items.shape)
        self.seen[:, 0] = self._sink(position + 1)
        for number, block in enumerate(self.blocks):
            if number == len(network.cam):
                x = x + network.noise_weight * network.time_embedding()[-1]
            q, k, v = self._project(block, x, places)
            keys, values = self.cache[number]
            k, v, before = k[:, :, None], v[:, :, None], self.own[number]
            if before is not None:
                k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
            self.own[number] = k, v
            far = torch.einsum("bshd,blhd->bhsl", q, keys) / math.sqrt(q.shape[-1]) + self.seen[:, None, None]
            near = torch.einsum("bshd,bsjhd->bhsj", q, k) / math.sqrt(q.shape[-1])
            weights = torch.cat([far, near], -1).softmax(-1)
            mixed = torch.einsum("bhsl,blhd->bshd", weights[..., : far.shape[-1]], values)
            mixed = mixed + torch.einsum("bhsj,bsjhd->bshd", weights[..., far.shape[-1] :], v)
            x = block._behind(x, block.attention.output(mixed.flatten(2)), None)
        return x

    def _sink(self, appended: int) -> Tensor:
        """Return the attention bias of the sink, [B]: log of the number of paddings before the longer history."""
        paddings = self.network.config.max_length - self.lengths - appended
        if not self.network.attends_padding:
            paddings = torch.zeros_like(paddings)
        return torch.where(paddings > 0, paddings.clamp_min(1).float().log(), NEVER)

    def _project(self, block: Block, x: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries and keys, rotated by their places, and values, [.., H, d] each."""
        q, k, v = block.attention.query_key_value(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        cos, sin = rotations(places.flatten(), q.shape[-1]).to(q.dtype).view(2, *places.shape, 1, -1)

        def turned(y: Tensor) -> Tensor:
            a, b = y.chunk(2, -1)
            return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

        return turned(q), turned(k), v
