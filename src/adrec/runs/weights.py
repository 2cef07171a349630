"""The weights file of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adrec.models.base import Model
from adrec.models.network import NetworkModel
from adrec.train.checkpoint import Snapshot, read_snapshot, write_snapshot
from adrec.utils.errors import RunError


def write_weights(path: Path, model: Model) -> str:
    """Write the state of a model, with the size of its catalogue; return the digest."""
    values: dict[str, Any] = {"model": model.name, "num_items": model.num_items}
    if isinstance(model, NetworkModel):
        values["network"] = model.kind
    return write_snapshot(path, Snapshot(model.state(), values))


def read_weights(
    path: Path, model: Model, seed: int, device: torch.device | None = None, digest: str | None = None
) -> Model:
    """Load the output of :func:`write_weights` into ``model`` and return it.

    Raises :class:`RunError` if it is damaged, or has another ``digest``.
    """
    snapshot = read_snapshot(path)
    if digest is not None and snapshot.digest != digest:
        raise RunError(f"{path} holds the weights of another run; restore the run from a copy.")
    try:
        num_items = snapshot.values["num_items"]
        if isinstance(model, NetworkModel):
            model.restore(snapshot.tensors, num_items, device, kind=snapshot.values["network"], seed=seed)
        else:
            model.restore(snapshot.tensors, num_items, device)
    except (RuntimeError, KeyError, TypeError) as error:
        raise RunError(f"{path} does not fit the configuration beside it; restore both from a copy.") from error
    return model
