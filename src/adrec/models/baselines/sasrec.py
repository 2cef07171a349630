"""SASRec (Kang and McAuley 2018), and SASRec+: the same network with full cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Generator, Tensor

from adrec.config.base import OneStageConfig
from adrec.config.stage import StageConfig, TransformerConfig
from adrec.data.batch import PackedBatch
from adrec.models.baselines.negatives import Negatives, binary_cross_entropy, draw_unseen, target_and_negatives
from adrec.models.baselines.stage import STAGE
from adrec.models.baselines.transformer import CausalTransformer
from adrec.models.network import NetworkModel
from adrec.nn.biased import RepeatBiased
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.losses import Objective
from adrec.nn.repeats import Repeats


@dataclass(frozen=True)
class SASRecNetworkConfig(TransformerConfig):
    """SASRec's network: two blocks of one head, dropout 0.5 as for all the paper's data except MovieLens (0.2)."""

    num_heads: int = 1
    embedding_dropout: float = 0.5
    dropout: float = 0.5


@dataclass(frozen=True)
class SASRecConfig(OneStageConfig):
    """SASRec's configuration.

    Attributes:
        model: the network.
    """

    model: SASRecNetworkConfig = field(default_factory=SASRecNetworkConfig)
    train: StageConfig = STAGE


class SASRecNetwork(CausalTransformer):
    """SASRec's network with binary cross-entropy: each target against one item not in its user's sequence."""

    weighs_events = True

    def draw(self, batch: PackedBatch, rng: Generator) -> Negatives:
        """Draw a negative for each token from the items that are not in its user's sequence (section III-E)."""
        return draw_unseen(batch, self.num_items, rng)

    def losses(self, outputs: Tensor, batch: PackedBatch, draws: Negatives, objective: Objective) -> dict[str, Tensor]:
        """Return the mean over tokens of equation 7."""
        x = objective.query(outputs)
        scores = target_and_negatives(x, self.item_embedding.weight, batch.targets, draws)  # [N, 2]
        return {"bce": objective.mean(binary_cross_entropy(scores), batch)}


class SASRec(NetworkModel):
    """SASRec as published."""

    name = "sasrec"
    paper = "Kang and McAuley: Self-Attentive Sequential Recommendation (ICDM 2018)"
    Config = SASRecConfig
    networks = MappingProxyType({"network": SASRecNetwork})


@dataclass(frozen=True)
class SASRecPlusNetworkConfig(TransformerConfig):
    """SASRec+'s network: two blocks of one head, dropout 0.1 (the published code's settings).

    Attributes:
        repeat_bias: whether a learned bias is added to the logits of the history's items; the published model has none.
    """

    num_heads: int = 1
    embedding_dropout: float = 0.1
    repeat_bias: bool = False


@dataclass(frozen=True)
class SASRecPlusConfig(OneStageConfig):
    """SASRec+'s configuration.

    Attributes:
        model: the network.
    """

    model: SASRecPlusNetworkConfig = field(default_factory=SASRecPlusNetworkConfig)
    train: StageConfig = STAGE


class SASRecPlusNetwork(RepeatBiased, CausalTransformer):
    """SASRec's network with cross-entropy against the whole catalogue (section 3.2)."""

    weighs_events = True

    def losses(self, outputs: Tensor, batch: PackedBatch, draws: None, objective: Objective) -> dict[str, Tensor]:
        """Return the full cross-entropy."""
        x, embedding = objective.query(outputs), self.item_embedding.weight
        loss = cross_entropy(
            x,
            embedding,
            batch.targets,
            padding_class=False,
            total=objective.total_weight,
            weights=batch.weights,
            repeat_bias=self.repeat_bias,
            repeats=Repeats.of_tokens(batch) if self.config.repeat_bias else None,
        )
        return {"ce": loss}


class SASRecPlus(NetworkModel):
    """SASRec trained like BERT4Rec, with the whole catalogue as classes."""

    name = "sasrec+"
    paper = "Klenitskiy and Vasilev: Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec? (RecSys 2023)"
    Config = SASRecPlusConfig
    networks = MappingProxyType({"network": SASRecPlusNetwork})
