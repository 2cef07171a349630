"""ADRec's configuration and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from adrec.components import PaddedConfig, check_shares, check_steps
from adrec.components import StageConfig as AnyStageConfig
from adrec.settings import TrainingConfig
from adrec.strict import require

Sampler = Literal["ancestral", "ddim"]
ScheduleName = Literal["trunc_lin", "linear", "cosine", "sqrt", "trunc_cos", "pw_lin", "beta", "exp"]


@dataclass(frozen=True)
class ModelConfig(PaddedConfig):
    """The network of the paper (section 4) and the switches of the published code.

    Attributes:
        num_blocks: transformer blocks in CAM, and again in ADM.
        num_train_timesteps: T, the number of diffusion timesteps.
        num_inference_steps: denoising steps at inference, at most T; T is the paper's sampler. One by default: at
            ``noise_weight`` 0.001 more of them change no metric (``benchmarks/steps.py``). A larger weight may want
            more.
        sampler: ``ancestral`` adds the forward process's noise at every step but the last (the paper); ``ddim`` adds
            none, so that the start alone is random. With one step both are the network's first prediction.
        noise_schedule: the name of the schedule of ``beta``.
        noise_weight: the paper's lambda, the weight of the noisy target and the timestep beside the condition.
        noise_level: an independent timestep for every token (the paper), or one per sequence.
        decoder: the ADM, ``attention`` or a token-wise ``mlp``.
        causal: false lets every token attend to every other: it leaks targets in training (the paper's
            negative control).
        guidance_scale: classifier-free guidance; 1 is off.
        condition_dropout: share of users trained without condition where guidance is on.
        geodesic: targets, noise and samples on the unit sphere.
    """

    num_train_timesteps: int = 32
    num_inference_steps: int = 1
    sampler: Sampler = "ancestral"
    noise_schedule: ScheduleName = "trunc_lin"
    noise_weight: float = 0.001
    noise_level: Literal["token", "sequence"] = "token"
    decoder: Literal["attention", "mlp"] = "attention"
    causal: bool = True
    guidance_scale: float = 1.0
    condition_dropout: float = 0.3
    geodesic: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "condition_dropout")
        check_steps(self.num_train_timesteps, self.num_inference_steps)


@dataclass(frozen=True, kw_only=True)
class StageConfig(AnyStageConfig):
    """One of ADRec's stages.

    Attributes:
        network: what is trained: ``sasrec`` (the pre-training of the item embedding) or ``adrec``.
        start: ``scratch``; ``embedding``: new weights, with the item embedding of the stage before; ``continue``:
            the same run goes on, with its weights, Adam's moments and its place in the learning-rate schedule.
        embedding: the item embedding is trained, ``frozen``, or ``decaying``: it gets no gradient, but Adam's L2
            term still shrinks it, which is what the published code does where it says frozen.
        loss: full cross-entropy alone, squared error alone, or half of (cross-entropy + ``mse_weight`` x squared
            error).
        mse_weight: the weight of the squared error between ``x0_hat`` and ``x0``.
        pcgrad: project conflicting gradients of the two losses (two backward passes).
    """

    network: Literal["sasrec", "adrec"]
    start: Literal["scratch", "embedding", "continue"]
    embedding: Literal["train", "frozen", "decaying"] = "train"
    loss: Literal["ce", "mse", "ce+mse"] = "ce+mse"
    mse_weight: float = 1.0
    pcgrad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.mse_weight >= 0, f"mse_weight of a stage must not be negative; it is {self.mse_weight}.")
        require(
            not (self.network == "sasrec" and self.loss != "ce"),
            "a sasrec stage has no diffusion, so its loss must be 'ce'.",
        )
        require(not (self.pcgrad and self.loss != "ce+mse"), "pcgrad needs two losses; set loss to 'ce+mse'.")

    @property
    def network_kind(self) -> str:
        """Which of the two networks is trained."""
        return self.network

    @property
    def begins_with(self) -> Literal["scratch", "embedding", "continue"]:
        """What the stage's weights start from."""
        return self.start

    @property
    def embedding_training(self) -> Literal["train", "frozen", "decaying"]:
        """How the item embedding is trained."""
        return self.embedding

    @property
    def projects_conflicts(self) -> bool:
        """Whether conflicting gradients of the two losses are projected."""
        return self.pcgrad

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The losses that are trained and their weights."""
        weights = {"ce": 1.0, "mse": self.mse_weight}
        return {name: weights[name] for name in self.loss.split("+")}


PRETRAIN = StageConfig(network="sasrec", epochs=500, start="scratch", loss="ce")
ALIGN = StageConfig(network="adrec", epochs=5, start="embedding", embedding="frozen", first_evaluation=6)
FINETUNE = StageConfig(network="adrec", epochs=495, start="continue", first_evaluation=1)


_SIX_METRICS = tuple(f"{metric}@{k}" for metric in ("hr", "ndcg") for k in (5, 10, 20))

_PUBLISHED: dict[str, Any] = {
    "model.padding_class": True,
    "model.num_inference_steps": 32,
    "align.embedding": "decaying",
    **{f"{stage}.select_by": _SIX_METRICS for stage in ("pretrain", "align", "finetune")},
}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": MappingProxyType({}),
        "published": MappingProxyType(_PUBLISHED),
    }
)


@dataclass(frozen=True)
class Config(TrainingConfig):
    """ADRec's configuration.

    Attributes:
        model: the networks.
        pretrain: stage 1.
        align: stage 2.
        finetune: stage 3.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: StageConfig = PRETRAIN
    align: StageConfig = ALIGN
    finetune: StageConfig = FINETUNE

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """The stages by name, in the order in which they run."""
        return MappingProxyType({"pretrain": self.pretrain, "align": self.align, "finetune": self.finetune})


def preset(name: str = "default", changes: Mapping[str, Any] | None = None) -> Config:
    """Return ADRec's preset ``name`` with ``changes``: see :meth:`adrec.settings.Settings.make`."""
    return Config.make(name, changes)
