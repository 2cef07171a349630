"""``torchrun .. -m adrec train`` and ``evaluate``: what the processes do beside the work that they share."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from adrec._version import __version__
from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.models.base import Model
from adrec.models.factory import find_device
from adrec.models.network import NetworkModel
from adrec.nn.ranks import Ranks
from adrec.runs.fit import fit
from adrec.runs.folder import Run
from adrec.train.ranked import check_ranked
from adrec.utils.errors import ConfigError
from adrec.utils.platforms import is_started_by_torchrun
from adrec.utils.sealed import digest_of


def start_ranks(device: str, resumed: Path | None = None) -> Ranks | None:
    """Connect the processes that ``torchrun`` started, until this one ends; None in a process that was started alone.

    The device is ``device``, or that of the run that is ``resumed``.
    """
    if not is_started_by_torchrun():
        return None
    if resumed is not None:
        device = torch.device(Run.open(resumed).info.device).type
    ranks = Ranks.start(find_device(device))
    atexit.register(ranks.end)
    return ranks


def agree(ranks: Ranks, model: Model, dataset: Dataset, split: Split, seed: int) -> None:
    """Raise :class:`ConfigError` on every rank unless all have the same versions, data, settings and seed."""
    if not isinstance(model, NetworkModel):
        raise ConfigError(f"{model.name} learns in one process; start it without torchrun.")
    check_ranked(model.training, model.networks)
    check_versions(
        ranks,
        {
            "data": f"{dataset.info.name} {dataset.fingerprint}",
            "split": split.name,
            "settings": digest_of(model.config.to_dict()),
            "seed": str(seed),
        },
    )


def check_versions(ranks: Ranks, values: Mapping[str, str]) -> None:
    """Raise :class:`ConfigError` on every rank unless all have the same versions, and the same named ``values``."""
    ranks.check_same({"version of adrec": __version__, "version of PyTorch": torch.__version__, **values})


def follow(
    ranks: Ranks, model: Model, dataset: Dataset, split: Split, seed: int, validate_users: int | None, recover: bool
) -> NoReturn:
    """Take part in the training of rank 0, and end this process."""
    how: dict[str, Any] = {"device": ranks.device, "validate_users": validate_users, "recover": recover}
    fit(model, dataset, split, seed=seed, ranks=ranks, **how)
    raise SystemExit(0)
