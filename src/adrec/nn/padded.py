"""The shared base of ADRec and its pre-training network: the published code's padding, and the cross-entropy."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from adrec.config.stage import PaddedConfig
from adrec.data.batch import PackedBatch
from adrec.nn.biased import RepeatBiased
from adrec.nn.future import future_loss, token_weights
from adrec.nn.kernels.buckets import bucket_cross_entropy
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.kernels.gbce import generalised_bce
from adrec.nn.kernels.layout import Layout
from adrec.nn.kernels.sharded import sharded_cross_entropy
from adrec.nn.losses import Objective
from adrec.nn.repeats import Repeats


class PaddedNetwork(RepeatBiased):
    """Base of ADRec and its pre-training network, with the padding of the published code."""

    config: PaddedConfig
    weighs_events = True
    trains_in_ranks = True

    def __init__(self, config: PaddedConfig, num_items: int) -> None:
        # If the padding row is a class of the softmax, only the softmax trains it, as in the published code: with
        # padding_idx, its input receives no gradient. Otherwise it is trained as the input of the sink. With neither,
        # Adam's L2 term would shrink it until the input norm divides by almost nothing.
        super().__init__(config, num_items, padding_idx=0 if config.padding_class else None)
        self.attends_padding, self.ranks_padding = config.attend_padding, config.padding_class

    def embed(self, batch: PackedBatch, plan: Layout) -> Tensor:
        """Return the embedded items of all rows, [rows, D]."""
        return self.item_embedding(plan.with_sinks(batch.items, batch.items.new_zeros(())))

    def _negative_sampling(
        self,
        query: Tensor,
        targets: Tensor,
        objective: Objective,
        weights: Tensor | None,
        bias: Tensor | None,
        repeats: Repeats | None,
    ) -> Tensor:
        """Return the sum of the tokens' generalised binary cross-entropies against the drawn rows."""
        assert objective.rows is not None and objective.beta is not None
        times = objective.rows.drawn.clone()
        times[0] = float(self.config.padding_class)  # ranked, so it is a negative of every token
        return generalised_bce(
            query,
            self.item_embedding.weight,
            targets,
            times,
            objective.beta,
            weights=weights,
            repeat_bias=bias,
            repeats=repeats,
        )

    def scores(self, x: Tensor) -> Tensor:
        """Return the inner products of ``x`` [.., D] with every item, [.., V + 1]; column 0 is padding."""
        return x @ self.item_embedding.weight.T

    def item_cross_entropy(self, x: Tensor, batch: PackedBatch, objective: Objective) -> Tensor:
        """Return the cross-entropy of every token's output, [N, D]; for two passes, with their divergence.

        It is over the catalogue, or over the classes of a sampled softmax, and with soft targets if so configured.
        """
        query, embedding, classes = objective.query(x), self.item_embedding.weight, objective.classes
        repeats = Repeats.of_tokens(batch) if self.config.repeat_bias else None
        bias = self.repeat_logits(x, repeats)
        later, window = x.new_zeros(()), (objective.future_items, objective.future_decay)
        if objective.future_items > 1:
            later = future_loss(x, embedding, batch, *window, repeats, bias) / objective.total_weight
        targets, padding_class, offsets = batch.targets, self.config.padding_class, None
        weights = token_weights(batch, *window)
        if objective.shard is not None:
            own = sharded_cross_entropy(
                query,
                objective.shard,
                weights,
                padding_class=padding_class,
                consistency=objective.consistency,
                repeat_bias=bias,
            )
            return later + own / objective.total_weight
        if objective.buckets is not None:
            own = bucket_cross_entropy(
                query,
                embedding,
                targets,
                objective.buckets,
                padding_class=padding_class,
                weights=weights,
                repeat_bias=bias,
                repeats=repeats,
            )
            return later + own / objective.total_weight
        if objective.rows is not None:
            if objective.beta is not None:
                own = self._negative_sampling(query, batch.targets, objective, weights, bias, repeats)
                return later + own / objective.total_weight
            offsets = objective.rows.offsets[0 if padding_class else 1 :]
        if classes is not None:
            repeats = repeats and replace(repeats, items=classes.indices(repeats.items))
            embedding, targets = embedding.index_select(0, classes.items), classes.indices(targets)
            padding_class, offsets = True, classes.offsets
        return later + cross_entropy(
            query,
            embedding,
            targets,
            padding_class=padding_class,
            total=objective.total_weight,
            weights=weights,
            consistency=objective.consistency,
            repeat_bias=bias,
            repeats=repeats,
            offsets=offsets,
        )
