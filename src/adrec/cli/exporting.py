"""The command export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from adrec.cli.options import Data, OwnModel, Quiet, RunFolder, console_for, use_own_model


def export(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; default: onnx in the run, where serve looks.")
    ] = None,
    kind: Annotated[Literal["onnx"], typer.Option("--format", help="The format of the export.")] = "onnx",
    data: Data = None,
    own_model: OwnModel = None,
    quiet: Quiet = False,
) -> None:
    """Export a run to ONNX: a history to scores, one denoising step, and an example; checked with ONNX Runtime."""
    from adrec.export.onnx import export_onnx

    use_own_model(own_model)
    out = run / "onnx" if out is None else out
    worst = export_onnx(run, out, data=data)
    console_for(quiet).print(
        f"Exported to {out}: ONNX Runtime gives the same scores (the largest difference is {worst:.0e} of the largest "
        f"score). Next: python {out / 'example.py'} ITEM ITEM .., or adrec serve {run} --onnx"
    )
