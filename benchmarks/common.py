"""What the benchmarks share: their data, their clock, and how they report."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from adrec.cli.demo import MIN_ITEM
from adrec.cli.movielens import movielens
from adrec.config.adrec import Config, preset
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.runs.info import environment
from adrec.train.loop import Trainer
from adrec.utils.errors import UserError

Data = Annotated[Path | None, typer.Argument(help="A table or a prepared folder; the demo's ratings by default.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures here as JSON.")]
Threads = Annotated[int, typer.Option(help="CPU threads.")]
Rounds = Annotated[int, typer.Option(help="How often each is measured; the median counts.")]

CORES = os.cpu_count() or 1


def run(main: Callable[..., None]) -> None:
    """Run a benchmark's command line; bad input gets one sentence."""
    try:
        typer.run(main)
    except UserError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"benchmark: error: {error}", markup=False)
        raise SystemExit(2) from error


def open_data(source: Path | None) -> Dataset:
    """Return a prepared folder's data set, a table's, or the demo's."""
    if source is None:
        return prepare(movielens()[0], min_item=MIN_ITEM, name="movielens-small")
    return open_dataset(source) if (source / "dataset.json").exists() else prepare(source)


def trainer(dataset: Dataset, config: Config | None = None) -> Trainer:
    """Return a trainer of the preset ``published``, or of ``config``."""
    return Trainer(config or preset("published"), dataset, leave_one_out(dataset), seed=1)


def batches(trainer: Trainer, count: int, seed: int = 0) -> list[PackedBatch]:
    """Return so many training batches of users drawn at random."""
    sequences = trainer.last_sequences
    rng, size = np.random.default_rng(seed), trainer.users_per_step(sequences)
    return [sequences.batch(rng.permutation(len(sequences))[:size]) for _ in range(count)]


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes, once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternating(rounds: int, *, settle: bool = False, **works: Callable[[], object]) -> dict[str, list[float]]:
    """Return each work's seconds in so many rounds, one after the other in each, after one that does not count.

    To ``settle``, each time comes after one that does not count: else short works pay for the memory that a larger one
    before them took and gave back.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_number in range(rounds + 1):
        for name, work in works.items():
            if settle:
                work()
            took = seconds(work)
            if round_number:
                times[name].append(took)
    return times


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median of the ratios of times measured side by side."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def _peak(connection: Any, threads: int, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    connection.send((work(*arguments), peak_memory()))


def peak_memory() -> int:
    """Return the most bytes that this process has held."""
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    # Elsewhere than on Linux, in bytes. Not on Linux: there a new process inherits its parent's figure.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_own_process(work: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """Return what ``work`` returns and the peak memory, in bytes, of a process that does nothing else."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(theirs, torch.get_num_threads(), work, arguments))
    process.start()
    theirs.close()
    try:
        result, peak = ours.recv()
    except EOFError as error:
        raise UserError("the process that measures was killed, most likely for want of memory.") from error
    finally:
        process.join()
    return result, peak


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "processor": environment()["processor"],
        "cores": CORES,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(shown(value) for value in row.values()))
    Console(highlight=False).print(table)


def report(
    title: str, rows: Sequence[Mapping[str, Any]], headlines: Mapping[str, Any], json_file: Path | None, **more: Any
) -> None:
    """Print the rows as a table and the headline figures under it; write all of it as JSON where that is asked for."""
    print_table(title, rows)
    console = Console(highlight=False)
    for name, value in headlines.items():
        console.print(f"{name}: {shown(value)}")
    if json_file is not None:
        values = {**headlines, "title": title, "rows": list(rows), "machine": machine(), **more}
        json_file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def shown(value: Any) -> str:
    """Return a figure with three digits that matter."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
