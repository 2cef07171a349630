"""The sequential baselines' papers, re-stated slowly and plainly: the oracle of ``test_sequential``.

Everything works on left-padded batches, as published code does: ``items`` is [B, L], 0 is the padding. There is no
dropout. ``w`` holds weights by our names. Shapes: B users, L positions, D hidden size, V items.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def of(w: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}


def norm(w: Weights, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def attention(w: Weights, x: Tensor, real: Tensor, heads: int, causal: bool) -> Tensor:
    q, k, v = linear(w, "query_key_value", x).chunk(3, dim=-1)
    out = []
    for user in range(len(x)):
        parts = []
        for part in torch.arange(x.shape[-1]).chunk(heads):
            logits = q[user][:, part] @ k[user][:, part].T / math.sqrt(len(part))  # [L, L]
            seen = real[user][None, :].expand_as(logits)
            if causal:
                seen = seen & torch.ones_like(seen).tril()
            seen = seen | torch.eye(len(seen), dtype=torch.bool)  # so that a padding's row is not empty
            parts.append(torch.softmax(logits.masked_fill(~seen, -math.inf), -1) @ v[user][:, part])
        out.append(torch.cat(parts, -1))
    return linear(w, "output", torch.stack(out))


def pre_norm_block(w: Weights, x: Tensor, real: Tensor, heads: int) -> Tensor:
    """SASRec, section III-B: x + g(LayerNorm(x)), the feed-forward of equation 5."""
    x = x + attention(of(w, "attention."), norm(w, "attention_norm", x), real, heads, causal=True)
    inner = linear(w, "expand", norm(w, "feed_forward_norm", x)).clamp(min=0)
    return x + linear(w, "contract", inner)


def ligr_block(w: Weights, x: Tensor, real: Tensor, heads: int) -> Tensor:
    """LiGR: x + sigmoid(x W) * g(LayerNorm(x)), with SwiGLU."""
    attended = attention(of(w, "attention."), norm(w, "attention_norm", x), real, heads, causal=True)
    x = x + torch.sigmoid(linear(w, "attention_gate", x)) * attended
    one, three = linear(w, "expand", norm(w, "feed_forward_norm", x)).chunk(2, -1)
    fed = linear(w, "contract", one * torch.sigmoid(one) * three)
    return x + torch.sigmoid(linear(w, "feed_forward_gate", x)) * fed


def post_norm_block(w: Weights, x: Tensor, real: Tensor, heads: int) -> Tensor:
    """BERT4Rec, equations 4 to 6: LayerNorm(x + g(x))."""
    x = norm(w, "attention_norm", x + attention(of(w, "attention."), x, real, heads, causal=False), 1e-12)
    inner = F.gelu(linear(w, "expand", x), approximate="tanh")
    return norm(w, "feed_forward_norm", x + linear(w, "contract", inner), 1e-12)


def causal_transformer(w: Weights, items: Tensor, heads: int, ligr: bool) -> Tensor:
    """SASRec's outputs, [B, L, D]; with ``ligr`` eSASRec's."""
    E = w["item_embedding.weight"]
    x = math.sqrt(E.shape[1]) * E[items] + w["positions.vectors.weight"]  # place by place, [B, L, D]
    block = ligr_block if ligr else pre_norm_block
    for number in range(blocks_of(w)):
        x = block(of(w, f"blocks.{number}."), x, items > 0, heads)
    return x if ligr else norm(w, "norm", x)


def bert(w: Weights, items: Tensor, heads: int) -> Tensor:
    """BERT4Rec's logits for every item number, [B, L + 1, V + 1] (equation 7)."""
    x = norm(w, "norm", w["item_embedding.weight"][items] + w["positions.vectors.weight"], 1e-12)
    for number in range(blocks_of(w)):
        x = post_norm_block(of(w, f"blocks.{number}."), x, items > 0, heads)
    query = F.gelu(linear(w, "head", x), approximate="tanh")
    return query @ w["item_embedding.weight"][:-1].T + w["item_bias"]


def gru(w: Weights, items: Tensor) -> Tensor:
    """GRU4Rec's states, [B, L, D]: one user and one step at a time, padding left out."""
    out = torch.zeros(*items.shape, w["item_embedding.weight"].shape[1])
    for user, sequence in enumerate(items):
        inputs = {place: w["item_embedding.weight"][int(item)] for place, item in enumerate(sequence) if item > 0}
        layer = 0
        while f"layers.{layer}.weight_ih_l0" in w:
            inputs = recurrent(of(w, f"layers.{layer}."), inputs)
            layer += 1
        for place, state in inputs.items():
            out[user, place] = state
    return out


def recurrent(w: Weights, inputs: dict[int, Tensor]) -> dict[int, Tensor]:
    """Cho et al. 2014, as PyTorch states it: reset, update, candidate."""
    states, h = {}, torch.zeros(w["weight_hh_l0"].shape[1])
    for place, x in inputs.items():
        r_x, z_x, n_x = (w["weight_ih_l0"] @ x + w["bias_ih_l0"]).chunk(3)
        r_h, z_h, n_h = (w["weight_hh_l0"] @ h + w["bias_hh_l0"]).chunk(3)
        z = torch.sigmoid(z_x + z_h)
        h = (1 - z) * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h) + z * h
        states[place] = h
    return states


def blocks_of(w: Weights) -> int:
    return 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))


def full_cross_entropy(w: Weights, outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over real targets of the cross-entropy among items 1 to V."""
    logits = outputs[targets > 0] @ w["item_embedding.weight"][1:].T
    return F.cross_entropy(logits, targets[targets > 0] - 1)


def sampled(w: Weights, outputs: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of the real targets, [N], and of their negatives, [N, k]; ``negatives`` is [B, L, k]."""
    E, real = w["item_embedding.weight"], targets > 0
    positive = (outputs[real] * E[targets[real]]).sum(-1)
    return positive, (outputs[real][:, None] * E[negatives[real]]).sum(-1)


def sasrec_loss(w: Weights, outputs: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """SASRec, equation 7."""
    positive, negative = sampled(w, outputs, targets, negatives)
    return -(torch.sigmoid(positive).log() + (1 - torch.sigmoid(negative)).log().sum(-1)).mean()


def gsasrec_loss(w: Weights, outputs: Tensor, targets: Tensor, negatives: Tensor, t: float) -> Tensor:
    """gBCE, with beta from t; alpha is k of the V - 1 items that are no target. Scores have our constant added."""
    positive, negative = sampled(w, outputs, targets, negatives)
    k, num_items = negatives.shape[-1], len(w["item_embedding.weight"]) - 1
    alpha = k / (num_items - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    positive, negative = positive + math.log(beta / k), negative + math.log(beta / k)
    log_p = (torch.sigmoid(positive) ** beta).log()
    return -((log_p + (1 - torch.sigmoid(negative)).log().sum(-1)) / (k + 1)).mean()


def esasrec_loss(w: Weights, outputs: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Softmax over the target and its negatives."""
    positive, negative = sampled(w, outputs, targets, negatives)
    return -torch.softmax(torch.cat([positive[:, None], negative], 1), 1)[:, 0].log().mean()
