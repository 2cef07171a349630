"""Evaluation of runs and of other programs' recommendations, from paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from adrec.cli.ranks import check_versions
from adrec.config.diffusion import Sampler
from adrec.config.stage import SeenOrData
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.split import Split, make_split
from adrec.evaluate.backtest import later, moment, periods
from adrec.evaluate.protocol import Evaluation, evaluate
from adrec.evaluate.tables import evaluate_table
from adrec.models.factory import find_device
from adrec.nn.ranks import Ranks
from adrec.runs.folder import Run
from adrec.utils.errors import ConfigError, RunError


def evaluate_run(
    path: Path,
    part: str,
    *,
    cutoffs: Sequence[int],
    seen: SeenOrData,
    with_batch_means: bool,
    steps: int | None,
    sampler: Sampler | None,
    data: Path | None,
    device: str,
    every: str | None = None,
    on_start: Callable[[int], None] = lambda total: None,
    on_batch: Callable[[int], None],
    ranks: Ranks | None = None,
) -> dict[str, Evaluation]:
    """Evaluate a run; on newer data than its own, on what is later: a backtest. ``ranks`` do it together.

    ``on_start`` is called with the number of held-out items that this process ranks, ``on_batch`` with those done.

    Returns the evaluation by the beginning of its period: of each that is ``every`` long, or one by ``""``.
    """
    run = Run.open(path)
    model = run.model(find_device(device) if ranks is None else ranks.device)
    model.with_inference(steps, sampler)
    dataset = run.dataset(data, newer=True)
    if ranks is not None:
        how = {"on": part, "k": list(cutoffs), "seen": seen, "steps": steps, "sampler": sampler, "every": every}
        check_versions(
            ranks,
            {
                "run": str(run.info.weights_digest),
                "data": dataset.fingerprint,
                "options": ", ".join(f"{name} {value}" for name, value in how.items()),
            },
        )
    newer = dataset.fingerprint != run.info.data_fingerprint
    if run.info.split == "none" and not newer:
        raise RunError(
            f"{path} was trained on all interactions: nothing was held out to evaluate it on; give newer --data."
        )
    if every is not None and not newer:
        raise ConfigError("--every divides what is later than the data of the run; give newer data with --data.")
    splits = {"": run.split(dataset)} if not newer else _later(run, dataset, part, every)
    on_start(sum(len(each.targets(part).users) for each in splits.values()) // (1 if ranks is None else ranks.size))
    seen = run.info.seen if seen == "data" else seen  # what it recommends by
    return {
        begin: evaluate(
            model,
            dataset,
            split,
            part,
            cutoffs=cutoffs,
            seen=seen,
            with_batch_means=with_batch_means,
            on_batch=on_batch,
            ranks=ranks,
        )
        for begin, split in splits.items()
    }


def _later(run: Run, dataset: Dataset, part: str, every: str | None) -> dict[str, Split]:
    """Return the splits of a backtest, by the beginning of their periods."""
    if part != "test":
        raise ConfigError("newer data than those of the run are all test; leave out --on.")
    if run.info.last_time is None:
        raise RunError(f"{run.path} does not say when its data end; train it again.")
    since = moment(run.info.last_time, run.info.time_unit, dataset)
    if np.asarray(dataset.times).max() <= since:
        run.dataset(dataset.path)  # raises, as it is another data set
    split = later(dataset, since, run.info.num_items)
    return {"": split} if every is None else dict(periods(dataset, split, since, every))


def evaluate_recommendations(
    path: Path, table: Path, part: str, *, cutoffs: Sequence[int], data: Path | None = None
) -> tuple[Evaluation, tuple[str, ...]]:
    """Evaluate another program's recommendations on a prepared data set or on a run's data set; also return notes.

    ``data`` is the path of the run's data set, if it was moved.
    """
    if (path / "run.json").is_file():
        run = Run.open(path)
        dataset = run.dataset(data)
        return evaluate_table(table, dataset, run.split(dataset), part, cutoffs=cutoffs)
    if data is not None:
        raise ConfigError(f"{path} is a data set, so --data means nothing here; leave it out, or name a run.")
    dataset = open_dataset(path)
    dataset.verify()
    return evaluate_table(table, dataset, make_split(dataset, None), part, cutoffs=cutoffs)
