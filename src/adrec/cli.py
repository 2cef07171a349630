"""The command line: one thin function per verb.

Verbs import what needs PyTorch themselves: it takes seconds, which ``adrec --help`` and a mistyped path should not.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from adrec import inspect as inspection
from adrec._version import __version__
from adrec.config import DEFAULT_SEED, PRESETS, parse_changes, preset
from adrec.console import (
    counter,
    evaluation_notes,
    evaluation_table,
    facts_table,
    preparation,
    recipe_page,
    recipes_table,
)
from adrec.data.dataset import open_dataset, write_dataset
from adrec.data.preparation import Duplicates, FormatName, TimeUnit
from adrec.data.prepare import prepare as prepare_dataset
from adrec.data.recipes import recipe_options, recipes
from adrec.errors import ConfigError, UserError
from adrec.files import check_folder, write_json
from adrec.options import (
    Data,
    Device,
    Format,
    Out,
    OutFile,
    Quiet,
    RunFolder,
    Threads,
    console_for,
    cutoffs,
    emit,
    use_threads,
)
from adrec.tables import check_output, write_table

READ, KEEP = "How it is read (guessed by default)", "What is kept"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Sequential recommendation, from a table of interactions to recommendations.",
    epilog="Any command takes --debug to show a traceback where it fails.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"adrec {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Take options that every verb has."""


@app.command()
def prepare(
    sources: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Files, a folder of shards, or - for standard input.")
    ],
    out: Out,
    recipe: Annotated[str | None, typer.Option(help="Read it as this known data set (adrec recipes).")] = None,
    user: Annotated[str | None, typer.Option(help="The column of user ids.", rich_help_panel=READ)] = None,
    item: Annotated[str | None, typer.Option(help="The column of item ids.", rich_help_panel=READ)] = None,
    time: Annotated[str | None, typer.Option(help="The column of times.", rich_help_panel=READ)] = None,
    rating: Annotated[str | None, typer.Option(help="The column of ratings.", rich_help_panel=READ)] = None,
    columns: Annotated[
        str | None, typer.Option(help="The columns, with commas, of files without a header.", rich_help_panel=READ)
    ] = None,
    file_format: Annotated[FormatName | None, typer.Option("--format", rich_help_panel=READ)] = None,
    separator: Annotated[str | None, typer.Option(help="Between fields: , or :: or \\t.", rich_help_panel=READ)] = None,
    time_unit: Annotated[TimeUnit | None, typer.Option(help="Of numeric times.", rich_help_panel=READ)] = None,
    time_format: Annotated[
        str | None, typer.Option(help="Of written times, such as %d.%m.%Y.", rich_help_panel=READ)
    ] = None,
    min_rating: Annotated[
        float | None, typer.Option(help="Keep interactions rated at least so.", rich_help_panel=KEEP)
    ] = None,
    duplicates: Annotated[
        Duplicates | None, typer.Option(help="Of a user and an item, keep all, first, last.", rich_help_panel=KEEP)
    ] = None,
    min_user: Annotated[
        int | None, typer.Option(help="Interactions of a user, at least.", rich_help_panel=KEEP)
    ] = None,
    min_item: Annotated[
        int | None, typer.Option(help="Interactions of an item, at least.", rich_help_panel=KEEP)
    ] = None,
    max_rejected: Annotated[
        float | None, typer.Option(help="The share of rows that may be unusable: 0.01.", rich_help_panel=KEEP)
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail at the first such row.", rich_help_panel=KEEP)] = False,
    quarantine: Annotated[
        Path | None, typer.Option(help="The file for such rows; OUT.rejected.jsonl.", rich_help_panel=KEEP)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="leave-one-out, time:MOMENT, ratio:0.8,0.1,0.1, ... (README).")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="A data set prepared before: its users and items keep their numbers.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The data set's name; the file's by default.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
    quiet: Quiet = False,
) -> None:
    """Turn a table of interactions into a prepared data set."""
    check_folder(out, overwrite=overwrite, overwriting="pass --overwrite")
    options: dict[str, Any] = {"user": user, "item": item, "time": time, "rating": rating, "format": file_format}
    options |= {"separator": separator and separator.replace("\\t", "\t"), "time_unit": time_unit, "split": split}
    options |= {"time_format": time_format, "min_rating": min_rating, "duplicates": duplicates, "min_user": min_user}
    options |= {"min_item": min_item, "max_rejected": max_rejected, "strict": strict or None}
    options |= {"header": columns and [column.strip() for column in columns.split(",")]}
    quarantine = quarantine or out.absolute().with_name(f"{out.absolute().name}.rejected.jsonl")
    dataset = prepare_dataset(
        sources,
        recipe=recipe,
        vocabulary=open_dataset(vocabulary) if vocabulary else None,
        quarantine=quarantine,
        name=name,
        **{option: value for option, value in options.items() if value is not None},
    )
    write_dataset(dataset, out, overwrite=overwrite)
    for line in preparation(dataset.info, out, quarantine):
        console_for(quiet).print(line)


