"""ADRec's configuration and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from adrec.config.base import TrainingConfig
from adrec.config.diffusion import AblationConfig, DiffusionConfig, Sampler
from adrec.config.parsing import group, require
from adrec.config.presets import PRESETS
from adrec.config.stage import PaddedConfig, StageConfig


@dataclass(frozen=True)
class ModelConfig(PaddedConfig):
    """The network: CAM, and with ``diffusion`` ADM (paper, section 4).

    Attributes:
        max_length: L, the number of last items of a history that the model sees.
        num_blocks: transformer blocks in CAM.
        positions: ``none``, ``learned`` or ``rotary``. With ``none`` causal attention and the padding alone tell
            positions apart (the paper); ``learned`` vectors are added to the items; with ``rotary`` queries and keys
            are rotated (arXiv 2104.09864).
        drops_normalized: apply the dropout of the embedded history after its layer norm, as in stage 1.
        repeat_projection: items of the history are also scored by a second projection of the query. Users may then
            return to some items, and in some situations, more than to others.
        embedding_std: standard deviation of the item embedding's initial values.
        diffusion: token-level diffusion; without it the model is only CAM.
        ablation: variants of the paper's diffusion.
    """

    max_length: int = 200
    embedding_dropout: float = 0.3
    dropout: float = 0.1
    repeat_bias: bool = True
    repeat_projection: bool = False
    positions: Literal["none", "learned", "rotary"] = "rotary"
    drops_normalized: bool = True
    embedding_std: float = 0.04
    diffusion: DiffusionConfig | None = group(DiffusionConfig(), on=True)
    ablation: AblationConfig | None = group(AblationConfig())

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.positions != "rotary" or self.hidden_size % (2 * self.num_heads) == 0,
            "rotary positions rotate the numbers of a head in pairs: set model.hidden_size to a multiple of twice "
            f"model.num_heads, or model.positions to 'learned'; they are {self.hidden_size} and {self.num_heads}.",
        )
        require(
            self.repeat_bias or not self.repeat_projection,
            "model.repeat_projection is added to model.repeat_bias; set model.repeat_bias=true too.",
        )
        require(self.embedding_std > 0, f"model.embedding_std must be above 0; it is {self.embedding_std}.")
        require(
            self.ablation is None or self.diffusion is not None,
            "model.ablation changes model.diffusion, which is left out; set model.diffusion=true too.",
        )

    @property
    def ranks_by_sample(self) -> bool:
        """Whether items are ranked by the denoised sample; otherwise by the auto-regressive condition."""
        return self.diffusion is not None and (self.ablation is None or self.ablation.ranks_by == "sample")

    @property
    def num_train_timesteps(self) -> int:
        """T; 0 without diffusion."""
        return self.diffusion.num_train_timesteps if self.diffusion else 0

    @property
    def num_inference_steps(self) -> int:
        """Denoising steps at inference; 0 without diffusion."""
        return self.diffusion.num_inference_steps if self.diffusion else 0

    def with_inference(self, num_steps: int | None, sampler: Sampler | None) -> Self:
        """Return the configuration with another number of denoising steps or another sampler; None keeps a setting."""
        if self.diffusion is None:
            return super().with_inference(num_steps, sampler)
        require(
            self.ranks_by_sample,
            "this model is ranked by its condition (model.ablation.ranks_by), so inference takes no denoising steps.",
        )
        changed = {"num_inference_steps": num_steps, "sampler": sampler}
        given: dict[str, Any] = {key: value for key, value in changed.items() if value is not None}
        return replace(self, diffusion=replace(self.diffusion, **given))

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        found: dict[str, str] = {}
        if self.diffusion is None:
            return found
        if not self.ranks_by_sample:
            why = "the condition ranks (model.ablation.ranks_by), so inference takes no denoising steps"
            found |= {"diffusion.num_inference_steps": why, "diffusion.sampler": why}
        if self.ablation is not None and self.ablation.decoder == "mlp":
            found["diffusion.adm_blocks"] = "ADM is an MLP (model.ablation.decoder)"
        return found


@dataclass(frozen=True)
class CatalogueStageConfig(StageConfig):
    """A stage with a cross-entropy over the catalogue.

    Attributes:
        consistency: the weight of the R-Drop consistency loss (arXiv 2106.14448); 0 is one pass. Two passes over each
            batch, with different dropout, are trained to predict alike. Training takes twice as long.
        negatives: items sampled for a step's softmax, besides those of the batch; 0 is the whole catalogue. Sampling is
            faster if the catalogue is large.
    """

    consistency: float = 0.0
    negatives: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.consistency >= 0, f"consistency of a stage must not be negative; it is {self.consistency}.")
        require(self.negatives >= 0, f"negatives of a stage must not be negative; it is {self.negatives}.")


@dataclass(frozen=True)
class PretrainConfig(CatalogueStageConfig):
    """Stage 1: the item embedding, from co-occurrences alone, or learned by a SASRec.

    Attributes:
        epochs: the largest number of epochs of the SASRec; 0 takes the factorised co-occurrences as they are.
    """

    @property
    def network(self) -> str:
        """The pre-training network; without epochs only the embedding of ADRec's own network is used."""
        return "sasrec" if self.epochs else "adrec"

    def __post_init__(self) -> None:
        require(
            self.epochs != 0 or self.initial_embedding == "cooccurrence",
            "pretrain.epochs is 0, which takes co-occurrences as they are; set pretrain.initial_embedding to "
            "'cooccurrence', or pretrain.epochs to 1 or more.",
        )
        super().__post_init__()

    @property
    def fewest_epochs(self) -> int:
        """The smallest valid value of ``epochs``."""
        return 0

    @property
    def purpose(self) -> str:
        """What the stage does, in a few words for the log."""
        return "learns the item embedding" if self.epochs else "takes the item embedding from co-occurrences"

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        if self.epochs:
            return super().idle()
        trained = {each.name for each in fields(self)} - {"epochs", "initial_embedding"}
        return dict.fromkeys(trained, "pretrain.epochs is 0, so nothing is trained in stage 1")


