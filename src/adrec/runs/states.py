"""The snapshots of a run in training: the last two, and the weights that were chosen so far, each in a file.

==========================  ==============================================================================
``state-0.safetensors``     a snapshot: weights, their average, the optimizer, generators and progress
``state-1.safetensors``     the snapshot before or after it
``state-chosen-*``          the best weights of a stage and those of the stage before, written twice when they change
==========================  ==============================================================================

A snapshot names the run, the rows of metrics before it and the chosen weights by their digests. If the last one is
damaged, the one before is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from adrec.train.checkpoint import Snapshot, read_snapshot, write_snapshot
from adrec.train.loop import Trainer
from adrec.utils.errors import RunError

CHOSEN = ("best", "selected")  # parts of a trainer's snapshot that seldom change


@dataclass
class States:
    """The snapshots of one trainer.

    Attributes:
        folder: the run's folder.
        name: the beginning of the names of the files: ``state``, or ``augment`` of an augmentation's trainer.
        run: the identity of the run (:attr:`adrec.runs.info.RunInfo.identity`).
        number: the number of snapshots that were written.
        told: what is wrong with a damaged snapshot, one sentence each.
    """

    folder: Path
    name: str
    run: str
    number: int = 0
    told: list[str] = field(default_factory=list)
    _chosen: tuple[str, str] | None = None  # the name and the digest of the chosen weights that were written last
    _previous: tuple[str, str] | None = None  # of those before

    def _slot(self, number: int) -> Path:
        return self.folder / f"{self.name}-{number % 2}.safetensors"

    def paths(self) -> list[Path]:
        """Return the snapshots that exist."""
        return [path for path in map(self._slot, range(2)) if path.exists()]

    def write(self, trainer: Trainer, metrics: str) -> None:
        """Write a snapshot in place of the one before the last; ``metrics`` is the digest of the rows before it."""
        whole = trainer.snapshot()
        chosen, rest = _divided(whole.tensors)
        values = {"run": self.run, "metrics": metrics, "number": self.number, "progress": whole.values}
        values["chosen"] = self._write_chosen(trainer, chosen)
        write_snapshot(self._slot(self.number), Snapshot(rest, values))
        self.number += 1
        for old in self.folder.glob(f"{self.name}-chosen-*.safetensors"):
            if old.name not in self._named():
                old.unlink(missing_ok=True)

    def _write_chosen(self, trainer: Trainer, chosen: Mapping[str, Tensor]) -> list[str] | None:
        if not chosen:
            return None
        progress = trainer.progress
        best = progress.best_epoch if trainer.weights.best else 0  # none yet in this stage
        name = f"{self.name}-chosen-{progress.stage}-{best}-{len(progress.halved)}.safetensors"
        if self._chosen is None or self._chosen[0] != name:
            for path in (self.folder / name, _copy(self.folder / name)):  # both snapshots may need it
                digest = write_snapshot(path, Snapshot(chosen, {"run": self.run}))
            self._previous, self._chosen = self._chosen, (name, digest)
        return list(self._chosen)

    def _named(self) -> set[str]:
        """Return the names of the files of chosen weights that the two snapshots may need."""
        names = [each[0] for each in (self._chosen, self._previous) if each is not None]
        return {*names, *(_copy(Path(name)).name for name in names)}

    def read(self, *, older: bool = False) -> tuple[Snapshot, str] | None:
        """Return the last whole snapshot of the trainer and the digest of the rows of metrics before it; None if none.

        With ``older``, the one before it, if there is one.

        Raises :class:`RunError` if there are snapshots, and none is whole.
        """
        found: list[Snapshot] = []
        self.told = []
        for path in self.paths():
            try:
                found.append(self._whole(path))
            except RunError as error:
                self.told.append(str(error))
        if not found:
            if self.told:
                raise RunError(self.told[0])
            return None
        choose = min if older else max
        last = choose(found, key=lambda each: int(each.values["number"]))
        self.number = last.values["number"] + 1
        self._chosen = None if last.values["chosen"] is None else (*last.values["chosen"],)
        self._previous = None
        return Snapshot(last.tensors, last.values["progress"]), last.values["metrics"]

    def _whole(self, path: Path) -> Snapshot:
        snapshot = read_snapshot(path)
        values: Mapping[str, Any] = snapshot.values
        if values.get("run") != self.run:
            raise RunError(f"{path} is of another run or of other settings; restore it from a copy.")
        if values["chosen"] is None:
            return snapshot
        name, digest = values["chosen"]
        chosen = self._read_chosen(self.folder / Path(name).name, digest)
        return Snapshot({**snapshot.tensors, **chosen.tensors}, values)

    def _read_chosen(self, path: Path, digest: str) -> Snapshot:
        """Read chosen weights, or their copy if they are damaged."""
        try:
            chosen = read_snapshot(path)
        except RunError:
            chosen = read_snapshot(_copy(path))
        if chosen.digest != digest:
            raise RunError(f"{path} is not what its snapshot names; restore both from a copy.")
        return chosen


def remove_states(folder: Path, name: str) -> None:
    """Remove the snapshots of a ``name`` in a run's folder, and the weights that they chose."""
    for path in [*folder.glob(f"{name}-[01].safetensors"), *folder.glob(f"{name}-chosen-*.safetensors")]:
        path.unlink(missing_ok=True)


def _copy(path: Path) -> Path:
    return path.with_name(f"{path.stem}-copy.safetensors")


def _divided(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the chosen weights of a snapshot, and the rest."""
    chosen = {name: value for name, value in tensors.items() if name.split("/")[0] in CHOSEN}
    return chosen, {name: value for name, value in tensors.items() if name not in chosen}
