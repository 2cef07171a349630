"""How cost grows: with the catalogue, the length of histories, the users, the padding length L and the steps T.

    python -m benchmarks.growth [DATA] [--json FILE] [--plots FOLDER] [--largest 1000000]

Every point is a process of its own on generated interactions (of DATA only the mean history length is taken): the
seconds of one training step or of one inference, and the peak memory beyond that of the empty program. An exponent is
the slope of a line through the logarithms of the larger half of the points: where what is constant no longer counts.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from adrec.config.adrec import preset
from adrec.data.batch import training_batch
from adrec.evaluate.ranking import ranking
from adrec.inference.scorer import Histories
from adrec.models.network import NetworkScorer
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import make_network
from adrec.train.step import Step, new_optimizer
from benchmarks.common import Data, JsonFile, Threads, in_own_process, open_data, report, run, seconds

REPEATS = 3
ENOUGH = 20.0  # seconds: a point that took so long is not measured again


@dataclass(frozen=True)
class Point:
    """What is measured: a training step of ``users`` (``train``), or their inference at ``steps``."""

    train: bool = True
    users: int = 512
    length: int = 6
    items: int = 5000
    max_length: int = 50
    steps: int = 1
    negatives: int = 0  # of a training step's softmax; 0 is the whole catalogue


def measure(point: Point) -> float:
    """Return the median seconds of a training step, or of the inference, of generated histories."""
    rng = np.random.default_rng(0)
    each = point.length + 1
    items = rng.integers(1, point.items + 1, size=point.users * each, dtype=np.int32)
    ends = np.arange(1, point.users + 1) * each
    timesteps = max(point.steps, 32)
    config = preset("published", {"max_length": point.max_length, "num_train_timesteps": timesteps})
    network = make_network(ADRecNetwork, config.model, point.items)
    assert isinstance(network, ADRecNetwork)
    network.initialize(torch.Generator().manual_seed(1))
    if point.train:
        generator, step = torch.Generator().manual_seed(1), Step.of(replace(config.finetune, negatives=point.negatives))
        optimizer = new_optimizer(network, config.finetune)

        def work() -> None:
            for first in range(0, point.users, config.batch_size):
                some = slice(first, first + config.batch_size)
                batch = training_batch(items, ends[some] - each, ends[some], point.max_length)
                step.gradients(network, batch, network.draw(batch, generator), generator, config.max_tokens)
                optimizer.step()
    else:
        histories = Histories(items, ends - each, ends - 1)
        targets = items[ends - 1].astype(np.int64)

        def work() -> None:
            ranking(NetworkScorer(network, num_steps=point.steps), histories, targets)

    times: list[float] = []
    while len(times) < REPEATS + 1 and sum(times) < ENOUGH:
        times.append(seconds(work))
    return statistics.median(times[1:] or times)


def powers(first: float, last: float, per_decade: int) -> list[int]:
    """Return whole numbers from ``first`` to ``last`` in even ratios."""
    count = round(np.log10(last / first) * per_decade) + 1
    return [round(each) for each in np.geomspace(first, last, count)]


def series(largest: int, length: int) -> dict[str, tuple[str, list[Point]]]:
    """Return what varies, and the points, by the name of the series."""
    many = powers(1000, largest, 2)
    lengths = [8, 16, 32, 64, 128, 256, 512, 1024]
    steps = [1, 2, 4, 8, 16, 32, 64, 128]
    return {
        "catalogue, training": ("items", [Point(users=64, items=each, length=length) for each in many]),
        "catalogue, training on 2,000 drawn": (
            "items",
            [Point(users=64, items=each, length=length, negatives=2000) for each in many],
        ),
        "catalogue, inference": ("items", [Point(train=False, items=each, length=length) for each in many]),
        "tokens of a step, training": ("users", [Point(users=each, length=length) for each in (64, 128, 256, 512)]),
        "users, training": (
            "users",
            [Point(users=each, length=length, items=1000) for each in powers(1e3, max(largest / 10, 1e4), 2)],
        ),
        "users, inference": ("users", [Point(train=False, users=each, length=length, items=1000) for each in many]),
        "history, training": ("length", [Point(users=64, length=each, max_length=each) for each in lengths]),
        "history, inference": ("length", [Point(False, 64, each, max_length=each) for each in lengths]),
        "padding length L": ("max_length", [Point(users=512, length=7, max_length=each) for each in lengths]),
        "steps T, inference": ("steps", [Point(train=False, length=length, steps=each) for each in steps]),
    }


def exponent(x: list[int], y: list[float]) -> float:
    """Return the slope of log y on log x over the larger half of the points."""
    half = len(x) // 2
    return float(np.polyfit(np.log(x[half:]), np.log(np.maximum(y[half:], 1e-9)), 1)[0])


def main(
    data: Data = None,
    json_file: JsonFile = None,
    plots: Annotated[Path | None, typer.Option(help="Write a plot of each series here.")] = None,
    largest: Annotated[int, typer.Option(help="The largest catalogue and number of users.")] = 1_000_000,
    only: Annotated[str, typer.Option(help="Measure the series of this beginning; --json keeps its others.")] = "",
    threads: Threads = 2,
) -> None:
    """Print seconds and memory of every point, and each series' exponents."""
    torch.set_num_threads(threads)
    dataset = open_data(data)
    length = round(np.clip(np.diff(dataset.offsets) - 3, 1, 50).mean())
    console, rows, exponents = Console(stderr=True), [], {}
    before = json.loads(json_file.read_text())["points"] if only and json_file is not None else []
    _, empty = in_own_process(measure, Point(users=1, length=1, items=10))
    for name, (what, points) in series(largest, length).items():
        own = [row for row in before if row["series"] == name and not name.startswith(only)]
        for point in [] if own or not name.startswith(only) else points:
            took, peak = in_own_process(measure, point)
            memory, value = (peak - empty) / 2**20, getattr(point, what)
            own.append({"series": name, what_is(what): value, "seconds": took, "MiB": memory})
            console.print(f"{name}: {what} {value:,}: {took:.3g} s, {memory:,.0f} MiB")
        if not own:
            continue
        rows += own
        x, times, memories = ([row[key] for row in own] for key in (what_is(what), "seconds", "MiB"))
        memories = [max(each, 1.0) for each in memories]  # less than a MiB is within the empty program's own spread
        exponents[name] = {"seconds": exponent(x, times), "memory": exponent(x, memories)}
        if plots is not None:
            draw(plots, name, what, x, times, memories, exponents[name])
    table = [
        {"series": name, **{f"exponent of {key}": value for key, value in each.items()}}
        for name, each in exponents.items()
    ]
    headlines = {"exponents": {name: round(each["seconds"], 3) for name, each in exponents.items()}}
    of_memory = {name: each["memory"] for name, each in exponents.items()}
    title = f"growth, histories of {length} ({dataset.info.name}), {threads} threads"
    report(title, table, headlines, json_file, points=rows, exponents_memory=of_memory)


def what_is(name: str) -> str:
    """Return a field of :class:`Point` in words."""
    return {"length": "history length", "max_length": "padding length", "steps": "denoising steps"}.get(name, name)


def draw(
    folder: Path, name: str, what: str, x: list[int], times: list[float], memories: list[float], fit: dict[str, Any]
) -> None:
    """Write a plot of seconds and memory against ``x``, both axes logarithmic."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - of the extra `plots`

    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, y, unit, slope in (
        (left, times, "seconds", fit["seconds"]),
        (right, memories, "MiB beyond the empty program", fit["memory"]),
    ):
        axes.loglog(x, y, "o-")
        axes.set_ylim(bottom=min(*y, max(y) / 10) * 0.8)  # a decade at least: noise should look like noise
        axes.set(xlabel=what_is(what), ylabel=unit, title=f"exponent {slope:.2f}")
        axes.grid(alpha=0.3)
    figure.suptitle(name)
    figure.savefig(folder / f"{name.replace(', ', '-').replace(' ', '-')}.svg", metadata={"Date": None})


if __name__ == "__main__":
    run(main)
