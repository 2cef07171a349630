"""How near training is to the machine's limit: its matrix products alone, over the whole step.

    python -m benchmarks.roofline [DATA] [--json FILE]

``matmul_share`` is the matrix-multiply FLOP/s reached in a training step over what ``torch.mm`` (``torch.bmm``) itself
reaches here on the same shapes: the seconds that the step's products take alone, over the seconds of the step.
"""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.common import Data, JsonFile, Rounds, Threads, batches, open_data, report, run, seconds, trainer
from benchmarks.matmul import Shape, alone, flops, products
from benchmarks.train import Steps

SQUARE = 2048
GROUPS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm"),
    "drawing dropout and noise": ("aten::random_", "aten::ge", "aten::normal_", "aten::randint", "aten::bernoulli_"),
    "softmax": ("aten::_softmax", "aten::_softmax_backward_data"),
    "sigmoid of GELU": ("aten::sigmoid_", "aten::addcmul_", "aten::gelu", "aten::gelu_backward"),
    "layer norm": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "gathers and copies": (
        *("aten::index_select", "aten::copy_", "aten::index", "aten::cat", "aten::_index_put_impl_", "aten::gather"),
        *("aten::embedding_dense_backward", "aten::scatter_add_", "aten::index_fill_", "aten::fill_"),
    ),
    "sums and products of entries": (
        *("aten::mul", "aten::mul_", "aten::add", "aten::add_", "aten::sum", "aten::div", "aten::sub", "aten::mean"),
        *("aten::pow", "aten::log"),
    ),
    "Adam": ("aten::_fused_adam_",),
}


def main(
    data: Data = None,
    json_file: JsonFile = None,
    threads: Threads = 2,
    rounds: Rounds = 10,
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome trace of the profiled steps here.")] = None,
) -> None:
    """Print where a training step's time goes, and its share of the machine's matrix-multiply rate."""
    torch.set_num_threads(threads)
    dataset = open_data(data)
    steps = Steps("ours", dataset, batches(trainer(dataset), rounds))
    steps()
    shapes: Counter[Shape] = Counter()
    times = [seconds(steps) for _ in range(rounds)]
    for _ in range(rounds):
        shapes.update(products(steps))
    limit = alone(shapes) / rounds
    step, work = statistics.median(times), flops(shapes) / rounds
    square = {Shape(1, SQUARE, SQUARE, SQUARE, False, False): 1}
    square_rate = flops(square) / alone(square, 5)
    parts = profile(steps, rounds, trace)
    rows = [{"part of a step": name, "%": 100 * share} for name, share in parts.items()]
    headlines = {
        "matmul_share": limit / step,
        "step_seconds": step,
        "products_alone_seconds": limit,
        "step_gflop": work / 1e9,
        "reached_gflops": work / step / 1e9,
        "machine_gflops_same_shapes": work / limit / 1e9,
        f"machine_gflops_{SQUARE}": square_rate / 1e9,
    }
    report(f"{dataset.info.name}: a training step, {threads} threads", rows, headlines, json_file)


def profile(steps: Steps, rounds: int, trace: Path | None) -> dict[str, float]:
    """Return the share of each group of operations in the processor time of some steps, the largest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        for _ in range(rounds):
            steps()
    if trace is not None:
        profiled.export_chrome_trace(str(trace))
    own = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(own.values())
    parts = {name: sum(own.pop(key, 0) for key in keys) / total for name, keys in GROUPS.items()}
    parts = dict(sorted(parts.items(), key=lambda part: -part[1]))
    return {**parts, "all else": sum(own.values()) / total}


if __name__ == "__main__":
    run(main)