@app.command("recipes")
def list_recipes(
    name: Annotated[str | None, typer.Argument(help="Show one whole.")] = None,
) -> None:
    """List the known data sets that adrec prepare --recipe reads, where to get them, and their licences."""
    found = recipes()
    if name is not None:
        recipe_options(name)
    output = Console(highlight=False)
    output.print(recipe_page(found[name]) if name is not None else recipes_table(found.values()))


@app.command("import-published")
def import_published(
    path: Annotated[Path, typer.Argument(help="A dataset.pkl or a .pth file of the published repository.")],
    out: Out,
    trust: Annotated[bool, typer.Option("--trust", help="You know where the file is from.")] = False,
    data: Annotated[Path | None, typer.Option(help="For weights: the data set imported before.")] = None,
    name: Annotated[str | None, typer.Option(help="The data set's name; its folder's by default.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="For weights: a configuration key they do not tell; repeatable.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Turn the published repository's data sets and weights into prepared data sets and runs."""
    from adrec import importing

    console = console_for(quiet)
    importing.check_trusted(path, trust)
    check_folder(out)
    if path.suffix in (".pth", ".pt"):
        if data is None:
            raise ConfigError("weights need --data, the data set imported from the dataset.pkl they were trained on.")
        importing.import_weights(path, data, out, parse_changes(assignments or []))
        console.print(f"Next: adrec evaluate {out}")
        return
    dataset = importing.import_dataset(path, name)
    write_dataset(dataset, out)
    for line in preparation(dataset.info, out, None):
        console.print(line)


@app.command()
def inspect(
    data: Annotated[Path, typer.Argument(help="A prepared data set.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here as JSON.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw them here, a .png or .svg file.")] = None,
    max_length: Annotated[int, typer.Option(min=1, help="The positions that a model sees.")] = 50,
    quiet: Quiet = False,
) -> None:
    """Tell what is in a prepared data set, and warn of what will hurt."""
    from adrec import pictures

    if picture is not None:
        pictures.check_picture(picture)
    dataset = open_dataset(data)
    facts = inspection.inspect(dataset, max_length)
    warnings = list(inspection.warnings(facts))
    if not quiet:
        output = Console(highlight=False, markup=False)
        output.print(facts_table(facts))
        for warning in warnings:
            output.print(f"warning: {warning}", soft_wrap=True)
    if json_file is not None:
        write_json(json_file, {**facts.to_dict(), "warnings": warnings})
    if picture is not None:
        pictures.picture(dataset, facts, picture)
        console_for(quiet).print(f"Picture: {picture}")


@app.command()
def train(
    data: Annotated[Path | None, typer.Argument(help="A prepared data set.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder to write.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; DATA only if it was moved.")] = None,
    preset_name: Annotated[str, typer.Option("--preset", help=f"One of {', '.join(PRESETS)}.")] = "default",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="A configuration key, such as model.hidden_size=64; repeatable."),
    ] = None,
    max_epochs: Annotated[int | None, typer.Option(help="At most so many epochs in each stage.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random number.")] = DEFAULT_SEED,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train the three stages; an interrupted run goes on with --resume and loses nothing."""
    from adrec import workflow
    from adrec.model import make_config

    console = console_for(quiet)
    if resume is not None:
        if out is not None:
            raise ConfigError("--resume takes no --out: it goes on in the run folder.")
        if assignments or max_epochs is not None or (preset_name, seed, device) != ("default", DEFAULT_SEED, "auto"):
            raise ConfigError(
                "--resume goes on with the configuration, seed and device that the run began with; give none of them, "
                "or train a new run."
            )
        run = workflow.resume(resume, data=data, threads=threads, console=console)
    else:
        if data is None or out is None:
            raise ConfigError("adrec train needs a prepared data set and --out, or --resume with a run folder.")
        changes = parse_changes(assignments or [])
        config = make_config(preset_name, changes, max_epochs)
        run = workflow.train_dataset(data, out, config, None, seed, console, device=device, threads=threads)
    verb = "evaluate" if run.info.num_test else "recommend"
    console.print(f"Next: adrec {verb} {run.path}")


@app.command()
def refit(
    run: RunFolder,
    out: Out,
    data: Data = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train with a run's settings and chosen epochs on all interactions, nothing held out: for production."""
    from adrec import workflow

    console = console_for(quiet)
    workflow.refit(run, out, data=data, device=device, threads=threads, console=console)
    console.print(f"Next: adrec recommend {out}")


@app.command()
def evaluate(
    run: RunFolder,
    on: Annotated[Literal["test", "validation"], typer.Option(help="The held-out part.")] = "test",
    k: Annotated[str, typer.Option(help="Cut-offs of the metrics, with commas.")] = "5,10,20",
    filter_seen: Annotated[bool, typer.Option(help="Leave the history's items out of the ranking.")] = False,
    batch_means: Annotated[bool, typer.Option(help="Add the published code's average over batches.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result here as JSON.")] = None,
    ranks: Annotated[
        Path | None, typer.Option(help="Write each user's rank here (.parquet, .csv, .jsonl); into the run by default.")
    ] = None,
    data: Data = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Measure HR, NDCG and MRR with 95 % intervals over users, against the whole catalogue."""
    from adrec import workflow

    console = console_for(quiet)
    use_threads(threads)
    with counter(console) as progress:
        task = progress.add_task("ranking", total=None)
        result = workflow.evaluate_run(
            run,
            on,
            cutoffs=cutoffs(k),
            filter_seen=filter_seen,
            with_batch_means=batch_means,
            data=data,
            device=device,
            on_batch=lambda users: progress.advance(task, users),
        )
    if not quiet:
        output = Console(highlight=False)
        output.print(evaluation_table(result))
        output.print(evaluation_notes(result))
    if json_file is not None:
        write_json(json_file, result.to_dict())
    place = ranks or run / f"ranks-{on}{'-filter-seen' if filter_seen else ''}.parquet"
    write_table(result.ranks, place)
    console.print(f"Ranks of each user: {place}")


@app.command()
def recommend(
    run: RunFolder,
    users: Annotated[Path | None, typer.Option(help="A table with a column of user ids; all users by default.")] = None,
    user: Annotated[list[str] | None, typer.Option(help="One user id; repeatable.")] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="Instead of users: a table of the interactions of people never seen."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(help="Instead of users: an item somebody interacted with, oldest first; repeatable."),
    ] = None,
    k: Annotated[int, typer.Option(help="Items for each.")] = 10,
    filter_seen: Annotated[bool, typer.Option(help="Leave out the items of the history.")] = True,
    allow: Annotated[Path | None, typer.Option(help="Recommend only the items in this table.")] = None,
    block: Annotated[Path | None, typer.Option(help="Never recommend the items in this table.")] = None,
    on_unknown: Annotated[Literal["error", "skip"], typer.Option(help="For users who are not in the data.")] = "error",
    out: OutFile = None,
    output_format: Format = None,
    data: Data = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Recommend items to users of the data set, or to people never seen in training."""
    from adrec import workflow

    console = console_for(quiet)
    use_threads(threads)
    check_output(out)
    with counter(console) as progress:
        task = progress.add_task("recommending", total=None)
        result = workflow.recommend(
            run,
            workflow.Audience(users, user, history, given),
            k=k,
            filter_seen=filter_seen,
            allow=allow,
            block=block,
            on_unknown=on_unknown,
            data=data,
            device=device,
            on_batch=lambda done: progress.advance(task, done),
        )
    for note in result.notes:
        console.print(f"note: {note}")
    emit(result.table, out, output_format, console)


@app.command()
def similar(
    run: RunFolder,
    item: Annotated[list[str], typer.Option(help="An item id; repeatable.")],
    k: Annotated[int, typer.Option(help="Similar items for each.")] = 10,
    out: OutFile = None,
    output_format: Format = None,
    data: Data = None,
    quiet: Quiet = False,
) -> None:
    """Find the items whose embeddings are nearest to an item's."""
    from adrec import workflow

    check_output(out)
    emit(workflow.similar(run, item, k, data=data), out, output_format, console_for(quiet))


@app.command()
def config(
    preset_name: Annotated[str, typer.Argument(metavar="PRESET")] = "default",
    assignments: Annotated[list[str] | None, typer.Option("--set", help="A key to change; repeatable.")] = None,
) -> None:
    """Print a preset's full configuration as JSON: every key that --set takes."""
    print(json.dumps(preset(preset_name, parse_changes(assignments or [])).to_dict(), indent=2))


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option("--out", help="Keep the data set and the run here.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random number.")] = DEFAULT_SEED,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train on real MovieLens ratings and recommend films by title, in minutes."""
    from adrec.demo import run_demo

    use_threads(threads)
    run_demo(out, seed=seed, console=Console(quiet=quiet, highlight=False, soft_wrap=True))


@contextmanager
def _one_sentence(debug: bool) -> Iterator[None]:
    """Print a user's error as one sentence and exit with 2."""
    try:
        yield
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"adrec: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nadrec: interrupted.", file=sys.stderr)
        sys.exit(130)


def main() -> None:
    """Run the command line; ``--debug`` anywhere shows tracebacks."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    with _one_sentence(debug):
        app()
