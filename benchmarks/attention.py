"""Attention: ours against the other exact ways that PyTorch has (``benchmarks/ways.py``); a step that is compiled.

    python -m benchmarks.attention [DATA] [--json FILE]

All compute the same attention of the same training batches of 512 users, without dropout, so that it is one function;
``differ`` is the largest difference from ours, and what differs by more than 1e-4 is never the fastest. ``first s`` is
the first call on each batch, forward and backward: compiling, where something is compiled. A training step, with
dropout, is compared with steps of which parts are compiled. What cannot run here says why.
"""

from __future__ import annotations

import logging
import statistics
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._inductor.utils import fresh_cache
from torch._logging._internal import set_logs

from adrec.data.dataset import Dataset
from adrec.nn.adrec import ADRecNetwork
from benchmarks.common import (
    Data,
    JsonFile,
    Rounds,
    Threads,
    alternating,
    batches,
    median_ratio,
    open_data,
    print_table,
    report,
    run,
    seconds,
    trainer,
)
from benchmarks.train import Steps
from benchmarks.ways import WAYS, Attention, Users, ours

BATCHES = 3
SAME = 1e-4
OURS = "ours"


@dataclass(frozen=True)
class Case:
    """A batch's users, with the rows and the gradient that all ways are given."""

    users: Users
    qkv: Tensor
    grad: Tensor

    @classmethod
    def of(cls, users: Users, rng: torch.Generator) -> Case:
        """Draw the rows, [rows, 3 D], and the gradient of what comes of them, [rows, D]."""
        rows, size = users.num_tokens + len(users.lengths), users.heads * users.head_size
        qkv, grad = torch.randn(rows, 3 * size, generator=rng), torch.randn(rows, size, generator=rng)
        return cls(users, qkv.to(users.device).requires_grad_(), grad.to(users.device))


def forward(case: Case, attend: Attention) -> Tensor:
    """Return the output alone, [rows, D]."""
    with torch.no_grad():
        return attend(case.qkv.detach())


def both(case: Case, attend: Attention) -> Tensor:
    """Go forward and backward; return the gradient, [rows, 3 D]."""
    return torch.autograd.grad(attend(case.qkv), case.qkv, case.grad)[0]


DIRECTIONS: Mapping[str, Callable[[Case, Attention], Tensor]] = {"forward": forward, "both": both}


@dataclass
class Tried:
    """What a way did: of each direction that works, its work and how it differs from ours; else why not."""

    works: dict[str, Callable[[], object]] = field(default_factory=dict)
    differ: dict[str, float] = field(default_factory=dict)
    first: float = 0.0
    why: str = ""

    @property
    def exact(self) -> bool:
        """Whether it trains and computes what ours does."""
        return "both" in self.works and max(self.differ.values()) <= SAME


def tried(way: Callable[[Users], Attention], cases: list[Case]) -> Tried:
    """Try a way on the cases."""
    result = Tried()
    try:
        attends = [way(case.users) for case in cases]
        for name, direction in DIRECTIONS.items():
            work = partial(over, direction, cases, attends)
            result.first += seconds(work)
            expected = over(direction, cases, [ours(case.users) for case in cases])
            result.differ[name] = max(float((a - b).abs().max()) for a, b in zip(work(), expected, strict=True))
            result.works[name] = work
    except Exception as error:  # whatever a kernel or a compiler raises is the row's reason
        result.why = reason(error)
    return result


def over(direction: Callable[[Case, Attention], Tensor], cases: list[Case], attends: list[Attention]) -> list[Tensor]:
    """Return what a direction gives on all cases, when it is there."""
    results = [direction(case, attend) for case, attend in zip(cases, attends, strict=True)]
    if results[0].is_cuda:
        torch.cuda.synchronize()
    return results


def reason(error: Exception) -> str:
    """Return the start of an exception's first sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0][:100]


def compare(cases: list[Case], rounds: int) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Return the rows of the ways, the headlines and the times."""
    results = {name: tried(way, cases) for name, way in WAYS.items()}
    times = {}
    for direction in DIRECTIONS:
        works = {name: result.works[direction] for name, result in results.items() if direction in result.works}
        times[direction] = alternating(rounds, settle=True, **works)
    rows = [{"attention": name, **figures(name, results[name], times, len(cases))} for name in results]
    trains = {name: statistics.median(taken) for name, taken in times["both"].items() if results[name].exact}
    fastest = min(trains, key=trains.__getitem__)
    ratio = median_ratio(times["both"][OURS], times["both"][fastest])
    return rows, {"fastest": fastest, "ours_over_fastest": ratio}, times