@dataclass(frozen=True)
class ADRecStageConfig(CatalogueStageConfig):
    """Stage 2 or 3: ADRec's own network.

    Attributes:
        start: initial weights of the stage: ``scratch``, ``embedding`` or ``continue``. With ``embedding``, all weights
            are new except the item embedding of the previous stage. ``continue`` takes the previous stage's weights,
            Adam's moments and position in the learning-rate schedule.
        embedding: training of the item embedding: ``train``, ``frozen`` or ``decaying``. A decaying embedding gets no
            gradient, but Adam's L2 term still shrinks it: the published code does so where it says frozen.
        loss: ``ce``, ``mse`` or ``ce+mse``: half of (cross-entropy + ``mse_weight`` x squared error).
        mse_weight: the weight of the squared error between ``x0_hat`` and ``x0``.
        pcgrad: project conflicting gradients of the two losses (two backward passes).
    """

    start: Literal["scratch", "embedding", "continue"] = "scratch"
    embedding: Literal["train", "frozen", "decaying"] = "train"
    loss: Literal["ce", "mse", "ce+mse"] = "ce+mse"
    mse_weight: float = 1.0
    pcgrad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not (self.consistency and self.loss == "mse"),
            "consistency is between two passes' cross-entropies, and this loss has none; set loss to 'ce' or 'ce+mse'.",
        )
        require(
            not (self.negatives and self.loss == "mse"),
            "negatives are the cross-entropy's, and this loss has none; set loss to 'ce' or 'ce+mse'.",
        )
        require(self.mse_weight >= 0, f"mse_weight of a stage must not be negative; it is {self.mse_weight}.")
        require(not (self.pcgrad and self.loss != "ce+mse"), "pcgrad needs two losses; set loss to 'ce+mse'.")

    @property
    def network(self) -> str:
        """ADRec's network."""
        return "adrec"

    @property
    def purpose(self) -> str:
        """What the stage does, in a few words for the log."""
        return {
            "train": "trains all weights",
            "frozen": "trains all weights but the item embedding",
            "decaying": "trains all weights but the item embedding, which decays",
        }[self.embedding]

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The training losses and their weights."""
        weights = {"ce": 1.0, "mse": self.mse_weight}
        return {name: weights[name] for name in self.loss.split("+")}

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        found = dict(super().idle())
        if self.loss == "ce":
            found["mse_weight"] = "the loss has no squared error"
        if self.loss != "ce+mse":
            found["pcgrad"] = "there is one loss"
        return found


# Stage 1 of the default takes the factorised co-occurrences, which cost a second (docs/method.md).
PRETRAIN = PretrainConfig(epochs=0, initial_embedding="cooccurrence")
ALIGN = ADRecStageConfig(
    epochs=2,
    start="embedding",
    embedding="frozen",
    mse_weight=0.1,
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.3,
    beta2=0.98,
    warmup_epochs=1,
    schedule="constant",
    consistency=10.0,
)
FINETUNE = replace(
    ALIGN,
    averaging=0.998,
    epochs=200,
    start="continue",
    embedding="train",
    warmup_epochs=0,
    first_evaluation=1,
    evaluate_every=1,
    patience=3,
)


@dataclass(frozen=True)
class Config(TrainingConfig):
    """ADRec's configuration, with five presets.

    ``default``: ADRec, whole: three stages, CAM and ADM, token-level noise, the denoised last token ranks; with rotary
    positions, repeat logits and the consistency loss. ``cam``: the causal attention module alone, without diffusion.
    ``fast``: a narrower ``cam`` with a softmax over part of the catalogue, in a fifth to a third of its time.
    ``paper``: the three stages as the paper describes them. ``published``: the same, with every deviation of the
    published code from its paper.

    Attributes:
        batch_size: the largest number of users of a training step.
        model: the networks.
        pretrain: stage 1, the pre-training of the item embedding.
        align: stage 2, with the item embedding frozen.
        finetune: stage 3, of all weights.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    batch_size: int = 64
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig | None = group(PRETRAIN, on=True)
    align: ADRecStageConfig | None = group(ALIGN, on=True)
    finetune: ADRecStageConfig | None = group(FINETUNE, on=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.model.diffusion is None
            or self.model.ranks_by_sample
            or any("mse" in stage.loss_weights for stage in self.stages.values()),
            "nothing would train the denoiser: the condition ranks, and no stage has the squared error; set "
            "finetune.loss to 'ce+mse', or model.diffusion to false.",
        )

    @property
    def stages(self) -> Mapping[str, StageConfig]:
        """The stages by name, in the order in which they run."""
        stages = {"pretrain": self.pretrain, "align": self.align, "finetune": self.finetune}
        return MappingProxyType({name: stage for name, stage in stages.items() if stage is not None})

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        found: dict[str, str] = {}
        own = {name: stage for name, stage in self.stages.items() if stage.network == "adrec"}
        if self.model.diffusion is None:
            why = "without model.diffusion the cross-entropy alone is trained"
            found |= {f"{name}.{key}": why for name in own for key in ("loss", "mse_weight", "pcgrad")}
        if all(stage.start != "scratch" for stage in own.values()):
            found["model.embedding_std"] = "the item embedding is that of the stage before"
        return found


def preset(name: str = "default", changes: Mapping[str, Any] | None = None) -> Config:
    """Return ADRec's preset ``name`` with ``changes``: see :meth:`adrec.config.Settings.make`."""
    return Config.make(name, changes)
