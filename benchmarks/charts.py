"""Charts of the results, one for each claim of ``docs/results.md``: ``python -m benchmarks.charts``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adrec.bench.grid import Entry, read_grid
from adrec.bench.ledger import Ledger
from adrec.bench.results import Results, Row, results
from adrec.utils.files import atomic_file

ROOT = Path(__file__).parents[1]
LEDGER, CHARTS = ROOT / "benchmarks" / "ledger", ROOT / "docs" / "charts"
METRIC = "ndcg@20"
GREY, OURS, THEIRS = "#8a8f98", "#c05621", "#2b6cb0"  # legible on white and on black
ACCURACY = (
    "popular",
    "itemknn",
    "gru4rec",
    "sasrec+",
    "sasrec+ (tuned)",
    "diffurec",
    "adrec (published)",
    "sasrec+ as tuned on baby, repeat bias",
    "cam (fast)",
    "cam",
    "adrec",
)
SHORT = {"sasrec+ as tuned on baby, repeat bias": "sasrec+ (tuned, repeat logits)", "adrec": "adrec (default)"}


def entries_of(*grids: str) -> list[Entry]:
    """Return the entries of grids that come with adrec."""
    return [entry for grid in grids for entry in read_grid(Path(grid))]


def styled(axes: Axes, names: Sequence[str]) -> None:
    """Write names at the left, and leave no frame."""
    axes.set_yticks(range(len(names)), names)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=GREY, labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.grid(axis="x", alpha=0.25)
    axes.xaxis.label.set_color(GREY)
    axes.title.set_color(GREY)


def bars(found: Results, draw: Callable[[Axes, int, Row, str], None], label: str) -> Figure:
    """Return a panel for each data set with a row for each model of :data:`ACCURACY`."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, len(found.rows))
    for number, (axes, (data, rows)) in enumerate(zip(panels, found.rows.items(), strict=True)):
        by_name = {row.label: row for row in rows}
        for at, name in enumerate(ACCURACY):
            if name in by_name:
                draw(axes, at, by_name[name], OURS if by_name[name].model == "adrec" else THEIRS)
        axes.set_ylim(-0.6, len(ACCURACY) - 0.4)
        styled(axes, [SHORT.get(name, name) for name in ACCURACY] if number == 0 else [""] * len(ACCURACY))
        axes.set_title(data, fontsize=10)
        axes.set_xlabel(label, fontsize=8)
    return figure


def accuracy(axes: Axes, at: int, row: Row, colour: str) -> None:
    """Draw a model's metric, seen items left out, with its interval."""
    estimate = row.metrics["unseen"][METRIC]
    axes.barh(at, 100 * estimate.mean, color=colour, alpha=0.85, height=0.7)
    axes.plot([100 * estimate.low, 100 * estimate.high], [at, at], color=GREY, linewidth=1.2)


def training_time(axes: Axes, at: int, row: Row, colour: str) -> None:
    """Draw a model's core seconds of training on a logarithmic axis; nothing for a model that was trained on a GPU."""
    axes.set_xscale("log")
    axes.set_xlim(1, 1e5)
    if row.core_time:
        axes.barh(at, max(row.seconds, 1.0), color=colour, alpha=0.85, height=0.7)


