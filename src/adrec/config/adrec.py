"""ADRec's configuration and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from adrec.config.base import TrainingConfig
from adrec.config.diffusion import AblationConfig, DiffusionConfig, Sampler
from adrec.config.parsing import group, require
from adrec.config.presets import PRESETS
from adrec.config.stage import PaddedConfig, StageConfig
from adrec.config.stages import ALIGN, FINETUNE, PRETRAIN, ADRecStageConfig, PretrainConfig


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
class Config(TrainingConfig):
    """ADRec's configuration, with six presets.

    ``default``: ADRec, whole: three stages, CAM and ADM, token-level noise, the denoised last token ranks; with rotary
    positions, repeat logits and the consistency loss. ``cam``: the causal attention module alone, without diffusion.
    ``fast``: a narrower ``cam`` with a softmax over part of the catalogue, in a fifth to a third of its time.
    ``large``: a narrower ``fast`` for large catalogues, which trains only the rows that a step needs.
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
