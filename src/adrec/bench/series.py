"""A series: one entry on one data set, with its seeds, trials and jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adrec.bench.grid import Entry
from adrec.bench.ledger import Job
from adrec.data.dataset import Dataset
from adrec.data.split import Split


@dataclass(frozen=True)
class Series:
    """An entry on a data set.

    Attributes:
        data: the prepared data set's folder.
        entry: what is trained.
        seeds: of the final models.
        trials: of tuning; 0 takes the entry's own settings.
    """

    data: Path
    entry: Entry
    seeds: tuple[int, ...]
    trials: int = 0

    @property
    def tuned(self) -> bool:
        """Whether its settings are searched for."""
        return self.trials > 0 and bool(self.entry.search)

    def apart(self) -> Iterator[Series]:
        """Yield the parts that can run in separate processes: each seed, unless the seeds depend on tuning."""
        if self.tuned:
            yield self
        else:
            yield from (replace(self, seeds=(seed,)) for seed in self.seeds)


def make_job(
    series: Series,
    dataset: Dataset,
    split: Split,
    seed: int,
    changes: Mapping[str, Any] | None = None,
    trial: int | None = None,
) -> Job:
    """Return the job of a series with a seed, and ``changes`` that tuning found or tries."""
    return Job(
        data=dataset.info.name,
        fingerprint=dataset.fingerprint,
        split=split.name,
        label=series.entry.label,
        model=series.entry.model,
        config=series.entry.config(changes).to_dict(),
        seed=seed,
        trial=trial,
        source=series.entry.source,
        tuned=series.tuned and trial is None,
    )
