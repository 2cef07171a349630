"""Scalable cross-entropy: each token's softmax is over the items of a bucket near to it.

"Scalable Cross-Entropy Loss for Sequential Recommendations with Large Item Catalogs" (Mezentsev et al., RecSys 2024,
arXiv 2409.18721), algorithm 1 with its mixing. The centres of the buckets are random mixtures of the step's outputs.
A bucket has the tokens and the items with the largest inner products with its centre. In it a token has a softmax over
its target and the bucket's other items; of a token's losses, in all buckets that it is in, the largest counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from adrec.data.spans import spans
from adrec.nn.repeats import Repeats

SCORES = 1 << 22  # of buckets and items, at a time


@dataclass(frozen=True)
class Buckets:
    """How a step is divided into buckets.

    Attributes:
        cover: the tokens of all buckets, as a multiple of the step's tokens; as many buckets as tokens in each.
        items: the number of items of a bucket.
        rng: the generator of the mixtures.
    """

    cover: float
    items: int
    rng: Generator

    @torch.no_grad()
    def divide(self, x: Tensor, embedding: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Return the tokens [n, b] and the item numbers [n, m], ascending, of n buckets, int64; n is at most N.

        Args:
            x: outputs, [N, D].
            embedding: item vectors, [V + 1, D].
            first: the first item number that may be in a bucket.
        """
        count = min(len(x), math.ceil(math.sqrt(self.cover * len(x))))
        mixtures = torch.randn(count, len(x), generator=self.rng, device=x.device).to(x.dtype)
        centres = mixtures @ x  # [n, D]
        tokens = (centres @ x.T).topk(count, dim=1, sorted=False).indices
        candidates = embedding[first:].to(x.dtype).T
        width, at_once = min(self.items, candidates.shape[1]), max(1, SCORES // len(embedding))
        nearest = [
            (some @ candidates).topk(width, dim=1, sorted=False).indices for some in torch.split(centres, at_once)
        ]
        return tokens, (torch.cat(nearest) + first).sort(1).values


def bucket_cross_entropy(
    x: Tensor,
    embedding: Tensor,
    targets: Tensor,
    buckets: Buckets,
    *,
    padding_class: bool = False,
    weights: Tensor | None = None,
    repeat_bias: Tensor | None = None,
    repeats: Repeats | None = None,
) -> Tensor:
    """Return the sum of the tokens' losses, a scalar; the mean of those in buckets stands for the others.

    Args:
        x: outputs, [N, D].
        embedding: item vectors, [V + 1, D].
        targets: the item number of each token's target, int64 [N].
        buckets: how tokens and items are divided.
        padding_class: item 0 may be in a bucket.
        weights: the weight of each token, [N]; None if all count the same.
        repeat_bias: the number added to the logits of ``repeats``, [] or one for each pair, [P].
        repeats: the items seen so far by each token.
    """
    tokens, items = buckets.divide(x, embedding, 0 if padding_class else 1)
    logits = torch.bmm(x[tokens], F.embedding(items, embedding).to(x.dtype).transpose(1, 2)).float()  # [n, b, m]
    positive = (x.float() * F.embedding(targets, embedding).float()).sum(1)  # [N]
    if repeats is not None and repeat_bias is not None:
        at, pairs = _repeated(tokens, items, repeats)
        logits = logits.index_put(at, _of(repeat_bias, pairs), accumulate=True)
        own = (repeats.items == targets[repeats.rows]).nonzero()[:, 0]
        positive = positive.index_add(0, repeats.rows[own], _of(repeat_bias, own))
    logits = logits.masked_fill(items[:, None] == targets[tokens][..., None], torch.finfo(torch.float32).min)
    losses = F.softplus(logits.logsumexp(2) - positive[tokens]).flatten()  # [n b]: log(1 + sum exp(s-) / exp(s+))
    largest = positive.new_full((len(x),), -1.0).scatter_reduce(0, tokens.flatten(), losses, "amax")
    weight = torch.ones_like(positive) if weights is None else weights.float()
    counted = torch.where(largest.detach() >= 0, weight, 0.0)
    total = counted.sum()  # 0 if the weights of all tokens in buckets are: the step then has no loss
    share = torch.where(total > 0, weight.sum() / torch.where(total > 0, total, 1.0), 0.0)
    return (largest * counted).sum() * share


def _of(bias: Tensor, pairs: Tensor) -> Tensor:
    """Return the number for each of some ``pairs`` [p]."""
    return bias.float()[pairs] if bias.dim() else bias.float().expand(len(pairs))


def _repeated(tokens: Tensor, items: Tensor, repeats: Repeats) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Return where buckets have an item that a token of theirs has seen: indices into [n, b, m], and the pairs."""
    places = tokens.cpu().numpy().ravel()  # [n b]
    starts, counts = repeats.starts[places], np.diff(repeats.starts)[places]
    place, pair = (
        torch.from_numpy(each).to(tokens.device, non_blocking=True)
        for each in (np.repeat(np.arange(len(places)), counts), spans(starts, counts))
    )
    bucket = place // tokens.shape[1]
    highest = torch.maximum(items.max(), repeats.items.max()) + 1
    known = (torch.arange(len(items), device=items.device)[:, None] * highest + items).flatten()  # ascending
    wanted = bucket * highest + repeats.items[pair]
    at = torch.searchsorted(known, wanted).clamp_(max=len(known) - 1)
    found = known[at] == wanted
    where = (bucket[found], (place % tokens.shape[1])[found], (at % items.shape[1])[found])
    return where, pair[found]
