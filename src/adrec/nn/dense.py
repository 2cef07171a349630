"""ADRec's prediction for few histories at a time: the numbers of :meth:`ADRecNetwork.predict` in few operations.

Histories are padded on the right to one length n, and have no layout: rows are [B, n + 1, D], with the sink of the
padding (:mod:`adrec.nn.kernels.layout`) in row 0. A token attends only to the rows before it, so it never sees the
padding on the right. For a service, where the layout costs more than the products; and for export, as it consists of
plain tensor operations on the shapes of its arguments.
"""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adrec.nn.adrec import ADRecNetwork
from adrec.nn.blocks import Block
from adrec.nn.diffusion import Schedule
from adrec.nn.kernels.gelu import gelu
from adrec.nn.kernels.layout import NEVER
from adrec.nn.kernels.rotary import rotations


class Turn(NamedTuple):
    """The rotation of some rows, [.., rows, 1, d] each: of (a, b) to a cos + b (-sin), b cos + a sin."""

    cos: Tensor
    sin: Tensor


class Weights(NamedTuple):
    """A block's weights and biases, read once: a module's attributes take longer than a small product."""

    query_key_value: tuple[Tensor, Tensor]
    output: tuple[Tensor, Tensor]
    attention_norm: nn.LayerNorm
    expand: tuple[Tensor, Tensor]
    contract: tuple[Tensor, Tensor]
    feed_forward_norm: nn.LayerNorm

    @classmethod
    def of(cls, block: Block) -> Weights:
        """Return those of a ``block``."""
        linear = (block.attention.query_key_value, block.attention.output, block.expand, block.contract)
        qkv, output, expand, contract = ((each.weight.detach(), each.bias.detach()) for each in linear)
        return cls(qkv, output, block.attention_norm, expand, contract, block.feed_forward_norm)


class History(NamedTuple):
    """What depends only on the history: the last condition, and what each block of ADM attends to.

    Attributes:
        c: the condition of the last token, [B, 1, D].
        cache: the keys and the values of each block of ADM, [B, H, n + 1, d] each.
        bias: the attention bias of the last token, [B, 1, 1, n + 2]; its own key comes first.
        turn: the rotation of the last token; None if positions are not rotary.
    """

    c: Tensor
    cache: list[tuple[Tensor, Tensor]]
    bias: Tensor
    turn: Turn | None


