"""Generalised binary cross-entropy against negatives that all tokens share.

"gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative Sampling" (Petrov and Macdonald,
RecSys 2023, arXiv 2308.07192), equations 9 and 12: ``-beta log sigmoid(s+) - sum log(1 - sigmoid(s-))``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from adrec.nn.repeats import Repeats

TOKENS = 256  # at a time: their logits are computed again in the backward pass


def calibration(num_negatives: int, num_items: int, t: float) -> float:
    """Return beta for the share ``alpha`` of the catalogue that is drawn: ``alpha (t (1 - 1 / alpha) + 1 / alpha)``.

    ``t`` = 0 is the plain binary cross-entropy; with 1, scores are calibrated as those of a full softmax.
    """
    alpha = min(1.0, num_negatives / max(num_items - 1, 1))
    return alpha * (t * (1 - 1 / alpha) + 1 / alpha)


def generalised_bce(
    x: Tensor,
    rows: Tensor,
    targets: Tensor,
    times: Tensor,
    beta: float,
    *,
    weights: Tensor | None = None,
    repeat_bias: Tensor | None = None,
    repeats: Repeats | None = None,
) -> Tensor:
    """Return the sum of the tokens' losses, a scalar.

    Args:
        x: outputs, [N, D].
        rows: item vectors, [R, D].
        targets: the row of each token's target, int64 [N].
        times: how often each row counts as a negative of every token but those whose target it is, [R].
        beta: the exponent of a positive's probability.
        weights: the weight of each token, [N]; None if all count the same.
        repeat_bias: the number added to the logits of ``repeats``, [] or one for each pair, [P].
        repeats: the items seen so far by each token, as rows.
    """
    total = x.new_zeros((), dtype=torch.float32)
    for start in range(0, len(x), TOKENS):
        some = slice(start, min(start + TOKENS, len(x)))
        pairs = bias = None
        if repeats is not None and repeat_bias is not None:
            pairs = repeats.part(some.start, some.stop)
            bias = repeat_bias[repeats.pairs(some)] if repeat_bias.dim() else repeat_bias
        weight = None if weights is None else weights[some]
        total = total + checkpoint(
            _losses, x[some], rows, targets[some], times, beta, weight, pairs, bias, use_reentrant=False
        )
    return total


def _losses(
    x: Tensor,
    rows: Tensor,
    targets: Tensor,
    times: Tensor,
    beta: float,
    weights: Tensor | None,
    pairs: tuple[Tensor, Tensor] | None,
    bias: Tensor | None,
) -> Tensor:
    logits = (x @ rows.to(x.dtype).T).float()  # [n, R]
    if pairs is not None and bias is not None:
        logits = logits.index_put(pairs, bias.expand(len(pairs[0])), accumulate=True)
    own = targets[:, None]
    positive = logits.gather(1, own)[:, 0]
    of_all = F.softplus(logits)
    negatives = of_all @ times - of_all.gather(1, own)[:, 0] * times[targets]
    losses = negatives - beta * F.logsigmoid(positive)
    return (losses if weights is None else losses * weights).sum()
