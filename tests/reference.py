"""The published ADRec and its stage-1 SASRec, re-stated slowly and plainly: the oracle of our tests.

Everything here works on left-padded batches, as the published code does: `history` and `target` are `[B, L]`
item numbers and item 0 is the padding. There is no dropout and no packing; attention goes one user and one
head at a time, sampling one step at a time. It follows the design's section 2 (the model). Where that text
leaves something open, or differs, a comment says "fitted": the published vectors (`tests/vectors`) decided.

`weights` is a dict of tensors keyed by the published module names, `settings` the JSON object of the vectors.
The dtype of the weights is the dtype of the result, so a test can also ask for float64.

Shapes: B users, L positions, D hidden size, V items (E has rows 0..V), T diffusion steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Settings = dict[str, Any]

HEADS = 4
BLOCKS = 2
INPUT_EPS = 1e-12  # LayerNorm of ADRec's input
BLOCK_EPS = 1e-12  # LayerNorms inside the blocks, also in stage 1; fitted: 1e-6 is already visibly too large
DECODER_EPS = 1e-5  # LayerNorm at the end of the MLP decoder; fitted
STAGE1_INPUT_EPS = 1e-5  # LayerNorm of stage 1's input


# --- noise schedules ------------------------------------------------------------------------------


def betas(schedule: str, T: int, *, a: float = 0.3, b: float = 10.0) -> Tensor:
    """Return the variance of the noise that each of the T forward steps adds, float64 `[T]`.

    The vectors check `trunc_lin` and `cosine`; the others are the definitions common to Diffusion-LM and
    DiffuRec, and `beta` (with parameters `a`, `b`) is the one that ADRec's authors plot in their notebook.
    """
    s = 1000 / T  # the schedules were drawn up for 1000 steps: with fewer, each must add more noise
    if schedule == "trunc_lin":
        last = s * 0.02 + 0.01
        if last > 1:
            last = s * 0.001 + 0.01
        result = _line(s * 0.0001 + 0.01, last, T)
    elif schedule == "linear":
        result = _line(s * 0.0001, s * 0.02, T)
    elif schedule == "pw_lin":  # ten steps down, the others up from where those ended
        if T <= 10:
            raise ValueError("pw_lin needs more than 10 steps")
        result = torch.cat([_line(s * 0.0001 + 0.01, s * 0.0001, 10), _line(s * 0.0001, s * 0.02, T - 10)])
    elif schedule == "cosine":
        result = _from_alpha_bar(lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, T)
    elif schedule == "sqrt":
        result = _from_alpha_bar(lambda u: 1 - math.sqrt(u + 0.0001), T)
    elif schedule == "trunc_cos":  # the first step takes the signal from 1 to alpha_bar(0); one step fewer follows

        def alpha_bar(u: float) -> float:
            return math.cos((u + 0.1) / 1.1 * math.pi / 2) ** 2

        first = torch.tensor([1 - alpha_bar(0)], dtype=torch.float64)
        result = torch.cat([first, _from_alpha_bar(alpha_bar, T)[:-1]])
    elif schedule == "beta":  # alpha_bar(k/T) is the quantile 1 - k/T of Beta(a, b): from 1 down to 0, no cap
        level = [_beta_quantile(1 - k / T, a, b) for k in range(T + 1)]
        result = torch.tensor([1 - level[k + 1] / level[k] for k in range(T)], dtype=torch.float64)
    else:
        raise ValueError(f"unknown schedule: {schedule}")
    if not ((result > 0).all() and (result <= 1).all()):
        raise ValueError(f"{schedule} with {T} steps leaves (0, 1]")
    return result


def _line(first: float, last: float, steps: int) -> Tensor:
    return torch.linspace(first, last, steps, dtype=torch.float64)


def _from_alpha_bar(alpha_bar: Callable[[float], float], T: int) -> Tensor:
    """Return the betas of a signal level `alpha_bar(u)`, u from 0 to 1, each at most 0.999."""
    steps = [min(1 - alpha_bar((k + 1) / T) / alpha_bar(k / T), 0.999) for k in range(T)]
    return torch.tensor(steps, dtype=torch.float64)


def _beta_cdf(x: float, a: float, b: float) -> float:
    """Return P(X <= x) for X ~ Beta(a, b), by integrating the power series of its density."""
    if x > 0.5:
        return 1 - _beta_cdf(1 - x, b, a)
    total, coefficient = 0.0, 1.0  # (1 - x)^(b-1) = sum over n of coefficient_n x^n
    for n in range(200):
        total += coefficient * x**n / (a + n)
        coefficient *= (n + 1 - b) / (n + 1)
    return x**a * total * math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))


def _beta_quantile(p: float, a: float, b: float) -> float:
    """Return the x with P(X <= x) = p, by bisection."""
    if p in (0, 1):
        return float(p)
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if _beta_cdf(middle, a, b) < p:
            low = middle
        else:
            high = middle
    return high


def alpha_bars(beta: Tensor) -> Tensor:
    """Return the share of the signal's variance left after each step, float64 `[T]`."""
    return torch.cumprod(1 - beta, dim=0)