class Dense:
    """Predicts with the weights of a trained ``network``, which are shared.

    Args:
        network: ADRec's network without ablations (see :meth:`supports`).
    """

    def __init__(self, network: ADRecNetwork) -> None:
        config, device = network.config, network.item_embedding.weight.device
        self.network, self.max_length, self.heads = network, config.max_length, config.num_heads
        self.embedding = network.item_embedding.weight.detach()
        self.cam = [Weights.of(block) for block in network.cam]
        self.adm = [Weights.of(block) for block in network.adm] if network.denoises else []
        self.temb = network.time_embedding().detach() if network.denoises else torch.zeros(1)  # [T, D]
        rows = torch.arange(config.max_length + 1, device=device)
        self.causal = torch.full((len(rows), len(rows)), NEVER, device=device).triu(1)
        padding = (config.max_length - rows).clamp(min=0)
        sees = (padding > 0) if network.attends_padding else torch.zeros_like(padding, dtype=torch.bool)
        self.near = torch.where(sees, padding.clamp(min=1).float().log(), NEVER)  # [L + 1]: the sink's, by length
        behind = torch.where(rows < rows[:, None], 0.0, NEVER)  # [L + 1, L + 1]: by length and row
        behind[:, 0] = self.near
        self.last = F.pad(behind, (1, 0))  # [L + 1, L + 2]
        self.turn: Turn | None = None
        if config.positions == "rotary":
            cos, sin = rotations(rows, config.hidden_size // config.num_heads)[:, :, None]  # [L + 1, 1, d / 2] each
            self.turn = Turn(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))
        self._chains: dict[int, Schedule] = {}

    @staticmethod
    def supports(network: nn.Module) -> TypeGuard[ADRecNetwork]:
        """Return whether a network is ADRec's without ablations."""
        return type(network) is ADRecNetwork

    def __call__(self, items: Tensor, lengths: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the query of each history, [B, D]: the denoised last token, or its condition without diffusion.

        Args:
            items: the last items of each history, oldest first, int64 [B, n]; 0 behind its end.
            lengths: the number of items of each, 1..n, int64 [B]; n is at most L.
            noise: unit noise, [S, B, D]: of step 1, 2, .. S, the last of which is the initial sample.
        """
        if not self.adm:
            return self.condition(items, lengths)
        assert noise is not None, "denoising starts from noise"
        history = self.history(items, lengths)
        chain = self._chains.get(len(noise))
        if chain is None:
            chain = self._chains[len(noise)] = self.network.schedule.respaced(len(noise))

        def denoise(x: Tensor, t: int) -> Tensor:
            return self.denoise(history, x, self.temb[t])

        return self.network.sample(denoise, chain, lambda i: noise[i - 1])  # type: ignore[arg-type]

    def condition(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return the condition of the last token, [B, D]; the last block computes only that one."""
        x, _ = self._input(items, lengths)
        bias, turn = self._bias(items.shape[1] + 1, lengths), self._turn(items.shape[1] + 1)
        *before, final = self.cam
        for block in before:
            x = self._behind(block, x, *self._project(block, x, turn), bias)
        _, k, v = self._project(final, x, turn)
        return self._step(final, _at(x, lengths), (k, v), *self._last(items.shape[1], lengths))[:, 0]

    def history(self, items: Tensor, lengths: Tensor) -> History:
        """Return what every denoising step attends to: conditions, and the next items, clean, at t = 0 (paper)."""
        x, embedded = self._input(items, lengths)
        bias, turn = self._bias(items.shape[1] + 1, lengths), self._turn(items.shape[1] + 1)
        for block in self.cam:
            x = self._behind(block, x, *self._project(block, x, turn), bias)
        padding = embedded[:, :1]  # the target of the sink; that of the last token is not looked at
        x0 = torch.cat([padding, embedded[:, 2:], padding], dim=1)  # [B, n + 1, D]
        z = torch.add(x, x0 + self.temb[0], alpha=self.network.noise_weight)
        cache = []
        for number, block in enumerate(self.adm, start=1):
            q, k, v = self._project(block, z, turn)
            cache.append((k, v))
            if number < len(self.adm):
                z = self._behind(block, z, q, k, v, bias)
        return History(_at(x, lengths), cache, *self._last(items.shape[1], lengths))

    def denoise(self, history: History, x: Tensor, temb: Tensor) -> Tensor:
        """Return ``x0_hat`` [B, D] of the sample ``x`` [B, D] of the last token; ``temb`` [D] is of its timestep."""
        z = torch.add(history.c, (x + temb)[:, None], alpha=self.network.noise_weight)  # [B, 1, D]
        for block, cache in zip(self.adm, history.cache, strict=True):
            z = self._step(block, z, cache, history.bias, history.turn)
        return z[:, 0]

    def _input(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``h`` of every row, and the embedded items, [B, n + 1, D] each."""
        network = self.network
        embedded = x = F.embedding(F.pad(items, (1, 0)), self.embedding)
        if network.positions is not None:
            places = torch.arange(items.shape[1], device=lengths.device)
            behind = (lengths[:, None] - 1 - places).clamp(min=0)  # [B, n]
            x = x + F.pad(network.positions.vectors(self.max_length - 1 - behind), (0, 0, 1, 0))
        return _norm(network.history_norm, x), embedded

    def _bias(self, rows: int, lengths: Tensor) -> Tensor:
        """Return the attention bias, [B, 1, rows, rows]: causal, and log p for the sink, which sees itself alone."""
        of_sink = self.near[lengths][:, None, None, None].expand(-1, 1, rows - 1, 1)
        return self.causal[:rows, :rows] + F.pad(of_sink, (0, rows - 1, 1, 0))

    def _turn(self, rows: int) -> Turn | None:
        return None if self.turn is None else Turn(self.turn.cos[:rows], self.turn.sin[:rows])

    def _last(self, longest: int, lengths: Tensor) -> tuple[Tensor, Turn | None]:
        """Return the attention bias of the last token, and its rotation."""
        bias = self.last[lengths, : longest + 2][:, None, None]  # [B, 1, 1, n + 2]
        if self.turn is None:
            return bias, None
        return bias, Turn(self.turn.cos[lengths][:, None], self.turn.sin[lengths][:, None])

    def _project(self, block: Weights, x: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries, keys and values of the rows ``x`` [B, l, D], [B, H, l, d] each."""
        heads, size = self.heads, x.shape[-1] // self.heads
        qkv = F.linear(x, *block.query_key_value).view(x.shape[0], x.shape[1], 3 * heads, size)
        qk, v = qkv[:, :, : 2 * heads], qkv[:, :, 2 * heads :]
        if turn is not None:
            qk = torch.addcmul(qk * turn.cos, qk.roll(size // 2, -1), turn.sin)
        return qk[:, :, :heads].transpose(1, 2), qk[:, :, heads:].transpose(1, 2), v.transpose(1, 2)

    def _behind(self, block: Weights, x: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Return the block's output for the rows ``x`` [B, l, D] with the queries ``q``."""
        mixed = F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).reshape(x.shape)
        x = _norm(block.attention_norm, x + F.linear(mixed, *block.output))
        return _norm(block.feed_forward_norm, x + F.linear(gelu(F.linear(x, *block.expand)), *block.contract))

    def _step(self, block: Weights, x: Tensor, cache: tuple[Tensor, Tensor], bias: Tensor, turn: Turn | None) -> Tensor:
        """Return the block's output for the last token ``x`` [B, 1, D] with the keys and values of its history."""
        q, own_k, own_v = self._project(block, x, turn)
        k, v = cache
        return self._behind(block, x, q, torch.cat([own_k, k], dim=2), torch.cat([own_v, v], dim=2), bias)


def _norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def _at(x: Tensor, lengths: Tensor) -> Tensor:
    """Return the row of the last token, [B, n + 1, D] -> [B, 1, D]."""
    return x.gather(1, lengths[:, None, None].expand(-1, 1, x.shape[-1]))
