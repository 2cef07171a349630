"""The first stage of training, kept for every job that begins alike: ADRec's pre-training above all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adrec.augment.diffuasr import NETWORKS as AUGMENTING
from adrec.models.registry import NetworkModel
from adrec.train.checkpoint import Place, Snapshot, read_snapshot, write_snapshot
from adrec.train.loop import Trainer


def first_stage_key(
    model: NetworkModel, fingerprint: str, split: str, seed: int, device: str = "cpu", source: str = ""
) -> str | None:
    """Return the hash of all that makes a model's first stage; None where nothing can be taken over from it.

    A later stage that begins with the embedding of the one before depends on it by that alone, and by the place of the
    random generators, which a GPU's and a CPU's cannot take from each other. ``source`` is the digest of the code of a
    user's own model.
    """
    config = model.training
    stages = [(name, stage) for name, stage in config.all_stages.items() if stage.epochs > 0]
    if len(stages) < 2 or stages[1][1].begins_with != "embedding":
        return None
    name, stage = stages[0]
    network = {**model.networks, **AUGMENTING}[stage.network_kind]
    settings = asdict(config.network_of(stage.network_kind))
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


class FirstStages:
    """A folder of first stages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def lent(
        self, trainer: Trainer, key: str | None, spent: Mapping[str, float], wait: Callable[[], None]
    ) -> Iterator[dict[str, Any]]:
        """Let ``trainer`` begin behind its first stage where that is kept, else keep it once it has ended.

        Yields what the stage that was taken over had cost, empty where none was. Other processes that need the same
        stage wait for it meanwhile.

        Args:
            trainer: at its beginning, or where it was interrupted.
            key: the stage's; None where nothing is shared.
            spent: what a trainer that goes on has spent on the stage already: ``{"seconds": .., "core_seconds": ..}``.
            wait: is called now and then while another process has the stage; what it raises ends the waiting.
        """
        taken: dict[str, Any] = {}
        if key is None or trainer.place.stage > 0:
            yield taken
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock, place = FileLock(self.folder / f"{key}.lock"), self.folder / f"{key}.safetensors"
        _acquire(lock, wait)
        try:
            if place.exists() and trainer.place == Place():
                snapshot = read_snapshot(place)
                taken |= snapshot.values["cost"]
                trainer.restore(Snapshot(snapshot.tensors, snapshot.values["place"]))
                lock.release()
            else:
                self._keep_when_ended(trainer, place, lock, spent)
            yield taken
        finally:
            lock.release(force=True)

    def _keep_when_ended(self, trainer: Trainer, place: Path, lock: FileLock, spent: Mapping[str, float]) -> None:
        before, cost = trainer.on_epoch, dict(spent)

        def on_epoch(row: Mapping[str, Any]) -> None:
            for kind in cost:
                cost[kind] += row[kind]
            before(row)

        def on_stage(name: str) -> None:
            if trainer.place.stage != 1:
                return
            whole = trainer.snapshot()
            kept = {
                key: value for key, value in whole.tensors.items() if key.split("/")[0] in ("generator", "selected")
            }
            values = {"place": asdict(replace(trainer.place, rows=0)), "cost": cost}
            write_snapshot(place, Snapshot(kept, values))
            lock.release(force=True)

        trainer.on_epoch, trainer.on_stage = on_epoch, on_stage


def _acquire(lock: FileLock, wait: Callable[[], None]) -> None:
    while True:
        try:
            lock.acquire(timeout=1.0)
            return
        except Timeout:
            wait()
