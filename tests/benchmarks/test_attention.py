"""The ways that the benchmark compares compute our attention, outputs and gradients."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.attention import DIRECTIONS, Case, tried
from benchmarks.ways import WAYS, Users, joined

USERS = Users(
    np.array([5, 1, 9, 2, 1, 9, 7]), max_length=9, heads=2, head_size=8
)  # two without padding, two of a token
BOTH = ["sdpa in buckets", "softmax in buckets", "sdpa padded to L"]
FORWARD = ["flex_attention"]


@pytest.mark.parametrize("name", BOTH + FORWARD)
def test_agrees(name: str) -> None:
    result = tried(WAYS[name], [Case.of(USERS, torch.Generator().manual_seed(1))])
    assert list(result.differ) == list(DIRECTIONS)[: 2 if name in BOTH else 1], result.why
    assert max(result.differ.values()) < 1e-5


def test_joined_sequences_have_the_bias_in_their_heads() -> None:
    def kernel(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: torch.Tensor, longest: int, scale: float
    ) -> torch.Tensor:
        assert longest == ends.diff().max()
        parts = zip(*(part.split(ends.diff().tolist()) for part in (q, k, v)), strict=True)
        attend = torch.nn.functional.scaled_dot_product_attention
        return torch.cat(
            [attend(*(x.transpose(0, 1) for x in one), is_causal=True, scale=scale).transpose(0, 1) for one in parts]
        )

    for dtype, differs in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        result = tried(partial(joined, kernel=kernel, dtype=dtype), [Case.of(USERS, torch.Generator().manual_seed(1))])
        assert max(result.differ.values()) < differs and result.exact == (dtype == torch.float32), result.why
