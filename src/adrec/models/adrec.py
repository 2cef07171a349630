"""ADRec as a model."""

from __future__ import annotations

from types import MappingProxyType
from typing import cast

from adrec.config.adrec import Config as ADRecConfig
from adrec.config.base import Settings
from adrec.models.network import NetworkModel
from adrec.nn.ablation.network import AblationNetwork
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.pretraining import PretrainingNetwork


class ADRecModel(NetworkModel):
    """ADRec: auto-regression and, in the paper's presets, token-level diffusion trained in three stages."""

    name = "adrec"
    paper = "Chen, Xu and Jiang: Unlocking the Power of Diffusion Models in Sequential Recommendation (KDD 2025)"
    Config = ADRecConfig
    networks = MappingProxyType({"adrec": ADRecNetwork, "sasrec": PretrainingNetwork})

    def __init__(self, config: Settings | None = None) -> None:
        super().__init__(config)
        if cast("ADRecConfig", self.config).model.ablation is not None:
            self.networks = MappingProxyType({**self.networks, "adrec": AblationNetwork})
