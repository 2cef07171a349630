"""Diffusion, independent of network and training loop: schedules, the forward process, the posterior and sampling.

Local variables are named as in the paper and in Ho et al. 2020 (DDPM, arXiv 2006.11239), whose equations are cited.
Timesteps run from 0 to T-1. Coefficients are computed once in float64 and used in float32.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor

from adrec.config.diffusion import Sampler, ScheduleName
from adrec.utils.errors import ConfigError

Float64s = NDArray[np.float64]


def _from_alpha_bar(alpha_bar: Callable[[float], float], num_steps: int, highest: float = 0.999) -> Float64s:
    """Discretise a continuous ``alpha_bar`` over [0, 1]: ``beta_t = 1 - abar((t+1)/T) / abar(t/T)``, at most .999."""
    edges = [alpha_bar(step / num_steps) for step in range(num_steps + 1)]
    return np.array([min(1 - after / before, highest) for before, after in itertools.pairwise(edges)])


def _truncated_cosine(num_steps: int) -> Float64s:
    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.1) / 1.1 * math.pi / 2) ** 2

    # The first step goes from clean data to abar(0), which is below 1 here; the last interval is left out.
    return np.concatenate([[1 - alpha_bar(0)], _from_alpha_bar(alpha_bar, num_steps)[:-1]])


def _piecewise_linear(num_steps: int, scale: float) -> Float64s:
    knee = 10
    if num_steps <= knee:
        raise ConfigError(f"noise_schedule 'pw_lin' needs more than {knee} num_train_timesteps; it got {num_steps}.")
    falling = np.linspace(scale * 1e-4 + 0.01, scale * 1e-4, knee)
    rising = np.linspace(scale * 1e-4, scale * 0.02, num_steps - knee)
    return np.concatenate([falling, rising])


def _beta_quantiles(num_steps: int, a: float = 0.3, b: float = 10.0) -> Float64s:
    """``abar(k / T)`` is the quantile 1 - k / T of a Beta(a, b) distribution, with the published a and b."""
    quantiles = betaincinv(a, b, 1 - np.arange(num_steps + 1) / num_steps)
    return 1 - quantiles[1:] / quantiles[:-1]


def _exponential(num_steps: int, lowest: float = 0.1, highest: float = 10.0) -> Float64s:
    """DreamRec's discretisation of the variance preserving process (Song et al. 2021, arXiv 2011.13456, eq. 32)."""
    x = np.linspace(1, 2 * num_steps + 1, num_steps)
    return 1 - np.exp(-lowest / num_steps - x * (highest - lowest) / (2 * num_steps**2))


def betas(schedule: ScheduleName, num_steps: int) -> Float64s:
    """Return ``beta_t`` for t = 0..T-1, float64 [T].

    Raises :class:`ConfigError` if the schedule does not allow so few steps (a ``beta`` above 1).
    """
    scale = 1000 / num_steps
    if schedule == "trunc_lin":
        end = scale * 0.02 + 0.01
        values = np.linspace(scale * 1e-4 + 0.01, end if end <= 1 else scale * 0.001 + 0.01, num_steps)
    elif schedule == "linear":
        values = np.linspace(scale * 1e-4, scale * 0.02, num_steps)
    elif schedule == "cosine":
        values = _from_alpha_bar(lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, num_steps)
    elif schedule == "sqrt":
        values = _from_alpha_bar(lambda u: 1 - math.sqrt(u + 1e-4), num_steps)
    elif schedule == "trunc_cos":
        values = _truncated_cosine(num_steps)
    elif schedule == "pw_lin":
        values = _piecewise_linear(num_steps, scale)
    elif schedule == "exp":
        values = _exponential(num_steps)
    else:
        values = _beta_quantiles(num_steps)
    if values.max() > 1 or values.min() <= 0:
        raise ConfigError(
            f"noise_schedule {schedule!r} with {num_steps} num_train_timesteps has a beta of {values.max():.3g}, "
            "outside (0, 1]; take more timesteps."
        )
    return values