def differences(found: Results, reference: str, names: dict[str, str]) -> Figure:
    """Draw the differences from a reference entry, seen items left out, with intervals, of entries with results."""
    there = {row.label for rows in found.rows.values() for row in rows}
    names = {label: name for label, name in names.items() if label in there}
    figure = Figure(figsize=(10, 0.6 + 0.27 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(found.rows))
    for number, (axes, (data, rows)) in enumerate(zip(panels, found.rows.items(), strict=True)):
        by_name: dict[str, Row] = {row.label: row for row in rows}
        for at, label in enumerate(reversed(names)):
            row = by_name.get(label)
            if row is None or reference not in row.against["unseen"]:
                continue
            difference = row.against["unseen"][reference].estimate
            axes.plot([100 * difference.low, 100 * difference.high], [at, at], color=THEIRS, linewidth=1.6)
            axes.plot(100 * difference.mean, at, "o", color=OURS, markersize=4.5)
        axes.axvline(0, color=GREY, linewidth=1)
        axes.set_ylim(-0.6, len(names) - 0.4)
        styled(axes, [names[label] for label in reversed(names)] if number == 0 else [""] * len(names))
        axes.set_title(data, fontsize=10)
        axes.set_xlabel("difference in NDCG@20 x 100", fontsize=8)
    return figure


def save(figure: Figure, name: str) -> None:
    """Write a figure as SVG without a background: the same results give the same file."""
    CHARTS.mkdir(parents=True, exist_ok=True)
    with atomic_file(CHARTS / f"{name}.svg") as temporary, rc_context({"svg.hashsalt": "adrec"}):
        figure.savefig(temporary, format="svg", transparent=True, metadata={"Date": None})


PAPER = "adrec (paper)"
PARTS = {
    f"{PAPER}: no stage 1": "without stage 1",
    f"{PAPER}: no stage 2": "without stage 2",
    f"{PAPER}: no stage 3, embedding frozen to the end": "without stage 3",
    f"{PAPER}: squared error alone": "squared error only",
    f"{PAPER}: cross-entropy alone": "cross-entropy only",
    f"{PAPER}: no decoder": "without ADM",
    f"{PAPER}: lambda 0": "lambda 0 (no noise)",
    f"{PAPER}: lambda 0.1": "lambda 0.1",
    f"{PAPER}: lambda 1": "lambda 1",
    f"{PAPER}: one timestep a sequence": "one timestep a sequence",
    f"{PAPER}: 8 timesteps": "8 timesteps",
    f"{PAPER}: guidance 2": "guidance 2",
    f"{PAPER}: padding masked": "padding masked",
    f"{PAPER}, repeat bias": "with repeat logits",
    f"{PAPER}: rotary positions": "with rotary positions",
}
NEXT_ALONE = "adrec: the next item alone"
DEFAULT = {
    "cam: the next item alone": "cam: without ADM and stages",
    "cam: 3 blocks, the next item alone": "cam with 3 blocks",
    "cam": "cam, three next items as targets",
    "next item alone: cross-entropy alone": "cross-entropy only",
    "next item alone: squared error of weight 1": "squared error of weight 1",
    "next item alone: lambda 0": "lambda 0 (no noise)",
    "next item alone: lambda 1": "lambda 1",
    "next item alone: ranked by the condition": "ranked by the condition",
    "next item alone: ADM of 2 blocks": "ADM of 2 blocks",
    "adrec": "three next items as targets: the default",
    "next item alone: no stage 1": "without stage 1",
    "next item alone: no stage 2": "without stage 2",
    "next item alone: stage 1 a SASRec": "stage 1 a SASRec",
    "next item alone: stage 1 a SASRec from co-occurrences": "stage 1 a SASRec, from co-occurrences",
}
CAM = {
    "base: no consistency": "without two passes that agree",
    "base: no repeat bias": "without repeat logits",
    "base: no averaging of weights": "without averaged weights",
    "base: no weight decay": "without weight decay",
    "base: 50 positions": "50 positions in place of 200",
    "base: padding masked": "padding masked",
    "base: dropout 0.1": "dropout 0.1 in place of 0.3",
    "base: with a denoiser": "with a denoiser",
    "base: ranked by the sample": "with a denoiser that ranks",
    "random embedding, no positions": "dropout 0.1, consistency 10",
    "random embedding": "... and rotary positions",
    "co-occurrences": "... and a start from co-occurrences",
}


def main() -> None:
    """Draw every chart."""
    ledger = Ledger.open(LEDGER)
    found = results(ledger, entries=entries_of("published", "tuned"))
    save(bars(found, accuracy, "NDCG@20 x 100"), "accuracy")
    save(bars(found, training_time, "core seconds of training"), "training-time")
    paper = results(ledger, reference=PAPER, entries=entries_of("paper"))
    save(differences(paper, PAPER, PARTS), "parts-of-the-paper")
    ablation = results(ledger, reference="base", entries=entries_of("ablation"))
    save(differences(ablation, "base", CAM), "parts-of-cam")
    own = results(ledger, reference=NEXT_ALONE, entries=entries_of("default"))
    save(differences(own, NEXT_ALONE, DEFAULT), "parts-of-the-default")


if __name__ == "__main__":
    main()
