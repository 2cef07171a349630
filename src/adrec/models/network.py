"""Base class of the models whose networks are trained by gradient descent, in the stages of their configuration."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.config.base import TrainingConfig
from adrec.config.diffusion import Sampler
from adrec.config.stage import NO_DIFFUSION
from adrec.data.batch import PackedBatch
from adrec.models.base import Model
from adrec.nn.ablation.network import AblationNetwork
from adrec.nn.base import SequenceNetwork, make_network
from adrec.nn.noise import HistoryNoise
from adrec.nn.scores import Scores
from adrec.utils.errors import ConfigError


class NetworkScorer:
    """Scores with a trained network; changes neither the network nor any global generator.

    Args:
        network: the trained network.
        seed: the seed of the noise at inference, which depends only on the seed and the history.
        num_steps: denoising steps; the configuration's ``num_inference_steps`` by default.
    """

    def __init__(self, network: SequenceNetwork, seed: int = 0, num_steps: int | None = None) -> None:
        self.network, self.seed, self.num_steps = network, seed, num_steps
        if isinstance(network, AblationNetwork) and network.decodes_whole_histories:
            warn_of_whole_histories(num_steps or network.config.num_inference_steps)

    @property
    def num_items(self) -> int:
        """V, the size of the catalogue."""
        return self.network.num_items

    @property
    def max_length(self) -> int:
        """L, the number of last items of a history that the model sees."""
        return self.network.config.max_length

    @property
    def ranks_padding(self) -> bool:
        """Whether the padding's row is a class of the softmax."""
        return self.network.ranks_padding

    @torch.no_grad()
    def __call__(self, batch: PackedBatch) -> Scores:
        """Return the scores of the batch's histories for every item number."""
        network = self.network
        device = network.item_embedding.weight.device
        noise = None
        if network.uses_noise:
            noise = HistoryNoise(batch, network.config.hidden_size, self.seed, device)
        there = batch.to(device)
        return network.scored(network.predict(there, noise, self.num_steps), there)


def warn_of_whole_histories(steps: int) -> None:
    """Warn of the cost of several steps if a history's keys and values cannot be cached."""
    if steps > 1:
        warnings.warn(
            "with bidirectional attention a history's keys and values change at every step, so they cannot be "
            f"kept: each of {steps} denoising steps decodes whole histories.",
            UserWarning,
            stacklevel=3,
        )


class NetworkModel(Model):
    """A model whose networks are trained in the stages of its configuration, by :func:`adrec.runs.fit`.

    Attributes:
        networks: the network classes of the stages, by ``StageConfig.network``.
        network: the trained network.
        seed: of training and of inference.
    """

    networks: Mapping[str, type[SequenceNetwork]]
    network: SequenceNetwork | None = None
    seed: int = 0
    _scorer: NetworkScorer | None = None

    @property
    def weighs_events(self) -> bool:  # type: ignore[override]
        """Whether event weights change what its networks learn."""
        return all(network.weighs_events for network in self.networks.values())

    @property
    def training(self) -> TrainingConfig:
        """The configuration, which has stages."""
        return cast("TrainingConfig", self.config)

    def adopt(self, network: SequenceNetwork, seed: int) -> None:
        """Set the trained ``network`` and the seed."""
        self.network, self.seed, self._scorer = network, seed, None
        self.num_items, self.max_length = network.num_items, network.config.max_length
        self.ranks_padding = network.ranks_padding

    def __call__(self, batch: PackedBatch) -> Scores:
        """Return the scores of each history."""
        if self._scorer is None:
            self._scorer = NetworkScorer(self._trained(), self.seed)
        return self._scorer(batch)

    def with_inference(self, num_steps: int | None, sampler: Sampler | None) -> None:
        """Set the denoising steps and the sampler. Raises :class:`ConfigError` if the model has none."""
        network = self._trained()
        changed = network.config.with_inference(num_steps, sampler)
        if changed != network.config and not network.uses_noise:
            raise ConfigError(NO_DIFFUSION)
        network.config, self._scorer = changed, None
        self.config = replace(self.training, model=changed)  # type: ignore[call-arg]

    def _trained(self) -> SequenceNetwork:
        assert self.network is not None, "the model is not trained yet"
        return self.network

    @property
    def kind(self) -> str:
        """The key in :attr:`networks` of the network trained last."""
        return next(kind for kind, network in self.networks.items() if type(self._trained()) is network)

    def state(self) -> Mapping[str, Tensor]:
        """Return the network's weights."""
        return self._trained().state_dict()

    def restore(
        self,
        state: Mapping[str, Tensor],
        num_items: int,
        device: torch.device | None = None,
        kind: str | None = None,
        seed: int = 0,
    ) -> None:
        """Load the weights of the network of a ``kind``, by default that of the last stage."""
        last = list(self.training.stages.values())[-1].network
        network = make_network(self.networks[kind or last], self.training.network, num_items)
        network.load_state_dict(dict(state))
        self.adopt(network.to(device or torch.device("cpu")), seed)

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """The item embedding."""
        vectors: NDArray[np.float32] = self._trained().item_embedding.weight.detach().cpu().numpy()
        return vectors[: self.num_items + 1]