@dataclass(frozen=True)
class Schedule:
    """A diffusion chain: the timestep of each of its S steps, and its coefficients, float64 [S].

    The full chain has S = T and ``timesteps = 0..T-1``; :meth:`respaced` keeps a subset.
    """

    timesteps: NDArray[np.int64]
    betas: Float64s

    @classmethod
    def create(cls, name: ScheduleName, num_train_timesteps: int) -> Schedule:
        """Return the full chain of the named schedule."""
        return cls(np.arange(num_train_timesteps), betas(name, num_train_timesteps))

    def respaced(self, num_steps: int) -> Schedule:
        """Return the chain over ``num_steps`` evenly spaced timesteps, always including the noisiest.

        The marginals q(x_t given x0) are those of the full chain: ``beta' = 1 - abar_t / abar_s`` for neighbours
        s < t (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 19).
        """
        if num_steps == len(self.timesteps):
            return self
        kept = np.rint(np.linspace(len(self.timesteps) - 1, 0, num_steps)).astype(np.int64)[::-1].copy()
        alpha_bars = self.alpha_bars[kept]
        return Schedule(self.timesteps[kept], 1 - alpha_bars / np.concatenate([[1.0], alpha_bars[:-1]]))

    @cached_property
    def alpha_bars(self) -> Float64s:
        """``abar_t``, the product of ``1 - beta`` up to t (DDPM eq. 4)."""
        return np.cumprod(1 - self.betas, dtype=np.float64)

    @cached_property
    def posterior(self) -> tuple[Float64s, Float64s, Float64s]:
        """The weights of x0 and x_t in the mean of q(x_{t-1} given x_t, x0), and its variance (DDPM eq. 7)."""
        alpha_bars = self.alpha_bars
        before = np.concatenate([[1.0], alpha_bars[:-1]])
        of_x0 = np.sqrt(before) * self.betas / (1 - alpha_bars)
        of_xt = np.sqrt(1 - self.betas) * (1 - before) / (1 - alpha_bars)
        return of_x0, of_xt, self.betas * (1 - before) / (1 - alpha_bars)

    @cached_property
    def deterministic(self) -> tuple[Float64s, Float64s]:
        """The weights of x0 and x_t in DDIM's x_{t-1} without noise (Song et al. 2021, arXiv 2010.02502, eq. 12).

        The noise in x_t, ``(x_t - sqrt(abar_t) x0) / sqrt(1 - abar_t)``, is scaled to the level of the previous step.
        """
        alpha_bars = self.alpha_bars
        before = np.concatenate([[1.0], alpha_bars[:-1]])
        of_xt = np.sqrt((1 - before) / (1 - alpha_bars))
        return np.sqrt(before) - np.sqrt(alpha_bars) * of_xt, of_xt


def unit(x: Tensor) -> Tensor:
    """Return ``x`` scaled to length 1 along its last dimension."""
    return torch.nn.functional.normalize(x, dim=-1)


class ForwardProcess(torch.nn.Module):
    """q(x_t given x0): ``x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps``, each token with its own t (DDPM eq. 4)."""

    signal: Tensor
    noise: Tensor

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        alpha_bars = torch.from_numpy(schedule.alpha_bars)
        dtype = torch.get_default_dtype()
        self.register_buffer("signal", alpha_bars.sqrt().to(dtype), persistent=False)
        self.register_buffer("noise", (1 - alpha_bars).sqrt().to(dtype), persistent=False)

    def forward(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Return ``x_t`` [N, D] from ``x0`` [N, D], timesteps ``t`` [N] and unit noise ``eps`` [N, D]."""
        return self.signal[t, None] * x0 + self.noise[t, None] * eps


class Denoiser(Protocol):
    """Predicts ``x0_hat`` [B, D] from ``x`` [B, D] at the timestep ``t``."""

    def __call__(self, x: Tensor, t: int, /) -> Tensor: ...  # noqa: D102


def samples(
    denoise: Denoiser,
    schedule: Schedule,
    noise: Callable[[int], Tensor],
    *,
    sampler: Sampler = "ancestral",
    variance: Literal["forward", "posterior"] = "forward",
    project: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Run the reverse process from pure noise to ``x0`` (DDPM algorithm 2, with a prediction of x0).

    Yield the S + 1 samples [B, D]: the initial one, ``noise(S)``, then that of each step, the last of which is x0.
    ``noise(i)`` is the unit noise [B, D] added at step i, S-1..1. Its ``variance`` is the forward process's ``beta_i``
    ("fixed large") or the posterior's ("fixed small", DDPM section 3.2). No noise is added at i = 0, nor at any step by
    the sampler ``ddim``. ``project`` is applied to every sample except the initial one.
    """
    of_x0, of_xt = schedule.deterministic if sampler == "ddim" else schedule.posterior[:2]
    variances = schedule.betas if variance == "forward" else schedule.posterior[2]
    num_steps = len(schedule.timesteps)
    x = noise(num_steps)  # [B, D]
    yield x
    for i in reversed(range(num_steps)):
        x0_hat = denoise(x, int(schedule.timesteps[i]))  # [B, D]
        x = float(of_x0[i]) * x0_hat + float(of_xt[i]) * x
        if i > 0 and sampler == "ancestral":
            x = x + math.sqrt(variances[i]) * noise(i)
        if project is not None:
            x = project(x)
        yield x


def sample(denoise: Denoiser, schedule: Schedule, noise: Callable[[int], Tensor], **options: Any) -> Tensor:
    """Return the last of :func:`samples`, ``x0`` [B, D]; ``options`` are its keywords."""
    return deque(samples(denoise, schedule, noise, **options), maxlen=1).pop()
