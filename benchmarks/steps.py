"""What denoising steps are worth: test metrics and users a second against the number of steps, for trained runs.

    python -m benchmarks.steps RUN [RUN ...] [--json FILE] [--plot FILE]

``fewest`` is the smallest number of steps whose NDCG@20 is within a thousandth of that of all T.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from adrec.evaluate.protocol import evaluate
from adrec.models.network import NetworkModel, NetworkScorer
from adrec.nn.adrec import ADRecNetwork
from adrec.runs.folder import Run
from adrec.utils.errors import UserError
from benchmarks.common import JsonFile, Threads, report, run

METRICS = ("hr@10", "ndcg@10", "hr@20", "ndcg@20")
COSTS_NOTHING = 0.001  # of the metric


def curve(path: Path) -> list[dict[str, Any]]:
    """Return a row for each of 1, 2, 4 .. T steps."""
    trained = Run.open(path)
    model, dataset = trained.model(), trained.dataset()
    network = model.network if isinstance(model, NetworkModel) else None
    if not isinstance(network, ADRecNetwork) or not network.uses_noise:
        raise UserError(f"{path} is not ranked by a sample, so it takes no steps; name a run of the preset paper.")
    longest, rows = trained.config.model.num_train_timesteps, []
    for steps in sorted({*(1 << i for i in range(longest.bit_length()) if 1 << i < longest), longest}):
        began = time.perf_counter()
        scorer = NetworkScorer(network, trained.info.seed, steps)
        result = evaluate(scorer, dataset, trained.split(dataset), seen="keep")
        speed = result.ranks.height / (time.perf_counter() - began)
        metrics = {name: f"{result.metrics[name].mean:.5f}" for name in METRICS}
        rows.append({"data": dataset.info.name, "steps": steps, **metrics, "users/s": speed})
    return rows


def fewest(rows: list[dict[str, Any]]) -> int:
    """Return the smallest number of steps that costs nothing measurable."""
    all_steps = float(rows[-1]["ndcg@20"])
    return next(int(row["steps"]) for row in rows if float(row["ndcg@20"]) >= all_steps * (1 - COSTS_NOTHING))


def draw(path: Path, curves: dict[str, list[dict[str, Any]]]) -> None:
    """Write a plot of NDCG@20 and of users/s against steps."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - of the extra `plots`

    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, rows in curves.items():
        steps = [row["steps"] for row in rows]
        left.plot(steps, [100 * float(row["ndcg@20"]) for row in rows], "o-", label=name)
        right.plot(steps, [row["users/s"] for row in rows], "o-", label=name)
    left.set(xscale="log", xlabel="denoising steps", ylabel="NDCG@20 x 100", ylim=(0, None))
    right.set(xscale="log", yscale="log", xlabel="denoising steps", ylabel="users/s")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend()
    figure.savefig(path, **({"metadata": {"Date": None}} if path.suffix == ".svg" else {}))


def main(
    runs: Annotated[list[Path], typer.Argument(help="Trained runs.")],
    json_file: JsonFile = None,
    plot: Annotated[Path | None, typer.Option(help="Write a plot here (.svg, .png).")] = None,
    threads: Threads = 2,
) -> None:
    """Print each run's metrics and speed against its steps."""
    torch.set_num_threads(threads)
    curves: dict[str, list[dict[str, Any]]] = {}
    for path in runs:
        rows = curve(path)
        curves[rows[0]["data"]] = rows
    headlines = {"fewest": {name: fewest(rows) for name, rows in curves.items()}}
    report(f"test, {threads} threads", [row for rows in curves.values() for row in rows], headlines, json_file)
    if plot is not None:
        draw(plot, curves)


if __name__ == "__main__":
    run(main)
