"""Model selection for a table (``adrec compare``): preparation, comparison, report and chosen run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from rich.console import Console

from adrec.bench.compare import compare
from adrec.bench.ledger import Ledger
from adrec.bench.report import Setting, page
from adrec.bench.verdict import ModelChoice
from adrec.data.dataset import Dataset, open_dataset, write_dataset
from adrec.data.preparation import PreparationOptions
from adrec.data.prepare import preparation, prepare, quarantine_of
from adrec.data.split import make_split
from adrec.runs.folder import Run, write_identity
from adrec.utils.errors import ConfigError, DataError, RunError
from adrec.utils.files import write_bytes, write_json
from adrec.utils.folders import LOCK, RUN, atomic_folder, check_folder, check_no_file, locked
from adrec.utils.sealed import read_json


def compare_models(
    source: Path,
    out: Path,
    *,
    budget: float,
    seed: int,
    console: Console,
    options: Mapping[str, str] = MappingProxyType({}),
) -> tuple[ModelChoice, list[str]]:
    """Compare models on a table or a prepared data set, and write a report and the chosen run to ``out``.

    Return the verdict, and notes on models that did not finish. An interrupted comparison resumes when called again.

    Args:
        source: the table, or the data set's folder.
        out: the output folder.
        budget: time budget in seconds.
        seed: the random seed.
        console: receives progress messages.
        options: of preparing the table: its columns ``user``, ``item`` and ``time``, and ``seen``.

    Raises:
        UserError: if ``out`` is a file.
        ConfigError: if ``out`` has other content, or options of preparation are given for a prepared data set.
        DataError: for an unusable table.
        RunError: if another process uses ``out``, or the budget is too small for any model.
    """
    _check(source, out, options)
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, f"another adrec compare is at work in {out}; wait for it, or name a new --out."):
        try:
            dataset = _compared(source, out, options, console)
        except BaseException:
            if is_new and not (out / "comparison.json").exists():
                shutil.rmtree(out, ignore_errors=True)  # it contains only the lock
            raise
        found, contenders, notes = compare(dataset, out, budget=budget, seed=seed, console=console)
        run = out / "run"
        _copy_run(Ledger.open(out / "ledger").work(found.chosen.finished.job), run)
        final = f"adrec refit {run} --out {out / 'final'}"
        setting = Setting(make_split(dataset).test.users, seed, budget)
        shown = page(dataset.info, found, contenders, notes, final, setting)
        write_bytes(out / "report.html", shown.encode())
    return found, notes


def _copy_run(work: Path, run: Path) -> None:
    if work.exists():
        with atomic_folder(run, overwrite=RUN) as folder:
            shutil.copytree(work, folder, dirs_exist_ok=True)
            ours = Run.open(work)
            write_identity(folder, ours.config, ours.info.moved(run))


def _check(source: Path, out: Path, options: Mapping[str, str]) -> dict[str, Any]:
    """Return what identifies a comparison; nothing is written.

    Raises :class:`UserError` where ``out`` is a file, holds something else, or the comparison of another table.
    """
    if not source.exists():
        raise ConfigError(f"there is no table or prepared data set {source}.")
    about = source.stat()
    identity = {"source": str(source.resolve()), "size": about.st_size, "changed": about.st_mtime_ns, **options}
    if (source / "dataset.json").is_file():
        if options:
            name = next(iter(options))
            raise ConfigError(
                f"{source} is prepared already, so --{name} means nothing here; prepare it again with --{name}."
            )
        identity = {"source": str(source.resolve()), "fingerprint": open_dataset(source).fingerprint}
    check_no_file(out)
    if (out / "run").exists():
        check_folder(out / "run", overwrite=RUN)
    kept = out / "comparison.json"
    if kept.exists() and read_json(kept, RunError, "name a new --out") != identity:
        raise ConfigError(
            f"{out} compares another table, or this one before it changed or with other options; name a new --out."
        )
    if not kept.exists() and out.exists() and any(each.name != LOCK for each in out.iterdir()):
        raise ConfigError(f"{out} is not empty, and no comparison of adrec compare; name a new --out.")
    return identity


def _compared(source: Path, out: Path, options: Mapping[str, str], console: Console) -> Dataset:
    """Return the data set of a comparison: the prepared one, or the table's, prepared once into ``out``.

    ``out`` is locked. Raises :class:`UserError` as :func:`_check`, for what came there since, and for a bad table.
    """
    identity = _check(source, out, options)
    prepared = source if "fingerprint" in identity else out / "data"
    missing = not (prepared / "dataset.json").is_file()
    quarantine = quarantine_of(out)
    dataset = _prepared(source, options, quarantine) if missing else None  # before anything is written to ``out``
    write_json(out / "comparison.json", identity)
    if dataset is not None:
        write_dataset(dataset, prepared)
        for line in preparation(dataset.info, prepared, quarantine, leads_on=False):
            console.print(line)
    dataset = open_dataset(prepared)
    dataset.verify()
    return dataset


def _prepared(table: Path, options: Mapping[str, str], quarantine: Path) -> Dataset:
    """Prepare a table. An error message refers to ``adrec prepare``, which has all the options."""
    try:
        return prepare(table, quarantine=quarantine, **cast("PreparationOptions", options))
    except DataError as error:
        way = f"adrec prepare {table} --out FOLDER has more options; then run adrec compare FOLDER."
        raise DataError(f"{error} Where that does not do, {way}") from error
