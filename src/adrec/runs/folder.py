"""The run folder: all files of one training run.

========================  ================================================================================
``config.json``           the full configuration
``run.json``              data, split, seed, environment; once finished, the stages and their chosen epochs
``metrics.jsonl``         one line per epoch: stage, epoch, losses, seconds, core-seconds, validation metrics
``state.safetensors``     the complete state after the last epoch, until the run is finished
``augment.safetensors``   the same for an augmentation, until its prefixes are generated
``prefixes.safetensors``  the generated prefixes, until the run is finished
``weights.safetensors``   the selected weights, once the run is finished
``stage1.safetensors``    the item embedding passed on by the first stage, if there are several
========================  ================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
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
from adrec.runs.weights import read_weights, write_weights
from adrec.train.checkpoint import Progress, Snapshot, read_snapshot, write_snapshot
from adrec.train.loop import Trainer
from adrec.utils.errors import DataError, RunError
from adrec.utils.files import atomic_folder, locked, recover, write_bytes, write_json

STAGE_1 = "stage1.safetensors"
PREFIXES = "prefixes.safetensors"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; the folder is not a complete run.") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON; restore it from a copy or train again.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} does not hold a JSON object; restore it from a copy or train again.")
    return value


@dataclass(frozen=True)
class Run:
    """A run folder that has been opened."""

    path: Path
    config: Settings
    info: RunInfo
    model_class: type[Model] = ADRecModel

    @classmethod
    def create(cls, path: Path, model: Model, info: RunInfo) -> Run:
        """Create the folder of a new run. Raises :class:`UserError` if ``path`` is already in use."""
        if (path / "run.json").is_file():
            raise RunError(
                f"{path} holds a run already; choose another --out, or --overwrite a finished one (an unfinished one "
                f"is resumed with adrec train --resume {path})."
            )
        with atomic_folder(path) as folder:
            write_json(folder / "config.json", model.config.to_dict())
            write_json(folder / "run.json", asdict(info))
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
        values = _read_json(path / "run.json")
        version = values.get("format_version")
        if not isinstance(version, int) or str(values.get("split")).partition(":")[0] not in SPLITS:
            raise RunError(
                f"{path / 'run.json'} has no format_version or no split that is known; restore it from a copy."
            )
        if version > FORMAT_VERSION:
            raise RunError(f"{path} was written by a newer adrec ({values.get('adrec_version')}); upgrade adrec.")
        if version < FORMAT_VERSION:
            raise RunError(f"{path} was written by an older adrec ({values.get('adrec_version')}); train it again.")
        known = {item.name for item in fields(RunInfo)}
        try:
            info = RunInfo(**{key: value for key, value in values.items() if key in known})
        except TypeError as error:
            raise RunError(f"{path / 'run.json'} lacks required fields; restore it from a copy.") from error
        model = model or find_model(info.model)
        return cls(path, model.Config.from_dict(_read_json(path / "config.json")), info, model)

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
            if _read_json(self.path / "run.json")["finished"]:
                raise RunError(f"the run {self.path} is finished already; there is nothing to resume.")
            yield

    def state_path(self, trainer: Trainer, trainers: Sequence[Trainer]) -> Path:
        """Return the path of the state of one of the run's ``trainers``; the last is the model's own."""
        return self.path / ("state.safetensors" if trainer is trainers[-1] else "augment.safetensors")

    def restore(self, trainers: Sequence[Trainer]) -> None:
        """Restore ``trainers`` from the run's state, and drop rows of metrics whose state was not saved.

        Raises :class:`RunError` if a state is damaged.
        """
        kept = 0
        for trainer in trainers:
            path = self.state_path(trainer, trainers)
            if trainer is not trainers[-1] and (self.path / PREFIXES).exists():
                values = read_snapshot(self.path / PREFIXES).values
                trainer.progress = Progress(len(trainer.stages), rows=values["rows"], ended=values["ended"])
            elif path.exists():
                trainer.restore(read_snapshot(path))
            kept += trainer.progress.rows
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        if len(lines) > kept:
            write_bytes(path, "".join(lines[:kept]).encode())

    def keep_prefixes(self, prefixes: Tensor, progress: Progress) -> None:
        """Write the prefixes generated by an augmentation, int64 [U, M], and its progress; they replace its state."""
        values = {"ended": progress.ended, "rows": progress.rows}
        write_snapshot(self.path / PREFIXES, Snapshot({"prefixes": prefixes}, values))
        (self.path / "augment.safetensors").unlink(missing_ok=True)

    def prefixes(self) -> Tensor | None:
        """Return the prefixes generated by an augmentation, int64 [U, M]; None if there are none."""
        path = self.path / PREFIXES
        return read_snapshot(path).tensors["prefixes"] if path.exists() else None

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of metrics of the epochs so far."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]  # a killed process leaves half a line

    def keep_stage_1(self, embedding: Tensor) -> None:
        """Save the item embedding passed on by the first stage, [V + 1, D]; an existing one is not replaced."""
        if not (self.path / STAGE_1).exists():
            write_snapshot(self.path / STAGE_1, Snapshot({"item_embedding": embedding}, {}))

    def stage_1(self) -> Tensor | None:
        """Return the item embedding passed on by the first stage, [V + 1, D]; None if there is none."""
        path = self.path / STAGE_1
        return read_snapshot(path).tensors["item_embedding"] if path.exists() else None

    def finish(self, model: Model, stages: Sequence[Mapping[str, Any]], info: RunInfo | None = None) -> Run:
        """Write the weights of the model and a record of each stage, and return the finished run.

        ``info`` replaces the run's metadata.
        """
        write_weights(self.path / "weights.safetensors", model)
        info = replace(info or self.info, finished=True, stages=tuple(stages))
        write_json(self.path / "run.json", asdict(info))
        for name in ("state.safetensors", PREFIXES):
            (self.path / name).unlink(missing_ok=True)
        return replace(self, info=info)

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
        return read_weights(self.path / "weights.safetensors", self.model_class(self.config), self.info.seed, device)


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
