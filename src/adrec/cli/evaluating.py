"""The command evaluate: a run, another program's recommendations, or a run on later data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from adrec.cli.console import counter, difference_table, evaluation_notes, evaluation_table, periods_table
from adrec.cli.options import (
    Data,
    Device,
    OwnModel,
    Quiet,
    RunFolder,
    SamplerName,
    SeenItems,
    Steps,
    Threads,
    console_for,
    cutoffs,
    use_own_model,
    use_threads,
)
from adrec.utils.errors import ConfigError, UserError, did_you_mean
from adrec.utils.files import write_json
from adrec.utils.folders import check_side_output
from adrec.utils.platforms import is_started_by_torchrun
from adrec.utils.tables import check_output, write_table

if TYPE_CHECKING:
    from adrec.evaluate.protocol import Evaluation


def evaluate(
    run: RunFolder,
    on: Annotated[Literal["test", "validation"], typer.Option(help="Held-out part to evaluate.")] = "test",
    k: Annotated[str, typer.Option(help="Cut-offs of the metrics, separated by commas.")] = "5,10,20",
    seen: SeenItems = "data",
    batch_means: Annotated[bool, typer.Option(help="Add the batch average of the published code.")] = False,
    every: Annotated[
        str | None, typer.Option(help="With newer --data: a row for each period of this length, such as 7d.")
    ] = None,
    fail_below: Annotated[
        list[str] | None, typer.Option(help="METRIC=VALUE: exit with 1 if a metric is lower; repeatable.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for the result.")] = None,
    ranks: Annotated[
        Path | None, typer.Option(help="Output file for the ranks (.parquet, .csv, .jsonl); default: in the run.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="Another run, for a paired test over the same users.")] = None,
    recommendations: Annotated[
        Path | None,
        typer.Option(help="Table (user, item, rank or score) to evaluate instead; RUN may be a data set."),
    ] = None,
    served: Annotated[
        Path | None, typer.Option(help="Log of adrec serve --log to evaluate instead, by the later data set RUN.")
    ] = None,
    steps: Steps = None,
    sampler: SamplerName = None,
    data: Data = None,
    own_model: OwnModel = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Evaluate HR, NDCG and MRR over the whole catalogue, with 95 % intervals over users.

    With newer --data, what is later than the data of the run is evaluated: a backtest. Started by torchrun, the
    processes rank together.
    """
    from adrec.cli import evaluation
    from adrec.cli.ranks import start_ranks

    if (recommendations is not None or served is not None) and is_started_by_torchrun():
        raise ConfigError("a table or a log is evaluated by one process; start it without torchrun.")
    together = start_ranks(device)
    leads = together is None or together.leads
    console, output = console_for(quiet or not leads), Console(highlight=False, quiet=not leads)
    check_side_output(json_file, "--json")
    check_output(ranks, "--ranks")
    use_threads(threads)
    use_own_model(own_model)
    limits = _limits(fail_below or [], cutoffs(k))
    if served is not None:
        from adrec.cli.served import evaluate_log

        if recommendations or against or ranks or every or data or seen != "data" or batch_means or steps or limits:
            raise ConfigError("--served goes with --k and --json alone: the log says what was shown.")
        evaluate_log(run, served, cutoffs(k), json_file, output)
        return
    if recommendations is not None:
        if against or seen != "data" or batch_means or steps or sampler or ranks or every:
            raise ConfigError(
                "--recommendations goes with --on, --k, --fail-below and --json alone: the table says the rest."
            )
        result, notes = evaluation.evaluate_recommendations(run, recommendations, on, cutoffs=cutoffs(k), data=data)
        _say_table(result, notes, json_file, console, output)
        _check(result, limits)
        return
    if every is not None and (against or ranks or batch_means or limits):
        raise ConfigError("--every goes without --against, --ranks, --batch-means and --fail-below.")
    with counter(console) as progress:
        task = progress.add_task("ranking", total=None)
        measure = partial(
            evaluation.evaluate_run,
            part=on,
            cutoffs=cutoffs(k),
            seen=seen,
            with_batch_means=batch_means,
            data=data,
            every=every,
            device=device,
            ranks=together,
            on_start=lambda total: progress.update(task, total=(progress.tasks[0].total or 0) + total),
            on_batch=lambda users: progress.advance(task, users),
        )
        found = measure(run, steps=steps, sampler=sampler)
        other = measure(against, steps=None, sampler=None)[""] if against is not None else None
    if not leads:
        return
    if every is not None:
        _say_periods(found, json_file, output, names_other=seen == "data")
        return
    result, values = found[""], found[""].to_dict()
    output.print(evaluation_table(result))
    if other is not None:
        values["against"] = _compared(result, other, str(against), output)
    output.print(evaluation_notes(result, names_other=seen == "data"))
    if json_file is not None:
        write_json(json_file, values)
    if on == "test" and seen == "data" and not (steps or sampler) and not result.split.startswith("after:"):
        from adrec.runs.folder import EVALUATION

        _keep(values, run / EVALUATION, console)
    chosen = [*([] if seen == "data" else [seen]), *([f"{steps}-steps"] if steps else []), sampler or ""]
    part = "after" if result.split.startswith("after:") else on
    _write_ranks(result, ranks, run / f"{'-'.join(filter(None, ['ranks', part, *chosen]))}.parquet", console)
    _check(result, limits)


