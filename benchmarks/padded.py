"""ADRec as it is published, on the weights of our network: the reference of the benchmarks.

Every history is left-padded to L positions and every position is computed. Training goes backward twice, once for each
loss, and holds the logits of all real tokens of the batch at once. Inference decodes the whole sequence at every step.
All of it in plain PyTorch operations on whole tensors, as fast as they are without changing what is computed;
``tests/benchmarks/test_padded.py`` holds it to our network's numbers.

Shapes: B users, L positions, D hidden size, H heads of size d, V items.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.nn.ablation.decoders import MLPDecoder
from adrec.nn.adrec import ADRecNetwork, TokenNoise
from adrec.nn.blocks import Block, Blocks
from adrec.nn.diffusion import sample


@dataclass(frozen=True)
class PaddedBatch:
    """B histories, left-padded with item 0: ``history`` and ``target`` [B, L], and what is ``real``, bool [B, L]."""

    history: Tensor
    target: Tensor
    real: Tensor

    @classmethod
    def of(cls, batch: PackedBatch, max_length: int) -> PaddedBatch:
        """Pad a packed batch to ``max_length`` = L."""
        lengths = torch.from_numpy(batch.lengths)
        real = torch.arange(max_length) >= max_length - lengths[:, None]  # [B, L]
        return cls(padded(batch.items, real), padded(batch.targets, real), real)


def padded(values: Tensor, real: Tensor) -> Tensor:
    """Return packed ``values`` [N, ..] where ``real`` [B, L] says, 0 elsewhere, [B, L, ..]."""
    out = values.new_zeros(*real.shape, *values.shape[1:])
    out[real] = values
    return out


class PaddedADRec:
    """The published computations with the weights of ``network`` (causal, token-level noise, no guidance).

    ``dropout`` is on where it is said so; it is drawn by PyTorch's global generator, as in the published code.
    """

    def __init__(self, network: ADRecNetwork, dropout: bool = True) -> None:
        self.network, self.dropout = network, dropout
        length = network.config.max_length
        self.future = torch.full((length, length), -1e9).triu(1)  # [L, L]

    def drop(self, x: Tensor, p: float) -> Tensor:
        """Return ``x`` with dropout."""
        return F.dropout(x, p, self.dropout)

    def block(self, block: Block, x: Tensor) -> Tensor:
        """Apply a transformer block to ``x`` [B, L, D]."""
        attention, p = block.attention, block.dropout
        B, L, D = x.shape
        q, k, v = attention.query_key_value(x).view(B, L, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + self.future  # [B, H, L, L]
        mixed = self.drop(logits.softmax(-1), p) @ v  # [B, H, L, d]
        mixed = attention.output(mixed.transpose(1, 2).reshape(B, L, D))  # [B, L, D]
        x = block.attention_norm(x + self.drop(mixed, p))
        wide = self.drop(F.gelu(block.expand(x), approximate="tanh"), p)  # [B, L, 4 D]
        return block.feed_forward_norm(x + self.drop(block.contract(wide), p))

    def blocks(self, blocks: Blocks, x: Tensor) -> Tensor:
        """Apply a stack of blocks to ``x`` [B, L, D]."""
        for block in blocks:
            x = self.block(block, x)
        return x

    def condition(self, batch: PaddedBatch) -> Tensor:
        """Return ``c``, [B, L, D]."""
        h = self.drop(self.network.item_embedding(batch.history), self.network.config.embedding_dropout)
        return self.blocks(self.network.cam, self.network.history_norm(h))

    def decode(self, c: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return ``x0_hat`` [B, L, D] of the noisy ``x`` [B, L, D] at the timesteps ``t`` [B, L]."""
        z = c + self.network.noise_weight * (x + self.network.time_embedding()[t])  # [B, L, D]
        return self.network.adm(z) if isinstance(self.network.adm, MLPDecoder) else self.blocks(self.network.adm, z)

    def losses(self, batch: PaddedBatch, draws: TokenNoise) -> tuple[Tensor, Tensor]:
        """Return cross-entropy and squared error of a training batch."""
        real, network = batch.real, self.network
        x0 = network.item_embedding(batch.target)  # [B, L, D]
        t, eps = padded(draws.t, real), padded(draws.eps, real)
        x_t = torch.where(real[..., None], network.forward_process(x0.flatten(0, 1), t.flatten(), eps.flatten(0, 1))
                          .view_as(x0), x0)  # fmt: skip
        x0_hat = self.decode(self.condition(batch), x_t, t)  # [B, L, D]
        logits = network.scores(x0_hat[real])  # [N, V + 1]
        cross_entropy = F.cross_entropy(logits, batch.target[real])
        per_token = (x0_hat - x0).square().mean(-1) * real  # [B, L]
        return cross_entropy, (per_token.sum(1) / real.sum(1)).mean()

    def gradients(self, batch: PaddedBatch, draws: TokenNoise) -> None:
        """Set each parameter's gradient to the mean of the two losses', each from a backward pass of its own."""
        losses, of_losses = self.losses(batch, draws), []
        for loss in losses:
            self.network.zero_grad(set_to_none=True)
            loss.backward(retain_graph=loss is losses[0])
            of_losses.append([parameter.grad for parameter in self.network.parameters()])
        for parameter, one, two in zip(self.network.parameters(), *of_losses, strict=True):
            both = [gradient for gradient in (one, two) if gradient is not None]
            parameter.grad = sum(both[1:], both[0]) / len(both) if both else None

    @torch.no_grad()
    def predict(self, batch: PaddedBatch, noise: Callable[[int], Tensor], num_steps: int | None = None) -> Tensor:
        """Sample the last token's x0 [B, D], the whole sequence decoded at each step."""
        network = self.network
        condition = self.condition(batch)
        known = network.item_embedding(batch.target[:, :-1])  # [B, L - 1, D]

        def denoise(x: Tensor, t: int) -> Tensor:
            times = torch.zeros_like(batch.history)
            times[:, -1] = t
            return self.decode(condition, torch.cat([known, x[:, None]], 1), times)[:, -1]

        schedule = network.schedule.respaced(num_steps or network.config.num_train_timesteps)
        return sample(denoise, schedule, noise)
