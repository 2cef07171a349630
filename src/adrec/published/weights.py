"""The published code's module names, and the conversion of its weights to ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_ATTENTION = "attention.linear_layers."

_PREFIXES = {
    "diffu.ag_encoder.transformer_blocks.": "cam.",
    "diffu.net.decoder.transformer_blocks.": "adm.",
    "trm_encoder.transformer_blocks.": "blocks.",
    "diffu.net.decoder.0.": "adm.expand.",
    "diffu.net.decoder.2.": "adm.contract.",
    "diffu.net.decoder.3.": "adm.norm.",
    "diffu.net.time_embed.0.": "time_embedding.expand.",
    "diffu.net.time_embed.2.": "time_embedding.contract.",
    "hist_norm.": "history_norm.",
    "LayerNorm.": "norm.",
    "item_embedding.": "item_embedding.",
}

_PARTS = {
    "attention.w_layer.": "attention.output.",
    "feed_forward.w_1.": "expand.",
    "feed_forward.w_2.": "contract.",
    "input_sublayer.norm.": "attention_norm.",
    "output_sublayer.norm.": "feed_forward_norm.",
}


def from_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights (or gradients) under our names; queries, keys and values become one matrix.

    The published pre-training model holds an unused position embedding, which is left out. Raises
    ``KeyError`` for a name that the published code does not have.
    """
    ours: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name == "position_embedding.weight":
            continue
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            raise KeyError(name)
        rest = name.removeprefix(prefix)
        head, found, tail = rest.partition(_ATTENTION)
        if found:
            number, _, kind = tail.partition(".")
            if number == "0":
                parts = [weights[f"{prefix}{head}{_ATTENTION}{i}.{kind}"] for i in range(3)]
                ours[f"{_PREFIXES[prefix]}{head}attention.query_key_value.{kind}"] = torch.cat(parts)
            continue
        for theirs, part in _PARTS.items():
            rest = rest.replace(theirs, part)
        ours[_PREFIXES[prefix] + rest] = value
    return ours