def figures(name: str, result: Tried, times: Mapping[str, Mapping[str, list[float]]], num_cases: int) -> dict[str, Any]:
    """Return a way's columns; ratios are times of ours."""
    row: dict[str, Any] = {}
    for direction, label in (("forward", "forward"), ("both", "with backward")):
        taken = times[direction].get(name)
        row[f"{label} ms"] = 1e3 * statistics.median(taken) / num_cases if taken else ""
        row[f"{label} / ours"] = median_ratio(taken, times[direction][OURS]) if taken else ""
    row |= {"outputs differ": result.differ.get("forward", ""), "gradients differ": result.differ.get("both", "")}
    return row | {"first s": result.first, "cannot": result.why}


def nothing(network: ADRecNetwork) -> None:
    """Compile nothing."""


def feed_forwards(network: ADRecNetwork) -> None:
    """Compile the blocks but for their attention."""
    for part in (network.cam, network.adm):
        for block in part:  # type: ignore[union-attr]
            block._feed_forward = torch.compile(block._feed_forward, dynamic=True)  # type: ignore[method-assign]


def whole_forward(network: ADRecNetwork) -> None:
    """Compile all of the forward pass but the layout, which is NumPy."""
    network.plan = torch.compiler.disable(network.plan)  # type: ignore[method-assign, no-untyped-call]
    network.forward = torch.compile(network.forward, dynamic=True)  # type: ignore[method-assign]


COMPILED = {"eager": nothing, "feed-forward compiled": feed_forwards, "forward compiled": whole_forward}


def compare_steps(dataset: Dataset, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of training steps."""
    made = batches(trainer(dataset), rounds + 1)
    works: dict[str, Callable[[], object]] = {}
    empty = {"s/step": "", "times as fast": "", "first s": "", "cannot": ""}
    rows: dict[str, dict[str, Any]] = {name: {"training step": name, **empty} for name in COMPILED}
    for name, change in COMPILED.items():
        try:
            steps = Steps(OURS, dataset, made, device.type)
            change(steps.network)
            rows[name]["first s"] = seconds(steps)
            works[name] = steps
        except Exception as error:  # as above
            rows[name]["cannot"] = reason(error)
    times = alternating(rounds, settle=False, **works)
    for name, taken in times.items():
        rows[name] |= {"s/step": statistics.median(taken), "times as fast": median_ratio(times["eager"], taken)}
    return list(rows.values())


def main(data: Data = None, json_file: JsonFile = None, threads: Threads = 2, rounds: Rounds = 10) -> None:
    """Print the milliseconds of a batch's attention in each way, and of a step eager and compiled."""
    torch.set_num_threads(threads)
    set_logs(all=logging.ERROR)  # what cannot run says so in the table
    warnings.simplefilter("ignore")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = open_data(data)
    model, rng = trainer(dataset).config.model, torch.Generator().manual_seed(1)
    lengths = [batch.lengths for batch in batches(trainer(dataset), BATCHES)]
    size = model.hidden_size // model.num_heads
    cases = [Case.of(Users(each, model.max_length, model.num_heads, size, device.type), rng) for each in lengths]
    with fresh_cache():  # compile times are those of a machine that never compiled this
        rows, headlines, times = compare(cases, rounds)
        steps = compare_steps(dataset, device, rounds)
    headlines["compiled_step"] = max((row["times as fast"] for row in steps[1:] if row["s/step"]), default=None)
    place = f"{threads} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    steps_title = f"{dataset.info.name}: a training step, eager and compiled, {place}"
    print_table(steps_title, steps)
    title = f"{dataset.info.name}: attention with the padding sink, a layer of a batch of 512 users, {place}"
    report(title, rows, headlines, json_file, times=times, tables={steps_title: steps})


if __name__ == "__main__":
    run(main)
