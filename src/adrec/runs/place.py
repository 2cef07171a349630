"""The place of a run: a new folder, or one whose run is replaced once the new one is finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adrec.runs.folder import Run
from adrec.utils.errors import ConfigError
from adrec.utils.folders import RUN, check_folder, put_in_place


@dataclass(frozen=True)
class Place:
    """Where a run is written. A run there is replaced only once the new one, trained beside it, is finished.

    Attributes:
        out: the folder of the run.
        overwrite: whether a run there may be replaced.
    """

    out: Path
    overwrite: bool

    def __post_init__(self) -> None:
        if self.overwrite and self.out.exists() and not (self.out / "run.json").is_file():
            raise ConfigError(f"{self.out} holds no run; --overwrite replaces runs alone.")
        if self.overwrite and (self.out / "data").exists():
            raise ConfigError(f"{self.out} holds its data set too, which would be lost; choose another --out.")
        if self.overwrite:
            check_folder(self.out, overwrite=RUN)

    @property
    def path(self) -> Path:
        """The folder in which to train."""
        if not (self.overwrite and self.out.exists()):
            return self.out
        beside = self.out.with_name(f"{self.out.name}.new")
        if beside.exists():
            raise ConfigError(
                f"{beside} is an unfinished replacement of {self.out}; resume it (adrec train --resume {beside}) and "
                "rename it, or remove it."
            )
        return beside

    def taken(self, run: Run) -> Run:
        """Move the finished run to its place."""
        if run.path == self.out:
            return run
        put_in_place(run.path, self.out, overwrite=RUN)
        return Run.open(self.out, run.model_class)
