"""Preparation and training for the Python interface, in memory or recorded in a run folder."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from adrec.api.frames import FrameKind
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.preparation import PreparationOptions
from adrec.data.prepare import prepare
from adrec.data.split import make_split
from adrec.models.base import Model
from adrec.runs.fit import fit
from adrec.runs.folder import open_or_create
from adrec.runs.info import RunInfo
from adrec.train.progress import Live
from adrec.utils.errors import ConfigError
from adrec.utils.text import counted


def prepared(interactions: Any, recipe: str | None, options: PreparationOptions) -> Dataset:
    """Return a prepared data set as it is, or prepare a table; a warning tells of rejected rows.

    Raises :class:`ConfigError` for options of a data set that is prepared already.
    """
    folder = isinstance(interactions, str | Path) and (Path(interactions) / "dataset.json").exists()
    if isinstance(interactions, Dataset) or folder:
        if options or recipe:
            raise ConfigError("a prepared data set takes no options of preparing; give them where it is prepared.")
        if isinstance(interactions, Dataset):
            return interactions
        dataset = open_dataset(Path(interactions))
        dataset.verify()
        return dataset
    dataset = prepare(interactions, recipe=recipe, **options)
    for each in dataset.info.left_out:
        if each["kind"] == "rejected":
            warnings.warn(
                f"{counted(each['rows'], 'row')} rejected, {each['reason']}: {each['examples'][0]}",
                UserWarning,
                stacklevel=3,
            )
    return dataset


def train(
    untrained: Model,
    dataset: Dataset,
    split_name: str,
    path: Path | None,
    *,
    seed: int,
    model: str,
    frame: FrameKind,
    device: torch.device,
    progress: bool,
) -> RunInfo:
    """Train a model, and return how it was trained.

    Args:
        untrained: the model to train.
        dataset: the prepared data set.
        split_name: full name of its split.
        path: the folder in which each epoch is recorded; None records nothing.
        seed: the random seed.
        model: name of the model.
        frame: the kind of table in which results are returned.
        device: where it is trained; a run that is resumed stays where it was.
        progress: show training on the terminal.

    Raises:
        RunError: where ``path`` holds a finished run, or one of other data, settings or seed.
    """
    split = make_split(dataset, split_name)
    info = RunInfo.of(dataset, split, out=path, seed=seed, model=model, frame=frame, device=str(device))
    with contextlib.ExitStack() as stack:
        run = None if path is None else stack.enter_context(open_or_create(path, untrained, info, dataset))
        live = [stack.enter_context(Live(Console(stderr=True, soft_wrap=True)))] if progress else []
        where = device if run is None else torch.device(run.info.device)
        stages = fit(untrained, dataset, split, run, seed=seed, device=where, callbacks=live)
        info = info.calibrated(untrained, dataset, split)
        if run is not None:
            run.finish(untrained, stages, replace(run.info, temperature=info.temperature))
    return replace(info, data="data", data_beside="data", finished=True, stages=stages)
