"""Commands for trained runs: evaluate, recommend, similar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from adrec.cli.console import counter, difference_table, evaluation_notes, evaluation_table
from adrec.cli.options import (
    Data,
    Device,
    Format,
    OutFile,
    OwnModel,
    Quiet,
    RunFolder,
    SamplerName,
    SeenItems,
    Steps,
    Threads,
    check_result,
    console_for,
    cutoffs,
    emit,
    use_own_model,
    use_threads,
)
from adrec.utils.errors import ConfigError
from adrec.utils.files import check_apart, check_side_output, write_json
from adrec.utils.tables import check_output, write_table


def evaluate(
    run: RunFolder,
    on: Annotated[Literal["test", "validation"], typer.Option(help="Held-out part to evaluate.")] = "test",
    k: Annotated[str, typer.Option(help="Cut-offs of the metrics, separated by commas.")] = "5,10,20",
    seen: SeenItems = "data",
    batch_means: Annotated[bool, typer.Option(help="Add the batch average of the published code.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for the result.")] = None,
    ranks: Annotated[
        Path | None, typer.Option(help="Output file for the ranks (.parquet, .csv, .jsonl); default: in the run.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="Another run, for a paired test over the same users.")] = None,
    recommendations: Annotated[
        Path | None,
        typer.Option(help="Table (user, item, rank or score) to evaluate instead; RUN may be a data set."),
    ] = None,
    steps: Steps = None,
    sampler: SamplerName = None,
    data: Data = None,
    own_model: OwnModel = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Evaluate HR, NDCG and MRR over the whole catalogue, with 95 % intervals over users."""
    from adrec.cli import workflow
    from adrec.evaluate.comparison import compare

    console, output = console_for(quiet), Console(highlight=False)
    check_side_output(json_file, "--json")
    check_output(ranks, "--ranks")
    use_threads(threads)
    use_own_model(own_model)
    if recommendations is not None:
        if against or seen != "data" or batch_means or steps or sampler or ranks:
            raise ConfigError("--recommendations goes with --on, --k and --json alone: the table says the rest.")
        result, notes = workflow.evaluate_recommendations(run, recommendations, on, cutoffs=cutoffs(k), data=data)
        for note in notes:
            console.print(f"note: {note}")
        output.print(evaluation_table(result), evaluation_notes(result), sep="\n")
        if json_file is not None:
            write_json(json_file, result.to_dict())
        return
    with counter(console) as progress:
        task = progress.add_task("ranking", total=None)
        evaluated = [
            workflow.evaluate_run(
                path,
                on,
                cutoffs=cutoffs(k),
                seen=seen,
                with_batch_means=batch_means,
                steps=steps if index == 0 else None,
                sampler=sampler if index == 0 else None,
                data=data,
                device=device,
                on_batch=lambda users: progress.advance(task, users),
            )
            for index, path in enumerate((run, against))
            if path is not None
        ]
    result, values = evaluated[0], evaluated[0].to_dict()
    output.print(evaluation_table(result))
    if against is not None:
        differences = compare(evaluated[0], evaluated[1])
        output.print(difference_table(evaluated[0], evaluated[1], differences))
        values["against"] = {
            "run": str(against),
            "differences": {name: {**each.estimate.to_dict(), "p": each.p} for name, each in differences.items()},
        }
    output.print(evaluation_notes(result, names_other=seen == "data"))
    if json_file is not None:
        write_json(json_file, values)
    chosen = [*([] if seen == "data" else [seen]), *([f"{steps}-steps"] if steps else []), sampler or ""]
    path = ranks or run / f"{'-'.join(filter(None, ['ranks', on, *chosen]))}.parquet"
    write_table(result.ranks, path)
    console.print(f"Ranks of each user: {path}")


def recommend(
    run: RunFolder,
    users: Annotated[Path | None, typer.Option(help="Table with a column of user ids; default: all users.")] = None,
    user: Annotated[list[str] | None, typer.Option(help="User id; repeatable.")] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="Instead of users: table of the interactions of new users."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(help="Instead of users: item of one new user's history, oldest first; repeatable."),
    ] = None,
    k: Annotated[int, typer.Option(help="Number of items for each user.")] = 10,
    seen: SeenItems = "data",
    diversity: Annotated[
        float, typer.Option(min=0, max=1, help="How much an item loses for resembling items above it, 0 to 1.")
    ] = 0.0,
    allow: Annotated[Path | None, typer.Option(help="Table of the only items to recommend.")] = None,
    block: Annotated[Path | None, typer.Option(help="Table of items never to recommend.")] = None,
    on_unknown: Annotated[Literal["error", "skip"], typer.Option(help="What to do with unknown users.")] = "error",
    steps: Steps = None,
    sampler: SamplerName = None,
    out: OutFile = None,
    output_format: Format = None,
    data: Data = None,
    own_model: OwnModel = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Recommend items to users of the data set, or to new users with a history."""
    from adrec.cli import workflow

    console = console_for(quiet)
    use_threads(threads)
    use_own_model(own_model)
    check_result(out, output_format)
    check_apart(out, [users, history, allow, block], "--out")
    with counter(console) as progress:
        task = progress.add_task("recommending", total=None)
        result = workflow.recommend(
            run,
            workflow.Audience(users, user, history, given),
            k=k,
            seen=seen,
            diversity=diversity,
            allow=allow,
            block=block,
            on_unknown=on_unknown,
            steps=steps,
            sampler=sampler,
            data=data,
            device=device,
            on_batch=lambda done: progress.advance(task, done),
        )
    for note in result.notes:
        console.print(f"note: {note}")
    emit(result.table, out, output_format, console)


def similar(
    run: RunFolder,
    item: Annotated[list[str], typer.Option(help="Item id; repeatable.")],
    k: Annotated[int, typer.Option(help="Number of similar items for each item.")] = 10,
    out: OutFile = None,
    output_format: Format = None,
    data: Data = None,
    own_model: OwnModel = None,
    quiet: Quiet = False,
) -> None:
    """Find the items with the nearest embeddings to a given item."""
    from adrec.cli import workflow

    use_own_model(own_model)

    check_result(out, output_format)
    emit(workflow.similar(run, item, k, data=data), out, output_format, console_for(quiet))