def _say_table(
    result: Evaluation, notes: Sequence[str], json_file: Path | None, console: Console, output: Console
) -> None:
    """Print and write the evaluation of another program's table."""
    for note in notes:
        console.print(f"note: {note}")
    output.print(evaluation_table(result), evaluation_notes(result), sep="\n")
    if json_file is not None:
        write_json(json_file, result.to_dict())


def _say_periods(
    found: Mapping[str, Evaluation], json_file: Path | None, output: Console, *, names_other: bool
) -> None:
    """Print and write a backtest by periods."""
    output.print(periods_table(found))
    output.print(evaluation_notes(next(iter(found.values())), names_other=names_other, briefly=True))
    if json_file is not None:
        write_json(json_file, {"periods": [{"begin": begin, **each.to_dict()} for begin, each in found.items()]})


def _compared(result: Evaluation, other: Evaluation, name: str, output: Console) -> dict[str, Any]:
    """Print the paired differences from another run, and return them as JSON values."""
    from adrec.evaluate.comparison import compare

    differences = compare(result, other)
    output.print(difference_table(result.metrics, other.metrics, differences))
    each = {name: {**difference.estimate.to_dict(), "p": difference.p} for name, difference in differences.items()}
    return {"run": name, "differences": each}


def _write_ranks(result: Evaluation, asked: Path | None, usual: Path, console: Console) -> None:
    """Write the ranks of each user; where nobody asked for them, a run that cannot be written is no error."""
    try:
        write_table(result.ranks, asked or usual)
    except UserError as error:
        if asked is not None:
            raise
        console.print(f"warning: the ranks are not kept: {error}")
        return
    console.print(f"Ranks of each user: {asked or usual}")


def _keep(values: dict[str, Any], path: Path, console: Console) -> None:
    """Keep the result beside the run, for who serves it; a run that cannot be written is no error."""
    try:
        write_json(path, values)
    except UserError as error:
        console.print(f"warning: the result is not kept: {error}")


def _limits(asked: Sequence[str], ks: Sequence[int]) -> dict[str, float]:
    """Return the lowest value of each metric. Raises :class:`ConfigError` for another form or metric."""
    known = [f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in ks]
    limits = {}
    for each in asked:
        name, _, value = each.partition("=")
        if name not in known:
            raise ConfigError(
                f"--fail-below {each}: there is no metric {name!r}{did_you_mean(name, known)}; write METRIC=VALUE, "
                f"such as {known[-1]}=0.1."
            )
        try:
            limits[name] = float(value)
        except ValueError as error:
            raise ConfigError(f"--fail-below {each}: {value!r} is no number; write {name}=0.1.") from error
    return limits


def _check(result: Evaluation, limits: Mapping[str, float]) -> None:
    """Exit with 1 if a metric is below its limit, which is told with ``--quiet`` too."""
    low = {name: value for name, value in limits.items() if not result.metrics[name].mean >= value}
    for name, value in low.items():
        print(f"adrec: {name} is {result.metrics[name].mean:.4f}, below {value:g}.", file=sys.stderr)
    if low:
        raise typer.Exit(1)
