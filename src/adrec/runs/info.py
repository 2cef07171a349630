"""What a run records of itself: ``run.json``."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from adrec._version import __version__
from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.models.adrec import ADRecModel

FORMAT_VERSION = 1


@dataclass(frozen=True)
class RunInfo:
    """What ``run.json`` holds.

    Attributes:
        data: the data set's folder, absolute.
        data_beside: the same, relative to the run's own folder, for when both were moved together.
        data_fingerprint: of the data set that was trained on.
        split: the name of the split.
        seed: of every random number.
        model: its name.
        device: where it was trained.
        threads: of the CPU; with another number results are equal but for rounding.
        environment: versions and machine.
        num_items: the items that the model knows: the first of the data set's.
        catalogue: the digest of their ids; a data set that begins with them can be recommended from.
        num_test: test interactions that the split holds out.
        frame: the kind of table that results are given in.
        refit_of: the run whose settings and epochs a refit took.
        finished: whether weights.safetensors is there.
        stages: what each stage did: its name, its epochs and the epoch whose weights were chosen.
        format_version: of the folder.
        adrec_version: that wrote it.
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
    num_items: int = 0
    catalogue: str = ""
    num_test: int = 0
    frame: str = "polars"
    finished: bool = False
    stages: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)
    format_version: int = FORMAT_VERSION
    adrec_version: str = __version__

    @classmethod
    def of(cls, dataset: Dataset, split: Split, *, out: Path | None = None, **values: Any) -> RunInfo:
        """Return what a run on a split of ``dataset`` records.

        Args:
            dataset: what is trained on; one without a folder is written into the run's own, as ``data``.
            split: of it.
            out: the run's folder, where it has one.
            values: the other fields, such as ``seed``, ``model`` and ``device``.
        """
        place = None if dataset.path is None else dataset.path.resolve()
        return cls(
            **{
                "data": "data" if place is None else str(place),
                "data_beside": "data" if place is None or out is None else os.path.relpath(place, out.resolve()),
                "data_fingerprint": dataset.fingerprint,
                "split": split.name,
                "num_items": split.num_items,
                "catalogue": dataset.catalogue_digest(split.num_items),
                "num_test": len(split.test.users),
                "threads": torch.get_num_threads(),
                "environment": environment(),
                **values,
            }
        )

    def moved(self, out: Path) -> RunInfo:
        """Return the same with the data set's place as seen from the folder ``out``."""
        return replace(self, data_beside=os.path.relpath(self.data, out.resolve()))


def environment() -> dict[str, str]:
    """Return the versions and the machine that a result depends on; ``gpu`` is there where PyTorch has one."""
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
    """Return the processor's name, where Linux tells it; else what Python knows of it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
