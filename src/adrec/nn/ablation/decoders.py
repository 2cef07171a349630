"""Token-wise decoders in place of the ADM's transformer blocks."""

from __future__ import annotations

from torch import Generator, Tensor, nn
from torch.nn.functional import layer_norm, silu

from adrec.nn.initialize import initialize_linear


class MLPDecoder(nn.Module):
    """The token-wise ADM: D -> 4D -> D with SiLU, then a layer norm."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.expand = nn.Linear(hidden_size, 4 * hidden_size)
        self.contract = nn.Linear(4 * hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)

    def initialize(self, rng: Generator) -> None:
        """Draw PyTorch's default weights."""
        initialize_linear(self.expand, rng)
        initialize_linear(self.contract, rng)
        self.norm.reset_parameters()

    def forward(self, z: Tensor) -> Tensor:
        """Transform ``z`` [rows, D]."""
        return self.norm(self.contract(silu(self.expand(z))))


class AdaptiveDecoder(nn.Module):
    """A token-wise denoiser: residual layers with adaptive layer norm.

    The condition and the timestep shift and scale each norm, as in DiT (Peebles and Xie 2023, arXiv 2212.09748). Each
    token is denoised on its own, as in the diffusion loss of Li et al. 2024 (arXiv 2406.11838). The gates and the
    output layer start at 0.
    """

    def __init__(self, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.read = nn.Linear(hidden_size, hidden_size)
        self.condition = nn.Linear(hidden_size, hidden_size)
        self.modulate = nn.ModuleList(nn.Linear(hidden_size, 3 * hidden_size) for _ in range(num_layers))
        self.expand = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_layers))
        self.contract = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_layers))
        self.modulate_output = nn.Linear(hidden_size, 2 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def initialize(self, rng: Generator) -> None:
        """Draw PyTorch's default weights; the modulation layers and the output layer start at 0."""
        for linear in (self.read, self.condition, *self.expand, *self.contract):
            initialize_linear(linear, rng)
        for linear in (*self.modulate, self.modulate_output, self.output):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, time: Tensor, c: Tensor) -> Tensor:
        """Predict x0 from noisy ``x`` and the conditions ``c`` at the embedded ``time``, [N, D] each."""
        size = x.shape[-1:]
        y = silu(self.condition(c) + time)  # [N, D]
        h = self.read(x)
        for modulate, expand, contract in zip(self.modulate, self.expand, self.contract, strict=True):
            shift, scale, gate = modulate(y).chunk(3, dim=-1)  # [N, D] each
            h = h + gate * contract(silu(expand(layer_norm(h, size) * (1 + scale) + shift)))
        shift, scale = self.modulate_output(y).chunk(2, dim=-1)
        return self.output(layer_norm(h, size) * (1 + scale) + shift)
