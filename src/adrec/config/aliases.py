"""Names that keys of the configuration have in other libraries."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("lr", "alpha"), "learning_rate"),
        **dict.fromkeys(("wd", "decay", "l2"), "weight_decay"),
        **dict.fromkeys(("dim", "d", "d_model", "embedding_dim", "embedding_size", "factors"), "hidden_size"),
        **dict.fromkeys(("heads", "n_heads", "num_attention_heads"), "num_heads"),
        **dict.fromkeys(("layers", "n_layers", "num_layers", "blocks", "n_blocks"), "num_blocks"),
        **dict.fromkeys(("maxlen", "max_len", "max_seq_length", "session_max_len", "seq_len"), "max_length"),
        **dict.fromkeys(("bs", "train_batch_size"), "batch_size"),
        **dict.fromkeys(("n_epochs", "num_epochs", "max_epochs"), "epochs"),
        **dict.fromkeys(("steps", "num_steps"), "num_inference_steps"),
    }
)
