"""Options and output helpers that several commands share."""

from __future__ import annotations

import re
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import typer
from rich.console import Console

from adrec.cli.console import frame_table
from adrec.config.stage import SeenOrData
from adrec.data.seen import Seen
from adrec.utils.errors import ConfigError
from adrec.utils.tables import check_output, write_table

Out = Annotated[Path, typer.Option("--out", help="Output folder.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
RunFolder = Annotated[Path, typer.Argument(help="Run folder written by adrec train.")]
Data = Annotated[Path | None, typer.Option("--data", help="Path of the run's data set, if it was moved.")]
Dates = Annotated[bool, typer.Option("--dates", help="Write date and time (UTC) before each message, for log files.")]
Device = Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Number of CPU threads; default: all cores.")]
ModelName = Annotated[
    str, typer.Option("--model", help="Model: adrec, a baseline (see adrec models), or your own module:Class.")
]
OwnModel = Annotated[
    str | None, typer.Option("--model", help="module:Class of the run's model, if it is your own; allows its import.")
]
Preset = Annotated[
    str, typer.Option("--preset", help="Preset of the model; adrec has default, cam, fast, large, paper and published.")
]
Augment = Annotated[
    str | None, typer.Option("--augment", help="Augmentation: diffuasr generates items before each training sequence.")
]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Denoising steps at inference; default: the run's num_inference_steps.")
]
SamplerName = Annotated[
    Literal["ancestral", "ddim"] | None, typer.Option("--sampler", help="Diffusion sampler; default: the run's.")
]
SeenPolicy = Annotated[
    Seen | None,
    typer.Option("--seen", help="Recommend and rank seen items, or not; default: as people return to items."),
]
SeenItems = Annotated[
    SeenOrData,
    typer.Option("--seen", help="Whether to rank the items of the history; default: as the data set says."),
]
OutFile = Annotated[
    Path | None, typer.Option("--out", help="Output file: .csv, .jsonl or .parquet; of shards a folder.")
]
SafeCsv = Annotated[
    bool, typer.Option("--safe-csv", help="In CSV, put an apostrophe before ids that spreadsheets take for formulas.")
]
Format = Annotated[
    Literal["table", "csv", "jsonl"] | None, typer.Option("--format", help="Format on standard output, without --out.")
]


class DatedConsole(Console):
    """A console that writes the date and time before each message, for log files."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print one message."""
        super().print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", *objects, **options)


def console_for(quiet: bool = False, dates: bool = False) -> Console:
    """Return the console for messages. It writes to standard error, so standard output has only results."""
    if quiet:
        warnings.simplefilter("ignore")
    kind = DatedConsole if dates else Console
    return kind(stderr=True, quiet=quiet, soft_wrap=True, highlight=False, markup=False)


def check_result(out: Path | None, output_format: str | None, *, safe_csv: bool = False) -> None:
    """Raise :class:`UserError`, before any work, if the requested output cannot be written."""
    check_output(out)
    if safe_csv and not (output_format == "csv" or (out is not None and out.suffix == ".csv")):
        raise ConfigError("--safe-csv is about CSV; write --out FILE.csv or --format csv.")
    if out is not None and output_format is not None:
        raise ConfigError(f"--format says how standard output is written, and --out {out} writes a file; give one.")


def emit(
    table: pl.DataFrame, out: Path | None, output_format: str | None, console: Console, *, safe_csv: bool = False
) -> None:
    """Write a result to its file, or show it on standard output.

    With ``safe_csv``, texts that a spreadsheet program would take for a formula begin with an apostrophe.
    """
    if safe_csv:
        texts = [name for name, dtype in table.schema.items() if dtype == pl.String]
        table = table.with_columns(pl.col(name).str.replace(r"^([=+\-@\t\r])", "'${1}") for name in texts)
    if out is not None:
        write_table(table, out)
        console.print(f"{table.height:,} rows written to {out}")
    elif output_format == "csv":
        sys.stdout.write(table.write_csv())
    elif output_format == "jsonl":
        sys.stdout.write(table.write_ndjson())
    else:
        Console(highlight=False).print(frame_table(table))


UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str, option: str = "--budget") -> float:
    """Return a duration such as ``90s``, ``30m`` or ``6h`` in seconds. Raises :class:`ConfigError` for other text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if found is None:
        raise ConfigError(f"{option} takes a time such as 90s, 30m or 6h; it was given {text!r}.")
    given = float(found[1]) * UNITS[found[2]]
    if given == 0:
        raise ConfigError(f"{option} must be more than no time at all; write one such as 30m.")
    return given


def cutoffs(text: str) -> list[int]:
    """Parse cut-offs such as ``5,10,20``. Raises :class:`ConfigError` if the text has anything else."""
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise ConfigError(f"--k takes whole numbers with commas, such as 5,10,20; it was given {text!r}.") from error


def use_own_model(name: str | None) -> None:
    """Import the user's own model, so that its runs can be opened."""
    if name is not None:
        from adrec.models.registry import find_model

        find_model(name, imports=True)


def use_threads(threads: int | None) -> None:
    """Set PyTorch's number of CPU threads; None keeps its default, all cores."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
