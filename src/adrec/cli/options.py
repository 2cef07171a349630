"""What the verbs of the command line share: their options, and where they speak."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import typer
from rich.console import Console

from adrec.cli.console import frame_table
from adrec.utils.errors import ConfigError
from adrec.utils.tables import check_output, write_table

Out = Annotated[Path, typer.Option("--out", help="The folder to write.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, as adrec train writes it.")]
Data = Annotated[Path | None, typer.Option("--data", help="Where the run's data set is now, if it was moved.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")]
ModelName = Annotated[
    str, typer.Option("--model", help="adrec, a baseline (adrec models lists them), or module:Class of your own.")
]
OwnModel = Annotated[
    str | None, typer.Option("--model", help="module:Class of your own, where the run is of it: so that it is run.")
]
Preset = Annotated[
    str, typer.Option("--preset", help="default, or another preset of the model: of adrec's fast, paper and published.")
]
Augment = Annotated[
    str | None, typer.Option("--augment", help="diffuasr generates items in front of each training sequence.")
]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Denoising steps at inference; the run's num_inference_steps by default.")
]
SamplerName = Annotated[
    Literal["ancestral", "ddim"] | None, typer.Option("--sampler", help="How they sample; the run's by default.")
]
OutFile = Annotated[Path | None, typer.Option("--out", help="A .csv, .jsonl or .parquet file.")]
Format = Annotated[
    Literal["table", "csv", "jsonl"] | None, typer.Option("--format", help="On standard output, without --out.")
]


def console_for(quiet: bool = False) -> Console:
    """Return the console for people: standard error, so that standard output holds results alone."""
    if quiet:
        warnings.simplefilter("ignore")
    return Console(stderr=True, quiet=quiet, soft_wrap=True, highlight=False, markup=False)


def check_result(out: Path | None, output_format: str | None) -> None:
    """Raise :class:`UserError` where a result could not go where it is asked for: before any work."""
    check_output(out)
    if out is not None and output_format is not None:
        raise ConfigError(f"--format says how standard output is written, and --out {out} writes a file; give one.")


def emit(table: pl.DataFrame, out: Path | None, output_format: str | None, console: Console) -> None:
    """Write a result to its file, or show it on standard output."""
    if out is not None:
        write_table(table, out)
        console.print(f"{table.height:,} rows written to {out}")
    elif output_format == "csv":
        sys.stdout.write(table.write_csv())
    elif output_format == "jsonl":
        sys.stdout.write(table.write_ndjson())
    else:
        Console(highlight=False).print(frame_table(table))


def cutoffs(text: str) -> list[int]:
    """Return the numbers in a text such as ``5,10,20``. Raises :class:`ConfigError` where it has anything else."""
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
    """Let PyTorch use so many CPU threads; None leaves its own choice, all cores."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
