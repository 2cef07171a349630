"""Soft targets: some items after the next one are targets of a token too, with falling weights.

With weights ``q_1, q_2, ..`` of the next items, a token's cross-entropy is ``sum_j q_j`` times that of the next item
plus ``sum_j q_j (logit_1 - logit_j)``, as the softmax has the same denominator for all of them. The weights sum to 1,
unless the interactions have weights of their own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adrec.data.batch import PackedBatch
from adrec.nn.repeats import Repeats


def next_items(batch: PackedBatch, number: int, decay: float) -> tuple[Tensor, Tensor]:
    """Return the next ``number`` items of each token, int64 [N, number], and their weights, [N, number].

    The weights are ``decay ** j`` for j = 0, 1, .., over their sum, times that of the item as a target if the batch has
    weights. Items beyond the end of a sequence have weight 0.
    """
    count = len(batch.targets)
    ends = batch.cu_seqlens[1:].repeat_interleave(batch.cu_seqlens.diff(), output_size=count)  # [N]
    steps = torch.arange(number, device=ends.device)
    ahead = torch.arange(count, device=ends.device)[:, None] + steps  # [N, number]
    weights = torch.where(ahead < ends[:, None], decay**steps, 0.0)
    weights, ahead = weights / weights.sum(1, keepdim=True), ahead.clamp(max=count - 1)
    return batch.targets[ahead], weights if batch.weights is None else weights * batch.weights[ahead]


def token_weights(batch: PackedBatch, number: int, decay: float) -> Tensor | None:
    """Return the weight of each token's cross-entropy, [N]: that of its targets; None if all count the same."""
    if batch.weights is None or number == 1:
        return batch.weights
    return next_items(batch, number, decay)[1].sum(1)


def future_loss(
    x: Tensor,
    item_embedding: Tensor,
    batch: PackedBatch,
    number: int,
    decay: float,
    repeats: Repeats | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Return what soft targets add to the sum of the tokens' cross-entropies, a scalar.

    Args:
        x: the output of each token, [N, D].
        item_embedding: [V + 1, D].
        batch: the tokens.
        number: the number of next items that are targets.
        decay: the weight of each, relative to the one before.
        repeats: the items that each token has seen.
        bias: what is added to their logits: [], or a number for each pair, [P].
    """
    items, weights = next_items(batch, number, decay)
    whole = weights.new_ones(len(items), 1) if batch.weights is None else weights.sum(1, keepdim=True)
    signs = F.pad(whole, (0, number - 1)) - weights  # [N, number]: sum q - q_1, -q_2, ..
    gaps = F.embedding_bag(items, item_embedding, per_sample_weights=signs.to(item_embedding.dtype), mode="sum")
    total = (x.to(gaps.dtype) * gaps).sum()
    if repeats is None or bias is None:
        return total
    pairs = torch.from_numpy(repeats.positions(batch, items.cpu().numpy())).to(items.device, non_blocking=True)
    seen = pairs >= 0
    if bias.dim():
        return total + (signs * seen * bias[pairs.clamp(min=0)]).sum()
    return total + bias * (signs * seen).sum()
