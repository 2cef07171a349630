"""The configuration of diffusion: that of the paper (:class:`DiffusionConfig`), and the ablation settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adrec.config.parsing import ConfigGroup, require
from adrec.config.stage import check_steps

Sampler = Literal["ancestral", "ddim"]
ScheduleName = Literal["trunc_lin", "linear", "cosine", "sqrt", "trunc_cos", "pw_lin", "beta", "exp"]


@dataclass(frozen=True)
class DiffusionConfig(ConfigGroup):
    """Token-level diffusion (paper, section 4): the auto-regressive diffusion module (ADM) and its noise.

    Attributes:
        num_train_timesteps: T, the number of diffusion timesteps.
        num_inference_steps: denoising steps at inference, from 1 to T; T is the paper's sampler.
        sampler: ``ancestral`` (the paper) or ``ddim``. Ancestral sampling adds the forward process's noise at every
            step but the last, DDIM adds none. With one step both are the network's first prediction.
        noise_schedule: the name of the schedule of ``beta``.
        adm_blocks: transformer blocks in ADM; the paper has as many as in CAM.
        noise_weight: the paper's lambda, the weight of the noisy target and the timestep beside the condition.
    """

    num_train_timesteps: int = 32
    num_inference_steps: int = 1
    sampler: Sampler = "ancestral"
    noise_schedule: ScheduleName = "trunc_lin"
    adm_blocks: int = 1
    noise_weight: float = 0.001

    def __post_init__(self) -> None:
        check_steps(self.num_train_timesteps, self.num_inference_steps, "model.diffusion")
        require(self.adm_blocks >= 1, f"model.diffusion.adm_blocks must be at least 1; it is {self.adm_blocks}.")


@dataclass(frozen=True)
class AblationConfig(ConfigGroup):
    """Variants of the paper's diffusion, to measure the contribution of each part.

    Attributes:
        decoder: the ADM: ``attention`` (the paper), a token-wise ``mlp``, or ``adaptive``: a token-wise denoiser whose
            layer norms the condition and the timestep modulate.
        ranks_by: the vector used for ranking and for the cross-entropy: the denoised ``sample`` (the paper), or the
            auto-regressive ``condition`` c. With the condition, inference takes no denoising steps.
        noise_level: an independent timestep for every ``token`` (the paper), one per ``sequence``, or noise on only
            each sequence's ``last`` token, where the other tokens see their targets clean, at t = 0.
        unit_targets: the targets are scaled to variance 1 and have no gradient.
        detached_targets: the targets have no gradient; targets of variance 1 never have one.
        causal: false lets every token attend to every other. It leaks targets in training: the negative control.
        guidance_scale: the scale of classifier-free guidance; 1 is off.
        condition_dropout: the share of users trained without their condition, if guidance is on.
        geodesic: targets, noise and samples lie on the unit sphere.
    """

    decoder: Literal["attention", "mlp", "adaptive"] = "attention"
    ranks_by: Literal["sample", "condition"] = "sample"
    noise_level: Literal["token", "sequence", "last"] = "token"
    unit_targets: bool = False
    detached_targets: bool = False
    causal: bool = True
    guidance_scale: float = 1.0
    condition_dropout: float = 0.3
    geodesic: bool = False

    def __post_init__(self) -> None:
        share = self.condition_dropout
        require(0 <= share < 1, f"model.ablation.condition_dropout must be in [0, 1); it is {share}.")
        require(
            self.ranks_by == "sample" or self.guidance_scale == 1,
            "guidance is of the denoised sample; set model.ablation.ranks_by to 'sample'.",
        )

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        found = {}
        if self.guidance_scale == 1:
            found["condition_dropout"] = "guidance is off (model.ablation.guidance_scale is 1)"
        if self.unit_targets:
            found["detached_targets"] = "targets of variance 1 have no gradient anyway"
        return found
