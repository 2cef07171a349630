"""DiffuRec, DreamRec and DiffRec re-stated slowly and plainly on left-padded batches: the oracle of their tests.

Nothing is packed and nothing dropped out. ``weights`` are the network's own, by name. An example is a history with its
target, timestep and noise; histories are padded on the left to the longest, and padding is seen by nobody but in
DiffuRec, whose histories are padded to the model's length.

Shapes: B examples, L positions, D hidden size, V items (E has rows 0..V), T timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Denoise = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Example:
    """A history, the item that follows, and the noise of both.

    ``scale`` is that of lambda, [len(history), D], and ``padding_scale`` that of all of its paddings, [D].
    """

    history: list[int]
    target: int
    t: int
    eps: Tensor
    scale: Tensor | None = None
    padding_scale: Tensor | None = None
    condition_kept: bool = True


# --- what the three share -------------------------------------------------------------------------


def padded(histories: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return left-padded item numbers [B, L] and which are real, bool [B, L]."""
    length = max(len(history) for history in histories)
    items = torch.tensor([[0] * (length - len(history)) + history for history in histories])
    return items, items > 0


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def transformer(weights: Weights, name: str, x: Tensor, real: Tensor, heads: int, causal: bool) -> Tensor:
    """Return the output of post-norm blocks, [B, L, D]; padding is not seen."""
    B, L, D = x.shape
    sees = real[:, None, :].expand(B, L, L)  # [B, L, L]: query, key
    if causal:
        sees = sees & torch.ones(L, L, dtype=torch.bool).tril()
    number = 0
    while f"{name}.{number}.expand.weight" in weights:
        block = f"{name}.{number}"
        q, k, v = linear(weights, f"{block}.attention.query_key_value", x).chunk(3, -1)  # [B, L, D] each
        mixed = []
        for head in torch.arange(D).chunk(heads):
            logits = q[..., head] @ k[..., head].transpose(1, 2) / math.sqrt(len(head))  # [B, L, L]
            mixed.append(torch.softmax(logits.masked_fill(~sees, -1e9), -1) @ v[..., head])
        attended = linear(weights, f"{block}.attention.output", torch.cat(mixed, -1))
        x = norm(weights, f"{block}.attention_norm", x + attended, 1e-12)
        inner = F.gelu(linear(weights, f"{block}.expand", x), approximate="tanh")
        x = norm(weights, f"{block}.feed_forward_norm", x + linear(weights, f"{block}.contract", inner), 1e-12)
        number += 1
    return x


def time_embedding(weights: Weights, t: Tensor, T: int) -> Tensor:
    """Return the MLP of sinusoids of 1000 t / T, [B] -> [B, D]."""
    half = weights["time_embedding.expand.weight"].shape[1] // 2
    angles = (t * 1000 / T)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    inner = F.silu(linear(weights, "time_embedding.expand", torch.cat([angles.cos(), angles.sin()], -1)))
    return linear(weights, "time_embedding.contract", inner)


def noised(x0: Tensor, t: Tensor, eps: Tensor, betas: Tensor) -> Tensor:
    """Return x_t of q(x_t given x0), [B, D]."""
    alpha_bar = torch.cumprod(1 - betas, 0)[t][:, None]
    return (alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps).float()


def reverse(denoise: Denoise, betas: Tensor, noise: Callable[[int], Tensor], small: bool = False) -> Tensor:
    """Return x0 [B, D] after all T steps, one at a time; ``small`` adds the posterior's variance."""
    x = noise(len(betas))
    for t in range(len(betas) - 1, -1, -1):
        abar = float(torch.prod(1 - betas[: t + 1]))
        before = float(torch.prod(1 - betas[:t]))
        beta = float(betas[t])
        x0 = denoise(x, t)
        x = (math.sqrt(before) * beta * x0 + math.sqrt(1 - beta) * (1 - before) * x) / (1 - abar)
        if t > 0:
            x = x + math.sqrt(beta * (1 - before) / (1 - abar) if small else beta) * noise(t)
    return x


