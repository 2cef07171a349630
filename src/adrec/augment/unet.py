"""The sequential U-Net (SU-Net) of DiffuASR: M item vectors as channels of one small image.

A vector of D numbers becomes an image of H x W pixels, the two factors of D nearest to its square root (128 is 8 x 16),
so that any width works. Each level halves the image, rounded up; the upward path restores the size of each level.
Timestep and guide enter every residual block as one vector, as published. That vector adds one number to all pixels of
a channel, so it cannot specify items. The direction of the guide is therefore also a channel of the image.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate, normalize, scaled_dot_product_attention, silu

from adrec.nn.kernels.dropout import dropout
from adrec.nn.time import TimeEmbedding

LEVELS = (1, 2, 2)  # channels of each level, as multiples of the outermost
GROUPS, OF_CHANNELS = 8, 4  # group norm; normalising single channels would remove what timestep and guide add


def image_shape(size: int) -> tuple[int, int]:
    """Return H and W, the factors of ``size`` nearest to its square root, H the smaller one."""
    height = next(each for each in range(math.isqrt(size), 0, -1) if size % each == 0)
    return height, size // height


def normalization(channels: int) -> nn.GroupNorm:
    """Return a group norm of ``channels``, with 8 groups, or fewer so that each has at least 4 channels."""
    groups = math.gcd(GROUPS * OF_CHANNELS, channels) // OF_CHANNELS
    return nn.GroupNorm(max(1, groups), channels)


def convolution(before: int, after: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a convolution of 3 x 3 pixels that keeps the size of the image, or halves it with a ``stride`` of 2."""
    return nn.Conv2d(before, after, 3, stride=stride, padding=1)


class ResidualBlock(nn.Module):
    """Two convolutions with a shortcut; the embedded timestep and guide are added between them."""

    def __init__(self, before: int, after: int, context: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm_1, self.convolution_1 = normalization(before), convolution(before, after)
        self.context = nn.Linear(context, after)
        self.norm_2, self.convolution_2 = normalization(after), convolution(after, after)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, context: Tensor, rng: Generator | None = None) -> Tensor:
        """Transform ``x`` [B, C, h, w], given ``context`` [B, 4 C0]."""
        h = self.convolution_1(silu(self.norm_1(x))) + self.context(silu(context))[:, :, None, None]
        h = dropout(silu(self.norm_2(h)), self.dropout, rng)
        return self.shortcut(x) + self.convolution_2(h)


class PixelAttention(nn.Module):
    """Every pixel attends to every pixel, in one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = normalization(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x`` [B, C, h, w]."""
        pixels = self.norm(x).flatten(2).mT  # [B, h w, C]
        q, k, v = self.query_key_value(pixels).chunk(3, dim=-1)
        return x + self.out(scaled_dot_product_attention(q, k, v)).mT.reshape(x.shape)


class SUNet(nn.Module):
    """Maps M noisy item vectors to M vectors, given their timestep and the items after them.

    Args:
        num_items: M.
        size: D.
        num_timesteps: T.
        channels: C0, the channels of the outermost level.
        dropout: the dropout of the residual blocks.
    """

    def __init__(self, num_items: int, size: int, num_timesteps: int, channels: int, dropout: float) -> None:
        super().__init__()
        context = 4 * channels
        self.shape = image_shape(size)
        self.time = TimeEmbedding(num_timesteps, context)
        self.guide = nn.Sequential(nn.Linear(size, context), nn.SiLU(), nn.Linear(context, context))
        widths = [channels * level for level in LEVELS]
        self.first = convolution(num_items + 1, channels)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for before, after in zip([channels, *widths], widths, strict=False):
            self.down.append(ResidualBlock(before, after, context, dropout))
            self.shrink.append(convolution(after, after, stride=2))
            self.grow.append(convolution(after, after))
            self.up.append(ResidualBlock(2 * after, before, context, dropout))
        inner = widths[-1]
        self.middle_1, self.middle_2 = (ResidualBlock(inner, inner, context, dropout) for _ in range(2))
        self.attention = PixelAttention(inner)
        self.last_norm, self.last = normalization(channels), convolution(channels, num_items)

    @torch.no_grad()
    def initialize(self, rng: Generator) -> None:
        """Draw weights and biases uniformly within 1 / sqrt(inputs), as PyTorch does; norms start as the identity."""
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                assert part.bias is not None
                bound = 1 / math.sqrt(part.weight[0].numel())
                nn.init.uniform_(part.weight, -bound, bound, generator=rng)
                nn.init.uniform_(part.bias, -bound, bound, generator=rng)
            if isinstance(part, nn.GroupNorm):
                part.reset_parameters()

    def forward(self, x: Tensor, t: Tensor, guide: Tensor, rng: Generator | None = None) -> Tensor:
        """Return M vectors, [B, M, D].

        Args:
            x: noisy item vectors, [B, M, D].
            t: their timesteps, int64 [B].
            guide: the sum of the vectors of the items after them, [B, D].
            rng: the generator of dropout; without it there is no dropout.
        """
        context = self.time()[t] + self.guide(guide)  # [B, 4 C0]
        wanted = normalize(guide, dim=-1) * math.sqrt(guide.shape[1])  # [B, D]
        images = torch.cat([x, wanted[:, None]], dim=1)  # [B, M + 1, D]
        h = self.first(images.view(*images.shape[:2], *self.shape))  # [B, C0, H, W]
        skipped = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            h = block(h, context, rng)
            skipped.append(h)
            h = shrink(h)
        h = self.middle_2(self.attention(self.middle_1(h, context, rng)), context, rng)
        for block, grow, skip in zip(reversed(self.up), reversed(self.grow), reversed(skipped), strict=True):
            h = grow(interpolate(h, size=skip.shape[2:], mode="nearest"))
            h = block(torch.cat([h, skip], dim=1), context, rng)
        return self.last(silu(self.last_norm(h))).flatten(2)
