"""Sharing of the first training stage between jobs with the same one, mainly ADRec's pre-training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adrec.augment.model import NETWORKS, AugmentTraining
from adrec.models.network import NetworkModel
from adrec.train.callbacks import Callback
from adrec.train.checkpoint import Progress, Snapshot, read_snapshot, write_snapshot
from adrec.train.loop import Trainer
from adrec.utils.files import write_json

TAKEN = "taken.json"  # in a run's folder: the cost of a reused first stage


def first_stage_key(
    model: NetworkModel, fingerprint: str, split: str, seed: int, device: str = "cpu", source: str = ""
) -> str | None:
    """Return the hash of everything that determines a model's first stage; None if the stage cannot be reused.

    A later stage that starts from the previous stage's embedding depends only on that embedding and on the state of the
    random generators, which is not transferable between CPU and GPU. ``source`` is the digest of the code of a user's
    own model.
    """
    config, networks = model.training, model.networks
    if config.augment is not None:
        config, networks = AugmentTraining.of(config, config.augment), NETWORKS
    stages = list(config.stages.items())
    if len(stages) < 2 or stages[1][1].start != "embedding":
        return None
    name, stage = stages[0]
    network = networks[stage.network]
    settings = asdict(config.network_of(stage.network))
    decisive = {
        "data": [fingerprint, split, seed],
        "network": f"{network.__module__}.{network.__qualname__}",
        "settings": {key: value for key, value in settings.items() if network.reads is None or key in network.reads},
        "training": [config.batch_size, config.tokens_per_step, config.max_tokens, config.precision],
        "stage": [name, asdict(stage)],
        **({} if device == "cpu" else {"device": device}),
        **({"source": source} if source else {}),
    }
    return hashlib.blake2b(json.dumps(decisive, sort_keys=True).encode(), digest_size=8).hexdigest()


class SharedFirstStage(Callback):
    """Starts a training after its first stage if that stage is stored; otherwise stores the stage when it ends.

    Other processes that need the same stage wait for it.

    Args:
        folder: of kept first stages.
        key: the stage's; None where nothing is shared.
        run: the folder of the run, where the cost of a stage that is taken over is noted (:data:`TAKEN`).
        spent: returns what a training that is resumed has spent on the stage, once its later rows were dropped:
            ``{"seconds": .., "core_seconds": ..}``.
        wait: is called now and then while another process has the stage; what it raises ends the waiting.
    """

    def __init__(
        self,
        folder: Path,
        key: str | None,
        run: Path,
        spent: Callable[[], Mapping[str, float]],
        wait: Callable[[], None],
    ) -> None:
        self.folder, self.key, self.run, self.wait = folder, key, run, wait
        self.spent, self.cost = spent, dict[str, float]()
        self.trainer: Trainer | None = None  # the one whose first stage is to be kept
        self.lock: FileLock | None = None

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.key}.safetensors"

    @contextmanager
    def around(self, trainers: Sequence[Trainer]) -> Iterator[None]:
        """Take the first stage over, or keep others from training it until it has ended."""
        first, self.cost = trainers[0], dict(self.spent())
        if self.key is None or first.progress.stage > 0:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.folder / f"{self.key}.lock")
        _acquire(self.lock, self.wait)
        try:
            if self._file.exists() and first.progress == Progress():
                snapshot = read_snapshot(self._file)
                first.restore(Snapshot(snapshot.tensors, snapshot.values["progress"]))
                write_json(self.run / TAKEN, snapshot.values["cost"])
                self.lock.release()
            else:
                self.trainer = first
            yield
        finally:
            self.lock.release(force=True)

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """Count what the stage costs."""
        if self.trainer is not None and self.trainer.progress.stage == 0:
            for kind in self.cost:
                self.cost[kind] += row[kind]

    def on_stage_end(self, name: str) -> None:
        """Keep the first stage."""
        if self.trainer is None or self.lock is None or self.trainer.progress.stage != 1:
            return
        if not self.trainer.progress.ended[-1].get("cut"):  # a stage cut short by time would cut all later jobs'
            self._write(self.trainer)
        self.trainer = None
        self.lock.release(force=True)

    def _write(self, trainer: Trainer) -> None:
        whole = trainer.snapshot()
        kept = {key: value for key, value in whole.tensors.items() if key.split("/")[0] in ("generator", "selected")}
        progress = asdict(replace(trainer.progress, rows=0))
        write_snapshot(self._file, Snapshot(kept, {"progress": progress, "cost": self.cost}))


def _acquire(lock: FileLock, wait: Callable[[], None]) -> None:
    while True:
        try:
            lock.acquire(timeout=1.0)
            return
        except Timeout:
            wait()
