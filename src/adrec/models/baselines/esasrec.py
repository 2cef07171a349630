"""eSASRec (Tikhonovich et al. 2025): SASRec with the blocks of LiGR and a sampled softmax."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Generator, Tensor

from adrec.config.base import OneStageConfig
from adrec.config.parsing import require
from adrec.config.stage import StageConfig, TransformerConfig
from adrec.data.batch import PackedBatch
from adrec.models.baselines.blocks import LiGRBlock
from adrec.models.baselines.negatives import Negatives, draw_others, sampled_softmax, target_and_negatives
from adrec.models.baselines.stage import STAGE
from adrec.models.baselines.transformer import CausalTransformer
from adrec.models.network import NetworkModel
from adrec.nn.losses import Objective


@dataclass(frozen=True)
class ESASRecNetworkConfig(TransformerConfig):
    """eSASRec's network and loss; the defaults are the published ones for Amazon Beauty.

    Attributes:
        num_negatives: k, the number of negatives of each target.
    """

    num_blocks: int = 1
    num_heads: int = 1
    embedding_dropout: float = 0.2
    dropout: float = 0.2
    num_negatives: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_negatives >= 1, f"model.num_negatives must be at least 1; it is {self.num_negatives}.")


@dataclass(frozen=True)
class ESASRecConfig(OneStageConfig):
    """eSASRec's configuration.

    Attributes:
        model: the network.
    """

    model: ESASRecNetworkConfig = field(default_factory=ESASRecNetworkConfig)
    train: StageConfig = STAGE


class ESASRecNetwork(CausalTransformer):
    """SASRec's network with LiGR's blocks, no final norm, and a softmax over each target and k negatives."""

    block = LiGRBlock
    normalizes_outputs = False
    weighs_events = True
    config: ESASRecNetworkConfig

    def draw(self, batch: PackedBatch, rng: Generator) -> Negatives:
        """Draw k negatives for each token, uniformly, as the published code does."""
        return draw_others(batch.targets, self.config.num_negatives, self.num_items, rng)

    def losses(self, outputs: Tensor, batch: PackedBatch, draws: Negatives, objective: Objective) -> dict[str, Tensor]:
        """Return the sampled softmax's cross-entropy, the mean over tokens."""
        x = objective.query(outputs)
        scores = target_and_negatives(x, self.item_embedding.weight, batch.targets, draws)  # [N, 1 + k]
        return {"ce": objective.mean(sampled_softmax(scores), batch)}


class ESASRec(NetworkModel):
    """eSASRec."""

    name = "esasrec"
    paper = (
        "Tikhonovich et al.: eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion (RecSys 2025)"
    )
    Config = ESASRecConfig
    networks = MappingProxyType({"network": ESASRecNetwork})
