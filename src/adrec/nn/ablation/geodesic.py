"""Diffusion on the unit sphere, an option of the published code."""

from __future__ import annotations

import torch
from torch import Tensor

from adrec.nn.diffusion import ForwardProcess


def exponential_map(x0: Tensor, v: Tensor) -> Tensor:
    """Return ``cos(|v|) x0 + sin(|v|) v / |v|``, the published code's geodesic step from ``x0`` along ``v``."""
    length = v.norm(dim=-1, keepdim=True)
    return torch.cos(length) * x0 + torch.sin(length) * v / length


class GeodesicForwardProcess(ForwardProcess):
    """``x_t = exp_x0(v)``, where v is the noised vector and not a tangent."""

    def forward(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Return ``x_t`` [N, D] from ``x0`` [N, D], timesteps ``t`` [N] and unit noise ``eps`` [N, D]."""
        return exponential_map(x0, super().forward(x0, t, eps))
