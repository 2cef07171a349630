"""Which models there are: ADRec, the baselines, and what users register; and networks made into models."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adrec.config.adrec import Config, Sampler
from adrec.config.base import Settings, TrainingConfig
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.inference.scorer import NetworkScorer, with_inference
from adrec.inference.scores import Scores
from adrec.models.base import Model
from adrec.nn.adrec import NETWORKS, make_network
from adrec.nn.base import SequenceNetwork
from adrec.train.loop import Trainer
from adrec.train.report import Reporter
from adrec.utils.errors import ConfigError, did_you_mean

KIND = "network_kind"  # in a state: which of a model's networks its weights are


class NetworkModel(Model):
    """A model whose networks the loop trains in the stages of its configuration.

    Attributes:
        networks: the classes of what the stages train, by ``StageConfig.network_kind``.
        network: what was trained.
        seed: of training and of inference.
    """

    networks: ClassVar[Mapping[str, type[SequenceNetwork]]]
    network: SequenceNetwork | None = None
    seed: int = 0
    _scorer: NetworkScorer | None = None

    @property
    def training(self) -> TrainingConfig:
        """Its configuration, which has stages."""
        return cast("TrainingConfig", self.config)

    def trainer(
        self,
        dataset: Dataset,
        split: Split,
        *,
        seed: int,
        device: torch.device | None = None,
        reporter: Reporter | None = None,
        on_epoch: Callable[[Mapping[str, Any]], None] = lambda row: None,
    ) -> Trainer:
        """Return the trainer of its networks; :meth:`adopt` takes what it trained."""
        return Trainer(
            self.training,
            dataset,
            split,
            seed=seed,
            networks=self.networks,
            device=device,
            reporter=reporter,
            on_epoch=on_epoch,
        )

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        """Train every stage; validation selects weights and stops early where it has users."""
        self.adopt(self.trainer(dataset, split, seed=seed, device=device).run(), seed)

    def adopt(self, network: SequenceNetwork, seed: int) -> None:
        """Become the model of a trained ``network``."""
        self.network, self.seed, self._scorer = network, seed, None
        self.num_items, self.max_length = network.num_items, network.config.max_length
        self.ranks_padding = network.ranks_padding

    def __call__(self, batch: PackedBatch) -> Scores:
        """Return the scores of each history."""
        if self._scorer is None:
            self._scorer = NetworkScorer(self._trained(), self.seed)
        return self._scorer(batch)

    def with_inference(self, num_steps: int | None, sampler: Sampler | None) -> None:
        """Set the denoising steps and the sampler. Raises :class:`ConfigError` where it takes none."""
        self.network, self._scorer = with_inference(self._trained(), num_steps, sampler), None
        self.config = replace(self.training, model=self.network.config)  # type: ignore[call-arg]

    def _trained(self) -> SequenceNetwork:
        assert self.network is not None, "the model is not trained yet"
        return self.network

    @property
    def kind(self) -> str:
        """Which of :attr:`networks` was trained last."""
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
        """Take back the weights of the network of a ``kind``, by default that of the last stage."""
        last = [stage.network_kind for stage in self.training.stages.values() if stage.epochs][-1]
        network = make_network(self.networks[kind or last], self.training.network, num_items)
        network.load_state_dict(dict(state))
        self.adopt(network.to(device or torch.device("cpu")), seed)

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """The item embedding."""
        vectors: NDArray[np.float32] = self._trained().item_embedding.weight.detach().cpu().numpy()
        return vectors[: self.num_items + 1]


class ADRecModel(NetworkModel):
    """ADRec: auto-regression and, in the paper's presets, token-level diffusion trained in three stages."""

    name = "adrec"
    paper = "Chen, Xu and Jiang: Unlocking the Power of Diffusion Models in Sequential Recommendation (KDD 2025)"
    Config = Config
    networks = NETWORKS


BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "adrec": "adrec.models.registry:ADRecModel",
        "popular": "adrec.models.baselines.popularity:Popularity",
        "recent": "adrec.models.baselines.recent:RecentPopularity",
        "markov": "adrec.models.baselines.markov:Markov",
        "itemknn": "adrec.models.baselines.itemknn:ItemKNN",
        "vsknn": "adrec.models.baselines.vsknn:VSKNN",
        "ease": "adrec.models.baselines.ease:EASE",
        "gru4rec": "adrec.models.baselines.gru4rec:GRU4Rec",
        "sasrec": "adrec.models.baselines.sasrec:SASRec",
        "sasrec+": "adrec.models.baselines.sasrec:SASRecPlus",
        "gsasrec": "adrec.models.baselines.gsasrec:GSASRec",
        "bert4rec": "adrec.models.baselines.bert4rec:BERT4Rec",
        "esasrec": "adrec.models.baselines.esasrec:ESASRec",
        "diffurec": "adrec.models.baselines.diffurec:DiffuRec",
        "dreamrec": "adrec.models.baselines.dreamrec:DreamRec",
        "diffrec": "adrec.models.baselines.diffrec:DiffRec",
    }
)
_registered: dict[str, type[Model]] = {}


def register(model: type[Model]) -> type[Model]:
    """Make a model known by its name, in this process; usable as a decorator.

    Installed packages do it for every process with an entry point of the group ``adrec.models``. Raises
    :class:`ConfigError` where it is no model, or its name is taken.
    """
    check_model(model, model.__qualname__)
    if model.name in BUILT_IN or _registered.get(model.name, model) is not model:
        raise ConfigError(f"there is a model {model.name!r} already; give {model.__qualname__} another name.")
    _registered[model.name] = model
    return model


def check_model(model: Any, where: str) -> None:
    """Raise :class:`ConfigError` where ``model`` breaks the contract, with the clause that it breaks."""
    if not (isinstance(model, type) and issubclass(model, Model)):
        raise ConfigError(f"{where} is no model: its class must derive from adrec.models.Model (or NetworkModel).")
    abstract = sorted(getattr(model, "__abstractmethods__", ()))
    if abstract:
        raise ConfigError(f"{where} breaks the contract of a model: it lacks the method {abstract[0]!r}.")
    for attribute, kind in (("name", str), ("paper", str)):
        if not isinstance(getattr(model, attribute, None), kind):
            raise ConfigError(f"{where} breaks the contract of a model: {attribute!r} must be a text of the class.")
    config = getattr(model, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Settings)):
        raise ConfigError(f"{where} breaks the contract of a model: 'Config' must derive from adrec.config.Settings.")
    if issubclass(model, NetworkModel) and not issubclass(config, TrainingConfig):
        raise ConfigError(f"{where} breaks the contract of a model: 'Config' of a NetworkModel must have stages.")
    if issubclass(model, NetworkModel) and not getattr(model, "networks", None):
        raise ConfigError(f"{where} breaks the contract of a model: it names no 'networks'.")


def model_names() -> tuple[str, ...]:
    """Return the name of every model that is known here."""
    installed = (each.name for each in entry_points(group="adrec.models"))
    return tuple(dict.fromkeys([*BUILT_IN, *_registered, *installed]))


def find_model(name: str, *, imports: bool = False) -> type[Model]:
    """Return the model of a ``name``, or with ``imports`` the class at ``module:Class`` in the user's own code.

    A run of such a class names it, and nothing that a file names is imported: only what was named by the user before.

    Raises :class:`ConfigError` for an unknown one (the near one is suggested) or one that breaks the contract.
    """
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        return _imported(BUILT_IN[name])
    for point in entry_points(group="adrec.models"):
        if point.name == name:
            return _imported(point.value)
    if ":" in name and imports:
        with _own_folder():
            _registered[name] = _imported(name)  # from now on this process opens runs of it
        return _registered[name]
    if ":" in name:
        raise ConfigError(f"the model {name} is the user's own code; name it with --model {name} so that it is run.")
    known = model_names()
    raise ConfigError(f"there is no model {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}.")


@contextmanager
def _own_folder() -> Iterator[None]:
    """Let a user's own module be found beside them, behind everything that is installed, and nothing else later."""
    sys.path.append("")
    try:
        yield
    finally:
        sys.path.remove("")


def _imported(place: str) -> type[Model]:
    module_name, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise ConfigError(f"the model {place} cannot be imported: {error}.") from error
    check_model(found, place)
    model: type[Model] = found
    return model