def posterior_coefficients(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return q(x_{i-1} | x_i, x0) for every i: mean = coef1 x0 + coef2 x_i, and its variance, each `[T]`."""
    bar = alpha_bars(beta)  # [T]
    before = torch.cat([torch.ones(1, dtype=beta.dtype), bar[:-1]])  # [T]
    coef1 = beta * before.sqrt() / (1 - bar)
    coef2 = (1 - before) * (1 - beta).sqrt() / (1 - bar)
    variance = beta * (1 - before) / (1 - bar)
    return coef1, coef2, variance


# --- layers ---------------------------------------------------------------------------------------


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def layer_norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def embed(weights: Weights, items: Tensor) -> Tensor:
    """Look items up in E; the padding's row takes part but gets no gradient from being looked up."""
    rows = weights["item_embedding.weight"][items]  # [..., D]
    return torch.where((items == 0)[..., None], rows.detach(), rows)


def attention(weights: Weights, name: str, x: Tensor, real: Tensor, causal: bool) -> Tensor:
    """Attend with real queries to every key, padding included; `real` is `[B, L]`.

    Padding queries attend evenly, fitted: to all positions, or with causal attention to themselves and those
    before (padding too, and equal, so there any other preference would give the same).
    """
    B, L, D = x.shape
    width = D // HEADS
    query, key, value = (linear(weights, f"{name}.linear_layers.{i}", x) for i in range(3))  # each [B, L, D]
    future = torch.ones(L, L, dtype=torch.bool).triu(1)  # [L, L]
    users = []
    for user in range(B):
        heads = []
        for head in range(HEADS):
            columns = slice(head * width, (head + 1) * width)
            q, k, v = (m[user, :, columns] for m in (query, key, value))  # each [L, D / HEADS]
            logits = q @ k.T / math.sqrt(width)  # [L, L], row = query
            logits = torch.where(real[user][:, None], logits, 0.0)  # [L, L]
            if causal:
                logits = logits.masked_fill(future, -math.inf)  # [L, L]
            heads.append(logits.softmax(-1) @ v)  # [L, D / HEADS]
        users.append(torch.cat(heads, dim=-1))  # [L, D]
    return linear(weights, f"{name}.w_layer", torch.stack(users))  # [B, L, D]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def blocks(weights: Weights, name: str, x: Tensor, real: Tensor, causal: bool) -> Tensor:
    """Run the transformer blocks, each with its LayerNorms after the residual sums."""
    for i in range(BLOCKS):
        block = f"{name}.transformer_blocks.{i}"
        x = x + attention(weights, f"{block}.attention", x, real, causal)  # [B, L, D]
        x = layer_norm(weights, f"{block}.input_sublayer.norm", x, BLOCK_EPS)  # [B, L, D]
        wide = gelu(linear(weights, f"{block}.feed_forward.w_1", x))  # [B, L, 4D]
        x = x + linear(weights, f"{block}.feed_forward.w_2", wide)  # [B, L, D]
        x = layer_norm(weights, f"{block}.output_sublayer.norm", x, BLOCK_EPS)  # [B, L, D]
    return x


def time_embedding(weights: Weights, t: Tensor, settings: Settings) -> Tensor:
    """Return temb(t), `[..., D]`, for whole diffusion steps t."""
    first = weights["diffu.net.time_embed.0.weight"]  # [4D, D]
    half = first.shape[1] // 2
    time = t.to(first.dtype)  # [...]
    if settings.get("rescale_timesteps", True):
        time = time * (1000 / settings["diffusion_steps"])
    frequency = torch.exp(-math.log(10000) * torch.arange(half, dtype=first.dtype) / half)  # [D / 2]
    angle = time[..., None] * frequency  # [..., D / 2]
    wave = torch.cat([angle.cos(), angle.sin()], dim=-1)  # [..., D]
    return linear(weights, "diffu.net.time_embed.2", F.silu(linear(weights, "diffu.net.time_embed.0", wave)))


# --- ADRec ----------------------------------------------------------------------------------------


def cam(weights: Weights, history: Tensor, settings: Settings) -> Tensor:
    """Return c, what the causal attention module makes of the history, `[B, L, D]`."""
    h = layer_norm(weights, "hist_norm", embed(weights, history), INPUT_EPS)  # [B, L, D]
    return blocks(weights, "diffu.ag_encoder", h, history > 0, settings.get("is_causal", True))


def adm(
    weights: Weights,
    c: Tensor,
    x: Tensor,
    t: Tensor,
    real: Tensor,
    settings: Settings,
) -> Tensor:
    """Predict x0 from the condition c and the noisy x `[B, L, D]` at times t `[B, L]`."""
    z = c + settings["lambda_uncertainty"] * (x + time_embedding(weights, t, settings))  # [B, L, D]
    if settings["dif_decoder"] == "att":
        return blocks(weights, "diffu.net.decoder", z, real, settings.get("is_causal", True))
    wide = F.silu(linear(weights, "diffu.net.decoder.0", z))  # [B, L, 4D]
    return layer_norm(weights, "diffu.net.decoder.3", linear(weights, "diffu.net.decoder.2", wide), DECODER_EPS)


def clean_targets(weights: Weights, target: Tensor, settings: Settings) -> Tensor:
    """Return x0 = E[target], `[B, L, D]`; geodesic ones, padding included, lie on the unit sphere."""
    x0 = embed(weights, target)
    return F.normalize(x0, dim=-1) if settings.get("geodesic", False) else x0


def train_forward(
    weights: Weights,
    history: Tensor,
    target: Tensor,
    noise: Tensor,
    t: Tensor,
    settings: Settings,
    condition_kept: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (CAM's output, the predicted x0), both `[B, L, D]`.

    `t` has one step per token (`[B, L]` or flat), or with sequence-level noise one per user (`[B]`).
    `condition_kept` `[B]`: the others are predicted with c = 0, padding included; CAM's output is whole.
    """
    B, L = history.shape
    real = history > 0  # [B, L]
    if settings.get("independent", True):
        t = torch.where(real, t.reshape(B, L), 0)  # [B, L]; fitted: the padding's time is 0
    else:
        t = t.reshape(B, 1).expand(B, L)  # [B, L]; fitted: the padding's time is the user's
    x0 = clean_targets(weights, target, settings)  # [B, L, D]
    bar = alpha_bars(betas(settings["noise_schedule"], settings["diffusion_steps"]))[t][..., None]  # [B, L, 1]
    x_t = bar.sqrt().to(x0.dtype) * x0 + (1 - bar).sqrt().to(x0.dtype) * noise  # [B, L, D]
    if settings.get("geodesic", False):
        length = x_t.norm(dim=-1, keepdim=True)  # [B, L, 1]
        x_t = length.cos() * x0 + length.sin() * F.normalize(x_t, dim=-1)  # [B, L, D]
    x_t = torch.where(real[..., None], x_t, x0)  # [B, L, D]; fitted: the padding stays clean, E[0]

    cam_output = cam(weights, history, settings)  # [B, L, D]
    c = cam_output
    if condition_kept is not None:
        c = torch.where(condition_kept[:, None, None], c, torch.zeros_like(c))  # [B, L, D]
    return cam_output, adm(weights, c, x_t, t, real, settings)


def cross_entropy(weights: Weights, output: Tensor, target: Tensor) -> Tensor:
    """Return the mean over the batch's real tokens of -log P(target), among all V + 1 rows of E."""
    total, tokens = output.new_zeros(()), 0
    for user_output, user_target in zip(output, target, strict=True):
        real = user_target > 0  # [L]
        log_probability = scores(weights, user_output[real]).log_softmax(-1)  # [n, V + 1]
        total = total - log_probability.gather(1, user_target[real][:, None]).sum()
        tokens += int(real.sum())
    return total / tokens


def losses(weights: Weights, x0_hat: Tensor, target: Tensor, settings: Settings | None = None) -> tuple[Tensor, Tensor]:
    """Return (CE, MSE). Geodesic settings compare with the normalised x0, so they must be given.

    MSE, fitted: the mean over D too (not the sum), of each user's mean over its real tokens, then over users.
    """
    x0 = clean_targets(weights, target, settings or {})  # [B, L, D]
    per_user = []
    for user in range(len(target)):
        real = target[user] > 0  # [L]
        per_user.append(((x0_hat[user] - x0[user]) ** 2)[real].mean())
    return cross_entropy(weights, x0_hat, target), torch.stack(per_user).mean()


def infer(
    weights: Weights,
    history: Tensor,
    targets_of_history: Tensor,
    init_noise: Tensor,
    step_noise: Tensor,
    settings: Settings,
) -> Tensor:
    """Sample the last token's x0, `[B, D]`.

    `targets_of_history` `[B, L]` is the history shifted by one, but 0 at padding (fitted: a user's first item
    is nobody's target); its last column is not read. `init_noise` is `[B, L, D]`, `step_noise` `[T, B, L, D]`
    in the order of sampling: `step_noise[0]` belongs to step T - 1. Of both only the last position is read.
    """
    B, L = history.shape
    T = settings["diffusion_steps"]
    geodesic = settings.get("geodesic", False)
    scale = settings.get("cfg_scale", 1)
    beta = betas(settings["noise_schedule"], T)  # [T]
    coef1, coef2, _ = posterior_coefficients(beta)  # each [T]
    real = history > 0  # [B, L]
    c = cam(weights, history, settings)  # [B, L, D]
    known = clean_targets(weights, targets_of_history[:, :-1], settings)  # [B, L - 1, D]
    x = init_noise[:, -1]  # [B, D]; fitted: not normalised, even if geodesic
    for i in reversed(range(T)):
        noisy = torch.cat([known, x[:, None]], dim=1)  # [B, L, D]
        t = torch.zeros(B, L, dtype=torch.long)  # [B, L]; history and padding at 0, also if noise is per sequence
        t[:, -1] = i
        x0_hat = adm(weights, c, noisy, t, real, settings)[:, -1]  # [B, D]
        if scale != 1:
            free = adm(weights, torch.zeros_like(c), noisy, t, real, settings)[:, -1]  # [B, D]
            x0_hat = free + scale * (x0_hat - free)  # [B, D]
        x = float(coef1[i]) * x0_hat + float(coef2[i]) * x  # [B, D]
        if i > 0:
            x = x + math.sqrt(float(beta[i])) * step_noise[T - 1 - i][:, -1]  # [B, D]
        if geodesic:
            x = F.normalize(x, dim=-1)  # [B, D]
    return x


def scores(weights: Weights, x: Tensor) -> Tensor:
    """Return the inner product of x `[..., D]` with every row of E, padding included, `[..., V + 1]`."""
    return x @ weights["item_embedding.weight"].T


# --- stage 1 --------------------------------------------------------------------------------------


def stage1_forward(weights: Weights, history: Tensor) -> Tensor:
    """Return the pre-training SASRec's output, `[B, L, D]`; its position embedding is never used."""
    h = layer_norm(weights, "LayerNorm", embed(weights, history), STAGE1_INPUT_EPS)  # [B, L, D]
    return blocks(weights, "trm_encoder", h, history > 0, causal=True)


def stage1_loss(weights: Weights, output: Tensor, target: Tensor) -> Tensor:
    """Return the CE of every real token's next item, over all V + 1 rows."""
    return cross_entropy(weights, output, target)


# --- one training step ----------------------------------------------------------------------------


def gradients(loss: Tensor, weights: Weights) -> dict[str, Tensor | None]:
    """Return the gradient for every weight, None where the loss does not reach."""
    found = torch.autograd.grad(loss, list(weights.values()), retain_graph=True, allow_unused=True)
    return dict(zip(weights, found, strict=True))


def combine(
    ce: dict[str, Tensor | None], mse: dict[str, Tensor | None], pcgrad: bool = False
) -> dict[str, Tensor | None]:
    """Average the two losses' gradients, after PCGrad has taken out their conflict if asked.

    PCGrad sees each loss's gradient as one long vector over all weights. If the inner product of the two is
    negative, each loses its projection on the other's original. A weight that only one loss reaches gets the
    sum.
    """
    zeros = {name: torch.zeros_like(g) for grads in (ce, mse) for name, g in grads.items() if g is not None}
    one = {name: zeros[name] if ce[name] is None else ce[name] for name in zeros}
    two = {name: zeros[name] if mse[name] is None else mse[name] for name in zeros}
    off_one = off_two = 0.0  # how much of the other's gradient each loses
    if pcgrad:
        inner = sum(float((one[name] * two[name]).sum()) for name in zeros)
        if inner < 0:
            off_one = inner / sum(float((g**2).sum()) for g in two.values())
            off_two = inner / sum(float((g**2).sum()) for g in one.values())
    result: dict[str, Tensor | None] = dict.fromkeys(ce)
    for name in zeros:
        total = (one[name] - off_one * two[name]) + (two[name] - off_two * one[name])
        result[name] = total if ce[name] is None or mse[name] is None else total / 2
    return result


def adam_step(
    weights: Weights,
    grads: dict[str, Tensor | None],
    state: dict[str, tuple[int, Tensor, Tensor]],
    lr: float = 1e-3,
    l2: float = 1e-5,
) -> Weights:
    """Return the weights after one Adam step; `state` (start it empty) is updated in place.

    L2 is added to the gradient before the moments, so a weight with a zero gradient still moves by about `lr`
    towards 0: that is the published "frozen" embedding. One without a gradient (None) stays.
    """
    moved = {}
    for name, weight in weights.items():
        grad = grads[name]
        if grad is None:
            moved[name] = weight
            continue
        grad = grad + l2 * weight.detach()
        step, mean, square = state.get(name, (0, torch.zeros_like(grad), torch.zeros_like(grad)))
        step, mean, square = step + 1, 0.9 * mean + 0.1 * grad, 0.999 * square + 0.001 * grad**2
        state[name] = (step, mean, square)
        size = (square / (1 - 0.999**step)).sqrt() + 1e-8
        moved[name] = weight.detach() - lr * (mean / (1 - 0.9**step)) / size
    return moved
