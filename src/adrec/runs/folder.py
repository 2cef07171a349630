"""The run folder: all files of one training run.

========================  ================================================================================
``config.json``           the full configuration
``run.json``              data, split, seed, environment, digests; once finished, the stages and their chosen epochs
``metrics.jsonl``         one line per epoch: stage, epoch, losses, seconds, core-seconds, validation metrics
``state-*.safetensors``   the last two snapshots (:mod:`adrec.runs.states`), until the run is finished
``augment-*.safetensors`` the same for an augmentation, until its prefixes are generated
``prefixes.safetensors``  the generated prefixes, until the run is finished
``weights.safetensors``   the selected weights, once the run is finished
``stage1.safetensors``    the item embedding passed on by the first stage, if there are several
``index-*.usearch``       the index of nearest items of ``adrec serve --index``
``onnx``                  what ``adrec export`` wrote, for ``adrec serve --onnx``
``evaluation.json``       what ``adrec evaluate`` found on the test part, for who serves the run
========================  ================================================================================
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adrec.config.base import Settings
from adrec.data.dataset import Dataset, open_dataset, write_dataset
from adrec.data.split import SPLITS, Split
from adrec.models.adrec import ADRecModel
from adrec.models.base import Model
from adrec.models.registry import find_model
from adrec.runs.info import FORMAT_VERSION, RunInfo
from adrec.runs.metrics import NO_ROWS, Metrics, digest_of_lines
from adrec.runs.states import States, remove_states
from adrec.runs.weights import read_weights, write_weights
from adrec.train.checkpoint import Progress, Snapshot, read_snapshot, write_snapshot
from adrec.train.loop import Trainer
from adrec.utils.errors import DataError, RunError
from adrec.utils.files import write_json
from adrec.utils.folders import atomic_folder, locked, recover
from adrec.utils.sealed import check_seal, digest_of, read_json, write_sealed
from adrec.utils.text import counted

STAGE_1 = "stage1.safetensors"
EVALUATION = "evaluation.json"
PREFIXES = "prefixes.safetensors"
OWN, AUGMENT = "state", "augment"  # of the model's trainer and of its augmentation's
REMEDY = "restore the run from a copy, or train it again"


def write_identity(folder: Path, config: Settings, info: RunInfo) -> RunInfo:
    """Write ``config.json`` and ``run.json`` of a run; return the metadata, with the digest of the configuration."""
    values = config.to_dict()
    info = replace(info, config_digest=digest_of(values))
    write_json(folder / "config.json", values)
    write_sealed(folder / "run.json", asdict(info))
    return info


@dataclass(frozen=True)
class Run:
    """A run folder that has been opened."""

    path: Path
    config: Settings
    info: RunInfo
    model_class: type[Model] = ADRecModel
    _states: dict[str, States] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def create(cls, path: Path, model: Model, info: RunInfo) -> Run:
        """Create the folder of a new run. Raises :class:`UserError` if ``path`` is already in use."""
        if (path / "run.json").is_file():
            raise RunError(
                f"{path} holds a run already; choose another --out, or --overwrite a finished one (an unfinished one "
                f"is resumed with adrec train --resume {path})."
            )
        with atomic_folder(path) as folder:
            info = write_identity(folder, model.config, info)
        return cls(path, model.config, info, type(model))

    @classmethod
    def open(cls, path: Path, model: type[Model] | None = None) -> Run:
        """Open a run folder, finished or not; ``model`` is its class if that is the user's own code.

        Raises:
            RunError: if there is no run, or it is damaged or of a newer version.
        """
        path = Path(path)
        recover(path)
        if path.is_file():
            raise RunError(f"{path} is a file, not a run folder; name a folder that `adrec train` wrote.")
        if not path.is_dir():
            raise RunError(f"there is no run folder {path}; `adrec train DATA --out {path}` makes one.")
        if not (path / "run.json").is_file():
            hint = "a prepared data set, not a run" if (path / "dataset.json").is_file() else "not a run folder"
            raise RunError(f"{path} is {hint} (it has no run.json); name a folder that `adrec train` wrote.")
        values = read_json(path / "run.json", RunError, REMEDY)
        version = values.get("format_version")
        if not isinstance(version, int) or str(values.get("split")).partition(":")[0] not in SPLITS:
            raise RunError(
                f"{path / 'run.json'} has no format_version or no split that is known; restore it from a copy."
            )
        if version > FORMAT_VERSION:
            raise RunError(f"{path} was written by a newer adrec ({values.get('adrec_version')}); upgrade adrec.")
        if version < FORMAT_VERSION:
            raise RunError(f"{path} was written by an older adrec ({values.get('adrec_version')}); train it again.")
        content = check_seal(path / "run.json", values, RunError, REMEDY)
        try:
            info = RunInfo(**content)
        except TypeError as error:
            raise RunError(f"{path / 'run.json'} does not have the fields of a run; {REMEDY}.") from error
        config = read_json(path / "config.json", RunError, REMEDY)
        if digest_of(config) != info.config_digest:
            raise RunError(f"{path / 'config.json'} is not the configuration of this run; {REMEDY}.")
        model = model or find_model(info.model)
        run = cls(path, model.Config.from_dict(config), info, model)
        if info.finished:
            run._remove_leftovers()
        return run

    def dataset(self, data: Path | None = None, *, newer: bool = False) -> Dataset:
        """Open the data set that the run was trained on, at its recorded path or at ``data``.

        Args:
            data: its current path.
            newer: also accept a data set prepared later with the same vocabulary.

        Raises:
            DataError: if it is missing or is another data set.
        """
        recorded = [self.path / self.info.data_beside, Path(self.info.data)]
        if data is None:
            data = next((each for each in recorded if (each / "dataset.json").is_file()), recorded[1])
        if not data.is_dir():
            raise DataError(
                f"the data set of {self.path} is not at {data}; give its path with "
                + ("--data (data= in Python)." if self.info.finished else f"adrec train DATA --resume {self.path}.")
            )
        dataset = open_dataset(data)
        dataset.verify()
        same = dataset.fingerprint == self.info.data_fingerprint
        if not same and not dataset.catalogue.starts_with(self.info.catalogue, self.info.num_items):
            raise DataError(
                f"{data} is not the data set that {self.path} was trained on (its fingerprint differs), nor one "
                "prepared into its vocabulary (adrec prepare --vocabulary)."
            )
        if not same and not newer:
            what = (
                f"is split as {dataset.info.split}, and {self.path} was trained on {self.info.split}"
                if dataset.info.split != self.info.split
                else f"is another version of the data set that {self.path} was trained on"
            )
            raise DataError(
                f"{data} {what}; a run can recommend from it and be refitted on it, but not be evaluated or resumed."
            )
        return dataset

    def split(self, dataset: Dataset) -> Split:
        """Return the run's split of ``dataset``."""
        return self.info.split_of(dataset)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run against training by other processes.

        Raises :class:`RunError` if it is already locked, or another process has finished it.
        """
        with locked(self.path, f"another process is training {self.path}; wait for it, or stop it first."):
            if read_json(self.path / "run.json", RunError, REMEDY).get("finished"):
                raise RunError(f"the run {self.path} is finished already; there is nothing to resume.")
            yield

    def states(self, trainer: Trainer, trainers: Sequence[Trainer]) -> States:
        """Return the snapshots of one of the run's ``trainers``; the last is the model's own."""
        name = OWN if trainer is trainers[-1] else AUGMENT
        if name not in self._states:
            self._states[name] = States(self.path, name, self.info.identity)
        return self._states[name]

    def restore(self, trainers: Sequence[Trainer], *, older: bool = False) -> list[str]:
        """Restore ``trainers`` from the run's snapshots, and drop rows of metrics that came later.

        With ``older``, the last trainer's is the snapshot before the last one, if there is one.

        Return a sentence on each snapshot that is damaged, and if there are rows but no snapshot. Raises
        :class:`RunError` if no snapshot is whole, or earlier rows of metrics were altered.
        """
        if self.info.finished:
            raise RunError(f"the run {self.path} is finished already; there is nothing to resume.")
        kept, metrics, told = 0, NO_ROWS, list[str]()
        for trainer in trainers:
            states = self.states(trainer, trainers)
            if trainer is not trainers[-1] and (self.path / PREFIXES).exists():
                values = self._snapshot(PREFIXES).values
                trainer.progress = Progress(len(trainer.stages), rows=values["rows"], ended=values["ended"])
                metrics = values["metrics"]
            elif (found := states.read(older=older and trainer is trainers[-1])) is not None:
                snapshot, metrics = found
                trainer.restore(snapshot)
                told += [f"{each.rstrip('.')} (it goes on from the snapshot before it)." for each in states.told]
            kept += trainer.progress.rows
        lines, path = self.metrics.lines(), self.metrics.path
        if digest_of_lines(lines[:kept]) != metrics:
            raise RunError(f"{path} was altered: its rows are not those before the snapshot; {REMEDY}.")
        if lines and not kept and metrics == NO_ROWS:
            told.append(f"{self.path} has no snapshot of its {counted(len(lines), 'epoch')}: it begins anew.")
        self.metrics.keep(kept)
        return told

    @property
    def metrics(self) -> Metrics:
        """The rows of metrics."""
        return Metrics(self.path / "metrics.jsonl")

    def _snapshot(self, name: str) -> Snapshot:
        """Read one of the run's files. Raises :class:`RunError` if it is damaged or another run's."""
        snapshot = read_snapshot(self.path / name)
        if snapshot.values.get("run") != self.info.identity:
            raise RunError(f"{self.path / name} is of another run or of other settings; {REMEDY}.")
        return snapshot

    def keep_prefixes(self, prefixes: Tensor, progress: Progress) -> None:
        """Write the prefixes generated by an augmentation, int64 [U, M], and its progress; they replace its state."""
        values: dict[str, Any] = {"run": self.info.identity, "metrics": self.metrics.digest()}
        values |= {"ended": progress.ended, "rows": progress.rows}
        write_snapshot(self.path / PREFIXES, Snapshot({"prefixes": prefixes}, values))
        remove_states(self.path, AUGMENT)

    def prefixes(self) -> Tensor | None:
        """Return the prefixes generated by an augmentation, int64 [U, M]; None if there are none."""
        return self._snapshot(PREFIXES).tensors["prefixes"] if (self.path / PREFIXES).exists() else None

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of metrics of the epochs so far. Raises :class:`RunError` if they were altered."""
        if self.info.finished and self.metrics.digest() != self.info.metrics_digest:
            raise RunError(f"{self.metrics.path} was altered after the run was finished; {REMEDY}.")
        return self.metrics.rows()

    def keep_stage_1(self, embedding: Tensor) -> None:
        """Save the item embedding passed on by the first stage, [V + 1, D]; an existing one is not replaced."""
        if not (self.path / STAGE_1).exists():
            values = {"run": self.info.identity}
            write_snapshot(self.path / STAGE_1, Snapshot({"item_embedding": embedding}, values))

    def stage_1(self) -> Tensor | None:
        """Return the item embedding passed on by the first stage, [V + 1, D]; None if there is none."""
        return self._snapshot(STAGE_1).tensors["item_embedding"] if (self.path / STAGE_1).exists() else None

    def finish(self, model: Model, stages: Sequence[Mapping[str, Any]], info: RunInfo | None = None) -> Run:
        """Write the weights of the model and a record of each stage, and return the finished run.

        ``info`` replaces the run's metadata.
        """
        weights = write_weights(self.path / "weights.safetensors", model)
        info = replace(
            info or self.info,
            finished=True,
            stages=tuple(stages),
            config_digest=self.info.config_digest,
            weights_digest=weights,
            metrics_digest=self.metrics.digest(),
        )
        write_sealed(self.path / "run.json", asdict(info))
        run = replace(self, info=info)
        run._remove_leftovers()
        return run

    def _remove_leftovers(self) -> None:
        """Remove what only an unfinished run needs; a process that is killed on finishing leaves it."""
        with contextlib.suppress(OSError):  # of a run that may only be read
            for name in (OWN, AUGMENT):
                remove_states(self.path, name)
            (self.path / PREFIXES).unlink(missing_ok=True)

    def require_finished(self) -> None:
        """Raise :class:`RunError` if the run is not finished."""
        if not self.info.finished:
            raise RunError(f"the run {self.path} is not finished; resume it with `adrec train --resume {self.path}`.")

    def model(self, device: torch.device | None = None) -> Model:
        """Return the trained model.

        Raises:
            RunError: if the run is not finished, or its weights are missing or damaged.
        """
        self.require_finished()
        model, path = self.model_class(self.config), self.path / "weights.safetensors"
        return read_weights(path, model, self.info.seed, device, self.info.weights_digest)


@contextmanager
def open_or_create(path: Path, model: Model, info: RunInfo, dataset: Dataset) -> Iterator[Run]:
    """Yield the run at ``path``, locked: a new one, or an unfinished one of the same data, settings and seed.

    An unfinished run keeps its own device. A data set without a folder is written into the run's folder. Raises
    :class:`RunError` for any other run.
    """
    if (path / "run.json").is_file():
        run = Run.open(path, type(model))
        there, ours = (
            {
                "data set": each.data_fingerprint,
                "split": each.split,
                "configuration": config.to_dict(),
                "seed": each.seed,
            }
            for each, config in ((run.info, run.config), (info, model.config))
        )
        other = next((name for name in ours if there[name] != ours[name]), None)
        if run.info.finished or other is not None:
            why = "finished" if run.info.finished else f"of another {other}"
            raise RunError(f"{path} holds a run that is {why}; load it, or choose another folder.")
    else:
        run = Run.create(path, model, info)
    if dataset.path is None and not (path / "data").exists():
        write_dataset(dataset, path / "data")
    with run.locked():
        yield run
