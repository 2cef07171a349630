"""Commands that recommend with a run: recommend, similar, score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from adrec.cli.console import counter
from adrec.cli.options import (
    Data,
    Device,
    Format,
    OutFile,
    OwnModel,
    Quiet,
    RunFolder,
    SafeCsv,
    SamplerName,
    SeenItems,
    Steps,
    Threads,
    check_result,
    console_for,
    emit,
    use_own_model,
    use_threads,
)
from adrec.utils.errors import ConfigError
from adrec.utils.folders import check_apart
from adrec.utils.platforms import is_started_by_torchrun

if TYPE_CHECKING:
    from adrec.inference.recommender import Recommendations

RULES, BULK = "What may be recommended", "Many users"
Attributes = Annotated[Path | None, typer.Option(help="Table of items, with an item column.")]
Names = Annotated[str | None, typer.Option(help="Column of --attributes with the names of items, to show them.")]


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
        float,
        typer.Option(
            min=0, max=1, help="How much an item loses for resembling items above it, 0 to 1.", rich_help_panel=RULES
        ),
    ] = 0.0,
    seen_within: Annotated[
        str | None,
        typer.Option(help="Leave out items of the last days of a history alone, such as 30d.", rich_help_panel=RULES),
    ] = None,
    allow: Annotated[
        Path | None,
        typer.Option(help="Table of the only items to recommend; with a user column, to each.", rich_help_panel=RULES),
    ] = None,
    block: Annotated[
        Path | None,
        typer.Option(help="Table of items never to recommend; with a user column, to each.", rich_help_panel=RULES),
    ] = None,
    per_category: Annotated[
        int | None, typer.Option(min=1, help="Largest number of items of one --category.", rich_help_panel=RULES)
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Column of --attributes with the category.", rich_help_panel=RULES)
    ] = None,
    attributes: Attributes = None,
    names: Names = None,
    explain: Annotated[
        int, typer.Option(min=0, help="Number of items of the history to name for each item, and what each adds.")
    ] = 0,
    on_unknown: Annotated[Literal["error", "skip"], typer.Option(help="What to do with unknown users.")] = "error",
    steps: Steps = None,
    sampler: SamplerName = None,
    out: OutFile = None,
    shard_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Write Parquet shards of so many users into the folder --out; default: 100,000.",
            rich_help_panel=BULK,
        ),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Part of the shards to write, such as 1/4.", rich_help_panel=BULK)
    ] = None,
    engine: Annotated[
        Literal["local", "spark", "ray"], typer.Option(help="What computes the shards.", rich_help_panel=BULK)
    ] = "local",
    output_format: Format = None,
    safe_csv: SafeCsv = False,
    data: Data = None,
    own_model: OwnModel = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Recommend items to users of the data set, or to new users with a history."""
    from adrec.cli import recommending

    audience = recommending.Audience(users, user, history, given)
    items = recommending.Items(attributes, names, category)
    wishes = recommending.Wishes(
        k, seen, seen_within, diversity, per_category, allow, block, explain, on_unknown, steps, sampler
    )
    console, inputs = console_for(quiet), [users, history, allow, block, attributes]
    if shard is not None or shard_size is not None or engine != "local":
        from adrec.cli import sharding

        how = sharding.Sharding(out, shard_size, shard, engine)
        how.check(output_format, inputs, device)
        use_threads(threads)
        use_own_model(own_model)
        sharding.recommend(
            run, audience, items, wishes, how, data=data, device=device, console=console, own_model=own_model
        )
        return
    if is_started_by_torchrun():
        raise ConfigError("several processes write shards; add --shard-size, or start without torchrun.")
    _ready(out, output_format, safe_csv, threads, own_model, inputs)
    with counter(console) as progress:
        task = progress.add_task("recommending", total=None)
        request = recommending.Request(run, audience, items, wishes, data=data, device=device)
        result = request.table(0, request.total, lambda done: progress.advance(task, done))
    _tell(request.notes, result, out, output_format, console, safe_csv)


def similar(
    run: RunFolder,
    item: Annotated[list[str], typer.Option(help="Item id; repeatable.")],
    k: Annotated[int, typer.Option(help="Number of similar items for each item.")] = 10,
    attributes: Attributes = None,
    names: Names = None,
    out: OutFile = None,
    output_format: Format = None,
    safe_csv: SafeCsv = False,
    data: Data = None,
    own_model: OwnModel = None,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Find the items with the nearest embeddings to a given item."""
    from adrec.cli import recommending

    _ready(out, output_format, safe_csv, threads, own_model, [attributes])
    found = recommending.similar(run, item, recommending.Items(attributes, names), k, data=data)
    emit(found, out, output_format, console_for(quiet), safe_csv=safe_csv)


def score(
    run: RunFolder,
    pairs: Annotated[Path, typer.Option(help="Table of users and items to score.")],
    out: OutFile = None,
    output_format: Format = None,
    safe_csv: SafeCsv = False,
    data: Data = None,
    own_model: OwnModel = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Score given pairs of users and items; scores of one user can be compared."""
    from adrec.cli import recommending

    console = console_for(quiet)
    _ready(out, output_format, safe_csv, threads, own_model, [pairs])
    result = recommending.score(run, pairs, data=data, device=device)
    _tell((), result, out, output_format, console, safe_csv)


def _ready(
    out: Path | None,
    output_format: str | None,
    safe_csv: bool,
    threads: int | None,
    own_model: str | None,
    inputs: Sequence[Path | None],
) -> None:
    """Check before any work that the result can be written beside the ``inputs``; set threads and the user's model."""
    use_threads(threads)
    use_own_model(own_model)
    check_result(out, output_format, safe_csv=safe_csv)
    check_apart(out, inputs, "--out")


def _tell(
    notes: Sequence[str],
    result: Recommendations,
    out: Path | None,
    output_format: str | None,
    console: Console,
    safe_csv: bool,
) -> None:
    """Print the notes on a result, and write or show its table."""
    for note in (*notes, *result.notes):
        console.print(f"note: {note}")
    emit(result.table, out, output_format, console, safe_csv=safe_csv)
