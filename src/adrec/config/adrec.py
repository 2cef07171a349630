"""ADRec's configuration and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from adrec.config.base import TrainingConfig
from adrec.config.parsing import require
from adrec.config.presets import PRESETS
from adrec.config.stage import PaddedConfig, check_shares, check_steps
from adrec.config.stage import StageConfig as AnyStageConfig

Sampler = Literal["ancestral", "ddim"]
ScheduleName = Literal["trunc_lin", "linear", "cosine", "sqrt", "trunc_cos", "pw_lin", "beta", "exp"]


@dataclass(frozen=True)
class ModelConfig(PaddedConfig):
    """The network of the paper (section 4), the switches of the published code, and what goes beyond both.

    Attributes:
        max_length: L, the positions of a sequence that the model sees (the last L items).
        num_blocks: transformer blocks in CAM, and again in ADM (layers, of a token-wise denoiser).
        embedding_dropout: dropout of the embedded history.
        dropout: dropout of attention weights, feed-forward and residual branches.
        positions: what tells a token's place: ``none`` but causal attention and the padding (the paper); ``learned``
            vectors, added to the items; or ``rotary``: queries and keys turn with their place (arXiv 2104.09864).
        repeat_bias: a learned number is added to the logits of the items of the history, see :class:`PaddedConfig`.
        num_train_timesteps: T, the number of diffusion timesteps.
        num_inference_steps: denoising steps at inference, at most T, where the sample ranks; T is the paper's sampler.
            At the paper's ``noise_weight`` of 0.001 more than one change no metric (``benchmarks/steps.py``).
        sampler: ``ancestral`` adds the forward process's noise at every step but the last (the paper); ``ddim`` adds
            none, so that the start alone is random. With one step both are the network's first prediction.
        noise_schedule: the name of the schedule of ``beta``.
        noise_weight: the paper's lambda, the weight of the noisy target and the timestep beside the condition: 0.001
            there, so little because a decoder that sees its own target at small timesteps copies it.
        noise_level: an independent timestep for every ``token`` (the paper), one per ``sequence``, or noise on each
            sequence's ``last`` token alone: the others see their own targets clean, at t = 0, as at inference, and
            are trained so, which at a large ``noise_weight`` is copying.
        decoder: the ADM: ``attention`` (the paper), a token-wise ``mlp``, or ``adaptive``: a token-wise denoiser whose
            layer norms the condition and the timestep modulate. With ``none`` there is no diffusion, and its settings
            here mean nothing.
        ranks_by: which vector is ranked by, and trained by cross-entropy: the denoised ``sample`` (the paper), or the
            auto-regressive ``condition`` c, beside which the squared error trains the denoiser, if there is one;
            inference then takes no denoising steps.
        unit_targets: targets are scaled to variance 1, so that a schedule of noise means the same in every space, and
            have no gradient.
        detached_targets: targets have no gradient, so that neither the squared error nor x_t trains the embedding by
            them; targets of unit variance have none anyway.
        drops_normalized: the embedded history is normalised, then dropped (as in stage 1), not dropped first.
        embedding_std: the item embedding begins as N(0, std), where no stage hands one over; where co-occurrences
            begin it, they have the mean length of that.
        causal: false lets every token attend to every other: it leaks targets in training (the paper's
            negative control).
        guidance_scale: classifier-free guidance; 1 is off.
        condition_dropout: share of users trained without condition where guidance is on.
        geodesic: targets, noise and samples on the unit sphere.
    """

    max_length: int = 200
    embedding_dropout: float = 0.3
    dropout: float = 0.1
    positions: Literal["none", "learned", "rotary"] = "rotary"
    repeat_bias: bool = True
    num_train_timesteps: int = 32
    num_inference_steps: int = 1
    sampler: Sampler = "ancestral"
    noise_schedule: ScheduleName = "cosine"
    noise_weight: float = 1.0
    noise_level: Literal["token", "sequence", "last"] = "token"
    decoder: Literal["none", "attention", "mlp", "adaptive"] = "none"
    ranks_by: Literal["sample", "condition"] = "condition"
    unit_targets: bool = True
    detached_targets: bool = False
    drops_normalized: bool = True
    embedding_std: float = 0.04
    causal: bool = True
    guidance_scale: float = 1.0
    condition_dropout: float = 0.3
    geodesic: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "condition_dropout")
        require(
            self.decoder != "none" or (self.ranks_by == "condition" and self.guidance_scale == 1),
            "only a denoiser makes a sample to rank by, and is guided; set model.decoder to 'attention', 'mlp' or "
            "'adaptive'.",
        )
        require(
            self.positions != "rotary" or self.hidden_size % (2 * self.num_heads) == 0,
            "rotary positions turn a head's numbers in pairs: set model.hidden_size to a multiple of twice "
            f"model.num_heads, or model.positions to 'learned'; they are {self.hidden_size} and {self.num_heads}.",
        )
        require(self.embedding_std > 0, f"model.embedding_std must be above 0; it is {self.embedding_std}.")
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
        consistency: alpha of R-Drop: two passes over each batch, with other dropout, are to predict alike: how much
            the divergence of the two weighs beside the cross-entropy. Training takes twice as long; 0 is one pass.
        negatives: the softmax is over the items of the batch and so many others, drawn for each step, that stand
            for the rest: faster where the catalogue is large; 0 is the whole catalogue, and so is more than it has.
    """

    network: Literal["sasrec", "adrec"]
    start: Literal["scratch", "embedding", "continue"]
    embedding: Literal["train", "frozen", "decaying"] = "train"
    loss: Literal["ce", "mse", "ce+mse"] = "ce+mse"
    mse_weight: float = 1.0
    pcgrad: bool = False
    consistency: float = 0.0
    negatives: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.consistency >= 0, f"consistency of a stage must not be negative; it is {self.consistency}.")
        require(
            not (self.consistency and self.loss == "mse"),
            "consistency is between two passes' cross-entropies, and this loss has none; set loss to 'ce' or 'ce+mse'.",
        )
        require(self.negatives >= 0, f"negatives of a stage must not be negative; it is {self.negatives}.")
        require(
            not (self.negatives and self.loss == "mse"),
            "negatives are the cross-entropy's, and this loss has none; set loss to 'ce' or 'ce+mse'.",
        )
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
    def agreement(self) -> float:
        """How much two passes are to agree."""
        return self.consistency

    @property
    def softmax_negatives(self) -> int:
        """How many items a batch's softmax is over beside the batch's own; 0 is the whole catalogue."""
        return self.negatives

    @property
    def projects_conflicts(self) -> bool:
        """Whether conflicting gradients of the two losses are projected."""
        return self.pcgrad

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The losses that are trained and their weights."""
        weights = {"ce": 1.0, "mse": self.mse_weight}
        return {name: weights[name] for name in self.loss.split("+")}


# The default is trained in one stage: what the others did for the published design, counted co-occurrences, dropout, a
# repeat bias and two passes that agree do better for this one (docs/ablation.md).
PRETRAIN = StageConfig(network="sasrec", epochs=0, start="scratch", loss="ce")
ALIGN = StageConfig(network="adrec", epochs=0, start="embedding", embedding="frozen", loss="ce")
FINETUNE = StageConfig(
    network="adrec",
    epochs=200,
    start="scratch",
    initial_embedding="cooccurrence",
    loss="ce",
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.3,
    beta2=0.98,
    warmup_epochs=1,
    schedule="constant",
    averaging=0.998,
    consistency=10.0,
    first_evaluation=3,
    evaluate_every=1,
    patience=5,
)


@dataclass(frozen=True)
class Config(TrainingConfig):
    """ADRec's configuration, with four presets.

    ``default``: what wins on validation over several data sets: one stage, an embedding that begins with
    co-occurrences, rotary positions, two passes that are to agree, and the auto-regressive condition alone, as no
    denoiser proved to help it. ``fast``: a narrower one whose softmax is over part of the catalogue, for a fifth to
    a third of the time. ``paper``: the three stages of the paper, as it describes them. ``published``: the same with
    all that the published code does beyond its paper.

    Attributes:
        batch_size: users of a training step, at most.
        model: the networks.
        pretrain: stage 1.
        align: stage 2.
        finetune: stage 3.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    batch_size: int = 64
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: StageConfig = PRETRAIN
    align: StageConfig = ALIGN
    finetune: StageConfig = FINETUNE

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, stage in self.stages.items():
            require(
                self.model.decoder != "none" or stage.network != "adrec" or not stage.epochs or stage.loss == "ce",
                f"{name}.loss has the squared error of a denoiser, and there is none; set {name}.loss to 'ce', or "
                "model.decoder to 'adaptive'.",
            )
        trained = any("mse" in stage.loss_weights for stage in self.stages.values() if stage.epochs)
        require(
            self.model.decoder == "none" or self.model.ranks_by == "sample" or trained,
            "nothing would train the denoiser: the condition ranks, and no stage has the squared error; set "
            "finetune.loss to 'ce+mse', or model.decoder to 'none'.",
        )

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """The stages by name, in the order in which they run."""
        return MappingProxyType({"pretrain": self.pretrain, "align": self.align, "finetune": self.finetune})


def preset(name: str = "default", changes: Mapping[str, Any] | None = None) -> Config:
    """Return ADRec's preset ``name`` with ``changes``: see :meth:`adrec.config.base.Settings.make`."""
    return Config.make(name, changes)
