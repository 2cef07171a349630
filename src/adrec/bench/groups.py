"""The jobs of a ledger as entries: which jobs are an entry's, and each test user's metrics by seed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from adrec.bench.grid import Entry
from adrec.bench.ledger import Finished, Job
from adrec.evaluate.metrics import Float64s, metric_names, user_values

METRICS = metric_names((5, 10, 20))
COLUMNS = {"all": "rank", "unseen": "rank_unseen"}


@dataclass(frozen=True)
class Group:
    """The final jobs of an entry on a data set, and each user's values of each metric, a table a seed."""

    jobs: list[Finished]
    values: dict[str, list[Float64s]]

    def mean(self, metric: str, kind: str = "all") -> Float64s:
        """Return each user's mean over seeds, [users]."""
        column = METRICS.index(metric)
        found: Float64s = np.mean([table[:, column] for table in self.values[kind]], axis=0)
        return found


def selected(finished: Sequence[Finished], entries: Sequence[Entry]) -> list[Finished]:
    """Return the jobs of ``entries``, under their names."""
    once = {entry.label: entry for entry in entries}  # several grids may have one
    labelled = {(each.job.label, each.job.data, each.job.trial is None) for each in finished}
    return [
        replace(each, job=replace(each.job, label=label))
        for label, entry in once.items()
        for each in finished
        if entry.has(each.job) and not _of_another(each.job, label, once, labelled)
    ]


def _of_another(
    job: Job, label: str, entries: Mapping[str, Entry], labelled: Collection[tuple[str, str, bool]]
) -> bool:
    """Whether the trials of another entry that is shown made ``job``: its search may be a part of this one's.

    A job has the name of the entry that came first. So where an entry of ``labelled`` (name, data, whether final) has
    trials and no final of its own, its trials chose what others' had chosen before, and it is its job too.
    """
    own = entries.get(job.label)
    if not (job.tuned or job.trial is not None) or job.label == label or own is None or not own.has(job):
        return False
    return (label, job.data, False) not in labelled or (label, job.data, True) in labelled


def grouped(finals: Sequence[Finished], users: pl.DataFrame) -> dict[str, Group]:
    """Gather the seeds of each entry; an entry that was computed in another way too becomes several."""
    groups: dict[str, Group] = {}
    labels: dict[tuple[str, str], str] = {}
    owner = users["user"].to_numpy().astype(np.int64)
    for each in finals:
        job = each.job
        settings = json.dumps([job.model, job.source, job.tuned, job.settings], sort_keys=True)
        again = sum(label == each.job.label for label, _ in labels)
        label = labels.setdefault(
            (each.job.label, settings), each.job.label if again == 0 else f"{each.job.label} ({again + 1})"
        )
        group = groups.setdefault(label, Group([], {kind: [] for kind in COLUMNS}))
        ranks = each.ranks()
        group.jobs.append(each)
        for kind, column in COLUMNS.items():
            from_zero = ranks[column].to_numpy().astype(np.int64) - 1
            group.values[kind].append(user_values(METRICS, from_zero, owner))
    return groups


def trials_of(final: Job, finished: Sequence[Finished]) -> int:
    """Return how many trials the settings of ``final`` were chosen by."""
    if not final.tuned:
        return 0
    trials = [each.job for each in finished if each.job.trial is not None]
    return sum((job.data, job.label, job.source) == (final.data, final.label, final.source) for job in trials)