def stacked(examples: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the targets [B], timesteps [B] and noise [B, D]."""
    return (
        torch.tensor([example.target for example in examples]),
        torch.tensor([example.t for example in examples]),
        torch.stack([example.eps for example in examples]),
    )


# --- DiffuRec -------------------------------------------------------------------------------------


def diffurec_x0(
    weights: Weights, histories: list[list[int]], noisy: Tensor, scales: list[Tensor], delta: float, heads: int
) -> Tensor:
    """Return f(z), [B, D]: z_i = e_i + lambda_i (x + d), lambda_i = delta (1 + its unit noise); last position.

    ``scales`` are those of all L positions, [L, D] each. Real tokens attend to the padding too; padding, whose rows the
    authors' code masks, attends to everything alike.
    """
    L = len(scales[0])
    items = torch.tensor([[0] * (L - len(history)) + history for history in histories])  # [B, L]
    e = norm(weights, "input_norm", weights["item_embedding.weight"][items], 1e-12)  # [B, L, D]
    x = e + delta * (1 + torch.stack(scales)) * noisy[:, None]
    number = 0
    while f"blocks.{number}.expand.weight" in weights:
        block = f"blocks.{number}"
        normed = norm(weights, f"{block}.attention_norm", x, 1e-12)
        q, k, v = linear(weights, f"{block}.attention.query_key_value", normed).chunk(3, -1)  # [B, L, D] each
        mixed = []
        for head in torch.arange(x.shape[-1]).chunk(heads):
            logits = q[..., head] @ k[..., head].transpose(1, 2) / math.sqrt(len(head))  # [B, L, L]
            logits = logits.masked_fill((items == 0)[:, :, None], 0.0)
            mixed.append(torch.softmax(logits, -1) @ v[..., head])
        x = x + linear(weights, f"{block}.attention.output", torch.cat(mixed, -1))
        normed = norm(weights, f"{block}.feed_forward_norm", x, 1e-12)
        inner = F.gelu(linear(weights, f"{block}.expand", normed), approximate="tanh")
        x = x + linear(weights, f"{block}.contract", inner)
        number += 1
    return norm(weights, "output_norm", x, 1e-12)[:, -1]


def with_padding(scale: Tensor, padding: Tensor, L: int) -> Tensor:
    """Return the noise of lambda of all L positions, [L, D]."""
    return torch.cat([padding.expand(L - len(scale), -1), scale])


def diffurec_training(
    weights: Weights, examples: list[Example], betas: Tensor, delta: float, heads: int, L: int
) -> tuple[Tensor, Tensor]:
    """Return x0_hat [B, D] and the mean cross-entropy."""
    targets, t, eps = stacked(examples)
    E = weights["item_embedding.weight"]
    x = noised(E[targets], t, eps, betas)
    scales = []
    for example in examples:
        assert example.scale is not None and example.padding_scale is not None
        scales.append(with_padding(example.scale, example.padding_scale, L))
    noisy = x + time_embedding(weights, t, len(betas))
    x0_hat = diffurec_x0(weights, [example.history for example in examples], noisy, scales, delta, heads)
    return x0_hat, F.cross_entropy(x0_hat @ E[1:].T, targets - 1)


def diffurec_inference(
    weights: Weights,
    histories: list[list[int]],
    betas: Tensor,
    noise: Callable[[int], Tensor],
    delta: float,
    heads: int,
    L: int,
) -> Tensor:
    """Return x0 [B, D]; lambda of the p-th last item of a history is ``noise(T + p)``, of its padding ``T + L + 1``."""
    T = len(betas)
    scales = []
    for user, history in enumerate(histories):
        own = torch.stack([noise(T + len(history) - place)[user] for place in range(len(history))])
        scales.append(with_padding(own, noise(T + L + 1)[user], L))

    def denoise(x: Tensor, t: int) -> Tensor:
        noisy = x + time_embedding(weights, torch.tensor([t]), T)
        return diffurec_x0(weights, histories, noisy, scales, delta, heads)

    return reverse(denoise, betas, noise)


# --- DreamRec -------------------------------------------------------------------------------------


def dreamrec_condition(weights: Weights, histories: list[list[int]], heads: int) -> Tensor:
    """Return c, the encoder's last output of each history, [B, D]; positions count from its first item."""
    items, real = padded(histories)
    places = (real.cumsum(1) - 1).clamp(min=0)  # [B, L]
    h = weights["item_embedding.weight"][items] + weights["positions.weight"][places]
    return transformer(weights, "encoder", norm(weights, "input_norm", h, 1e-5), real, heads, causal=True)[:, -1]


def dreamrec_training(
    weights: Weights, examples: list[Example], betas: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x0_hat, x0, [B, D] each, and the mean squared error."""
    targets, t, eps = stacked(examples)
    c = dreamrec_condition(weights, [example.history for example in examples], heads)
    kept = torch.tensor([example.condition_kept for example in examples])
    c = torch.where(kept[:, None], c, weights["no_condition"])
    x0 = weights["item_embedding.weight"][targets]
    temb = time_embedding(weights, t, len(betas))
    x0_hat = linear(weights, "denoiser", torch.cat([noised(x0, t, eps, betas), c, temb], -1))
    return x0_hat, x0, F.mse_loss(x0_hat, x0)


def dreamrec_inference(
    weights: Weights,
    histories: list[list[int]],
    betas: Tensor,
    noise: Callable[[int], Tensor],
    strength: float,
    heads: int,
) -> Tensor:
    """Return x0 [B, D]: two passes a step, (1 + w) with the condition less w without."""
    c = dreamrec_condition(weights, histories, heads)

    def denoise(x: Tensor, t: int) -> Tensor:
        temb = time_embedding(weights, torch.tensor([t]), len(betas)).expand_as(x)
        guided = linear(weights, "denoiser", torch.cat([x, c, temb], -1))
        free = linear(weights, "denoiser", torch.cat([x, weights["no_condition"].expand_as(x), temb], -1))
        return (1 + strength) * guided - strength * free

    return reverse(denoise, betas, noise, small=True)


# --- DiffRec --------------------------------------------------------------------------------------


def diffrec_x0(weights: Weights, histories: list[list[int]], x: Tensor, n: Tensor, heads: int) -> Tensor:
    """Return the encoder's last output of [history, x], [B, D]: items, positions and step are added."""
    items, real = padded(histories)
    D, L = x.shape[1], items.shape[1] + 1
    h = torch.cat([weights["item_embedding.weight"][items], x[:, None]], 1)  # [B, L, D]
    real = torch.cat([real, torch.ones(len(real), 1, dtype=torch.bool)], 1)
    z = torch.zeros(len(n), D)
    for j in range(D // 2):
        z[:, 2 * j] = torch.sin(n / 10_000 ** (2 * j / D))
        z[:, 2 * j + 1] = torch.cos(n / 10_000 ** (2 * j / D))
    y = weights["positions.weight"][:L].flip(0)  # the target's position is the first row
    return transformer(weights, "blocks", h + y + z[:, None], real, heads, causal=False)[:, -1]


def diffrec_training(
    weights: Weights, examples: list[Example], betas: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x0_hat [B, D], the mean cross-entropy of the item and the mean squared error."""
    targets, t, eps = stacked(examples)
    x0 = weights["item_embedding.weight"][targets]
    x0_hat = diffrec_x0(weights, [example.history for example in examples], noised(x0, t, eps, betas), t.float(), heads)
    logits = linear(weights, "rounding", x0_hat)[:, 1:]
    return x0_hat, F.cross_entropy(logits, targets - 1), F.mse_loss(x0_hat, x0)


def diffrec_inference(
    weights: Weights,
    histories: list[list[int]],
    betas: Tensor,
    noise: Callable[[int], Tensor],
    starts: int,
    heads: int,
) -> Tensor:
    """Return the mean logits [B, V + 1] over the starts."""
    T = len(betas)

    def denoise(x: Tensor, t: int) -> Tensor:
        return diffrec_x0(weights, histories, x, torch.full((len(x),), float(t)), heads)

    each = [reverse(denoise, betas, lambda i, k=k: noise(k * T + i)) for k in range(starts)]  # type: ignore[misc]
    return torch.stack([linear(weights, "rounding", x0) for x0 in each]).mean(0)
