"""The losses against PyTorch's own, as a CPU and as a GPU computes them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.losses import project_conflicts


@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["usual", "beyond what float32 can hold"])
@pytest.mark.parametrize("padding_class", [True, False])
@pytest.mark.parametrize("as_gpu", [False, True])
def test_cross_entropy(
    scale: float, padding_class: bool, as_gpu: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = torch.Generator().manual_seed(1)
    x, embedding = torch.randn(50, 8, generator=rng), torch.randn(31, 8, generator=rng)
    x, embedding = ((scale**0.5 * each).to(device).requires_grad_() for each in (x, embedding))
    targets = torch.randint(1, 31, (50,), generator=rng).to(device)
    if as_gpu:
        monkeypatch.setattr(torch.Tensor, "is_cpu", False, raising=False)
    loss = cross_entropy(x, embedding, targets, padding_class=padding_class)
    first = 0 if padding_class else 1
    expected = F.cross_entropy(x.double() @ embedding.double()[first:].T, targets - first)
    torch.testing.assert_close(loss.double(), expected, atol=0, rtol=1e-5)
    for ours, theirs in zip(*(torch.autograd.grad(each, (x, embedding)) for each in (loss, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * scale**0.5, rtol=1e-3)


def test_only_conflicts_are_projected(device: torch.device) -> None:
    a, b, nothing = ([torch.tensor(each, device=device)] for each in ([1.0, 0.0], [-1.0, 1.0], [0.0, 0.0]))
    (projected,) = project_conflicts([a, b])  # a loses its part along b, (-1/2) b; b keeps (0, 1)
    torch.testing.assert_close(projected.cpu(), torch.tensor([0.25, 0.75]))
    for other, mean in ((a, [1.0, 0.0]), (nothing, [0.5, 0.0])):
        assert project_conflicts([a, other])[0].tolist() == mean
