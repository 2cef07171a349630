"""The metadata of a run: ``run.json``."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adrec._version import __version__
from adrec.data.dataset import Dataset
from adrec.data.seen import Seen, leaves_out
from adrec.data.split import Split, make_split
from adrec.evaluate.ranking import held_out
from adrec.inference.confidence import fitted_temperature
from adrec.models.adrec import ADRecModel
from adrec.models.base import Model
from adrec.models.network import NetworkModel
from adrec.utils.sealed import digest_of

FORMAT_VERSION = 3


@dataclass(frozen=True)
class RunInfo:
    """The content of ``run.json``.

    Attributes:
        data: the absolute path of the data set's folder.
        data_beside: the same, relative to the run's folder, in case both were moved together.
        data_fingerprint: the fingerprint of the training data set.
        split: the name of the split.
        seed: the random seed.
        model: the model's name.
        device: the device of training.
        threads: the number of CPU threads; with another number results are equal except for rounding.
        environment: versions and machine.
        num_items: the number of items that the model was trained on: the first ones of the data set.
        catalogue: the digest of their ids; the model can recommend from any data set whose items start with them.
        seen: what the data set does with seen items: ``keep`` or ``leave-out``; what is recommended follows it.
        num_test: the number of test interactions that the split holds out.
        frame: the kind of table in which results are returned.
        refit_of: the run that provided the settings and epochs of a refit.
        started_from: the run whose weights were the initial ones.
        started_digest: the SHA-256 of these weights.
        not_evaluated: users whose held-out items these weights were trained on; nothing of theirs is held out.
        last_time: the time of the latest interaction in the data set; a backtest is on later ones.
        time_unit: the unit of the data set's times.
        finished: whether weights.safetensors exists.
        stages: the record of each stage (:func:`adrec.train.stages.ended_stage`).
        temperature: the temperature of the confidence of recommendations (:mod:`adrec.inference.confidence`); None
            without validation, or if validation does not determine it. A refit takes it over.
        recover: whether a training that diverges goes back to its last snapshot.
        validate_users: the number of validation users that were asked for; None draws only if all would cost too much.
        item_vectors: the table of item vectors that place items without interactions; None without one.
        item_vectors_digest: the SHA-256 of that table.
        config_digest: the digest of ``config.json``.
        weights_digest: the digest of the weights, once it is finished.
        metrics_digest: the digest of ``metrics.jsonl``, once it is finished.
        format_version: the version of the folder's format.
        adrec_version: the version of adrec that wrote it.
    """

    data: str
    data_fingerprint: str
    split: str
    seed: int
    device: str
    threads: int
    environment: Mapping[str, str]
    model: str = ADRecModel.name
    data_beside: str = ""
    refit_of: str | None = None
    started_from: str | None = None
    started_digest: str | None = None
    not_evaluated: tuple[int, ...] = ()
    last_time: float | None = None
    time_unit: str = "none"
    num_items: int = 0
    catalogue: str = ""
    seen: Seen = "leave-out"
    num_test: int = 0
    frame: str = "polars"
    finished: bool = False
    stages: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)
    temperature: float | None = None
    recover: bool = True
    validate_users: int | None = None
    item_vectors: str | None = None
    item_vectors_digest: str | None = None
    config_digest: str = ""
    weights_digest: str = ""
    metrics_digest: str = ""
    format_version: int = FORMAT_VERSION
    adrec_version: str = __version__

    @classmethod
    def of(cls, dataset: Dataset, split: Split, *, out: Path | None = None, **values: Any) -> RunInfo:
        """Return the metadata of a run on a split of ``dataset``.

        Args:
            dataset: the training data set; one without a folder is written into the run's folder, as ``data``.
            split: the split of the data set.
            out: the run's folder, if it has one.
            values: the other fields, such as ``seed``, ``model`` and ``device``.
        """
        folder = None if dataset.path is None else dataset.path.resolve()
        return cls(
            **{
                "data": "data" if folder is None else str(folder),
                "data_beside": "data" if folder is None or out is None else os.path.relpath(folder, out.resolve()),
                "data_fingerprint": dataset.fingerprint,
                "split": split.name,
                "num_items": split.num_items,
                "catalogue": dataset.catalogue_digest(split.num_items),
                "seen": dataset.info.seen,
                "num_test": len(split.test.users),
                "last_time": np.asarray(dataset.times).max().item(),
                "time_unit": dataset.info.time_unit,
                "threads": torch.get_num_threads(),
                "environment": environment(),
                **values,
            }
        )

    def calibrated(self, model: Model, dataset: Dataset, split: Split) -> RunInfo:
        """Return the same metadata with the temperature of a trained network, if ``split`` validates."""
        if not isinstance(model, NetworkModel) or len(split.validation.users) == 0:
            return self
        histories, items = held_out(dataset, split.validation)
        left_out = leaves_out("data", dataset)
        return replace(self, temperature=fitted_temperature(model, histories, items, filter_seen=left_out))

    @property
    def identity(self) -> str:
        """The digest of all that decides what the run's training does; its snapshots name it."""
        decisive = ("config_digest", "data_fingerprint", "split", "seed", "model", "num_items", "recover")
        values = {name: getattr(self, name) for name in decisive}
        for name in ("validate_users", "item_vectors_digest"):
            if getattr(self, name) is not None:
                values[name] = getattr(self, name)
        return digest_of({**values, "from": self.started_digest, "without": list(self.not_evaluated)})

    def split_of(self, dataset: Dataset) -> Split:
        """Return the run's split of its data set."""
        split = make_split(dataset, self.split).without(self.not_evaluated)
        return split if self.item_vectors is None else split.knowing_all(dataset)

    def moved(self, out: Path) -> RunInfo:
        """Return the same metadata with the data set's path relative to the folder ``out``."""
        return replace(self, data_beside=os.path.relpath(self.data, out.resolve()))


def environment() -> dict[str, str]:
    """Return the versions and the machine that a result depends on; ``gpu`` is included if PyTorch finds one."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": str(os.cpu_count()),
        **gpu,
    }


def _processor() -> str:
    """Return the processor's name, from Linux if available, otherwise from Python."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
