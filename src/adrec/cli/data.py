"""Commands for data: prepare, recipes, import-published, inspect, interactions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from adrec.cli.console import facts_table, recipe_page, recipes_table
from adrec.cli.options import Out, Quiet, SeenPolicy, console_for
from adrec.config.base import parse_changes
from adrec.data import summary as inspection
from adrec.data.dataset import Dataset, open_dataset, write_dataset
from adrec.data.lists import read_ids
from adrec.data.parts import part_table
from adrec.data.preparation import Duplicates, FormatName, TimeUnit
from adrec.data.prepare import preparation, quarantine_of
from adrec.data.prepare import prepare as prepare_dataset
from adrec.data.recipes import recipe_options, recipes
from adrec.data.remote import is_url
from adrec.data.split import make_split
from adrec.utils.errors import ConfigError
from adrec.utils.files import write_json
from adrec.utils.folders import DATASET, check_apart, check_folder, check_side_output
from adrec.utils.tables import check_output, write_table
from adrec.utils.text import as_name

READ, KEEP = "How it is read (guessed by default)", "What is kept"


def prepare(
    out: Out,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Input files, a folder of shards, - for standard input, or a URL."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe of a known data set (see adrec recipes).")] = None,
    user: Annotated[str | None, typer.Option(help="Column of user ids.", rich_help_panel=READ)] = None,
    item: Annotated[str | None, typer.Option(help="Column of item ids.", rich_help_panel=READ)] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of timestamps; none: the rows are in order.", rich_help_panel=READ)
    ] = None,
    rating: Annotated[str | None, typer.Option(help="Column of ratings.", rich_help_panel=READ)] = None,
    event: Annotated[str | None, typer.Option(help="Column of event types.", rich_help_panel=READ)] = None,
    columns: Annotated[
        str | None, typer.Option(help="Comma-separated column names of files without header.", rich_help_panel=READ)
    ] = None,
    file_format: Annotated[FormatName | None, typer.Option("--format", rich_help_panel=READ)] = None,
    separator: Annotated[str | None, typer.Option(help="Field separator: , :: or \\t.", rich_help_panel=READ)] = None,
    quoted: Annotated[
        bool | None,
        typer.Option(
            "--quoted/--no-quoted",
            help="Fields in double quotes, also over line ends, or quotes as they are.",
            rich_help_panel=READ,
        ),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of text, such as latin-1; default: UTF-8.", rich_help_panel=READ)
    ] = None,
    time_unit: Annotated[TimeUnit | None, typer.Option(help="Unit of numeric times.", rich_help_panel=READ)] = None,
    time_format: Annotated[
        str | None, typer.Option(help="Format of written times, such as %d.%m.%Y.", rich_help_panel=READ)
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Condition in SQL, such as \"event = 'purchase'\".", rich_help_panel=KEEP)
    ] = None,
    since: Annotated[str | None, typer.Option(help="Moment from which on to keep rows.", rich_help_panel=KEEP)] = None,
    until: Annotated[str | None, typer.Option(help="Moment before which to keep rows.", rich_help_panel=KEEP)] = None,
    session_gap: Annotated[
        str | None, typer.Option(help="Longest pause within a session, such as 30m.", rich_help_panel=KEEP)
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="Query in SQL; INPUT is the URL of a database.", rich_help_panel=READ)
    ] = None,
    keep_null_ids: Annotated[
        bool, typer.Option("--keep-null-ids", help="Take NA, NULL and the like as ids.", rich_help_panel=KEEP)
    ] = False,
    min_rating: Annotated[float | None, typer.Option(help="Lowest rating to keep.", rich_help_panel=KEEP)] = None,
    event_weights: Annotated[
        str | None,
        typer.Option(help="How much each type counts as a target: purchase=1,view=0.1.", rich_help_panel=KEEP),
    ] = None,
    duplicates: Annotated[
        Duplicates | None, typer.Option(help="Which repeated interactions of a pair to keep.", rich_help_panel=KEEP)
    ] = None,
    min_user: Annotated[int | None, typer.Option(help="Fewest interactions of a user.", rich_help_panel=KEEP)] = None,
    min_item: Annotated[int | None, typer.Option(help="Fewest interactions of an item.", rich_help_panel=KEEP)] = None,
    max_rejected: Annotated[
        float | None, typer.Option(help="Largest share of unusable rows to accept, such as 0.01.", rich_help_panel=KEEP)
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail at an unusable row.", rich_help_panel=KEEP)] = False,
    quarantine: Annotated[
        Path | None, typer.Option(help="File for unusable rows; default: OUT.rejected.jsonl.", rich_help_panel=KEEP)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split: leave-one-out (default), last-basket, time:MOMENT, temporal-leave-one-out:MOMENT, "
            "ratio:0.8,0.1,0.1, users:TEST.csv or none."
        ),
    ] = None,
    seen: SeenPolicy = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Earlier prepared data set whose user and item numbers to keep.")
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option(help="Earlier prepared data set whose interactions, numbers and options to keep; INPUT is added."),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="Table of items that are in the catalogue without an interaction too.")
    ] = None,
    events: Annotated[
        str | None, typer.Option(help="Store of adrec serve --events, a file or URL, instead of INPUT: its new events.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set; default: the file's name.")] = None,
    engine: Annotated[
        Literal["local", "spark"], typer.Option(help="What reads INPUT; spark takes the name of a table too.")
    ] = "local",
    overwrite: Annotated[bool, typer.Option(help="Replace an existing data set at --out.")] = False,
    quiet: Quiet = False,
) -> None:
    """Prepare a table of interactions as a data set for training."""
    if (events is None) == (not sources):
        raise ConfigError(
            "prepare reads INPUT, a table of interactions, or --events, a store of events: give one of the two"
            + (" (with --extend the events are added to an earlier data set)." if events else ".")
        )
    sources = sources or []
    quarantine = quarantine or quarantine_of(out)
    lists = [Path(part) for part in (split or "").partition(":")[2].split(",") if part]
    lists += [] if items is None else [items]
    _check_outputs(out, quarantine, overwrite, [*(Path(each) for each in sources if not is_url(each)), *lists])
    options: dict[str, Any] = {"user": user, "item": item, "time": time, "rating": rating, "format": file_format}
    options |= {"separator": separator and separator.replace("\\t", "\t"), "time_unit": time_unit, "split": split}
    options |= {"time_format": time_format, "min_rating": min_rating, "duplicates": duplicates, "min_user": min_user}
    options |= {"min_item": min_item, "max_rejected": max_rejected, "strict": strict or None, "seen": seen}
    options |= {"quoted": quoted, "encoding": encoding, "keep_null_ids": keep_null_ids or None}
    options |= {"where": where, "since": since, "until": until, "session_gap": session_gap, "query": query}
    options |= {"event": event, "event_weights": event_weights}
    options |= {"header": columns and [column.strip() for column in columns.split(",")]}
    given = {option: value for option, value in options.items() if value is not None}
    earlier = _verified(extend) if extend else None
    source: Any
    source, more = (sources, {}) if events is None else _live(events, earlier, given)
    if engine == "spark":
        source, more["name"] = _by_spark(sources, given), name or as_name(Path(sources[0]).stem)
    dataset = prepare_dataset(
        source,
        recipe=recipe,
        vocabulary=_verified(vocabulary) if vocabulary else None,
        extend=earlier,
        quarantine=quarantine,
        items=None if items is None else read_ids(items, "item"),
        **{"name": _live_name(earlier) if name is None and events is not None else name, **more, **given},
    )
    said = list(preparation(dataset.info, out, quarantine))  # before printing: --out may replace the working directory
    write_dataset(dataset, out, overwrite=overwrite)
    for line in said:
        console_for(quiet).print(line)


def _by_spark(sources: Sequence[str], given: dict[str, Any]) -> Any:
    """Return the table that Spark reads."""
    from adrec.bulk.spark import read_table

    unfit = [name for name in ("format", "separator", "quoted", "encoding", "header", "query") if name in given]
    if unfit or not sources:
        option = f"--{unfit[0].replace('header', 'columns')}" if unfit else "--events"
        raise ConfigError(f"{option} says how a file is read, which Spark does by itself; leave it out.")
    return read_table(sources, given)


def _live_name(base: Dataset | None) -> str:
    return "events" if base is None else base.info.name


def _live(place: str, base: Dataset | None, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the new events of a store as a table, and the options that they need."""
    from adrec.live.preparing import as_table, news_of

    unfit = [name for name in ("user", "item", "time", "event", "header", "separator", "query") if name in given]
    if unfit:
        raise ConfigError(
            f"--{unfit[0].replace('header', 'columns')} says how a table is read; leave it out with --events."
        )
    news = news_of(place, base)
    table, options = as_table(news, base)
    return table, options | {"erased": news.erased, "events": {news.store: news.last}}


def _verified(path: Path) -> Dataset:
    dataset = open_dataset(path)
    dataset.verify()
    return dataset


def _check_outputs(out: Path, quarantine: Path, overwrite: bool, inputs: Sequence[Path]) -> None:
    """Raise :class:`UserError`, before any work, if an output cannot be written or would overwrite an input."""
    if quarantine.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"--quarantine {quarantine} is in --out {out}, which must be empty; choose a place outside.")
    if overwrite:
        check_apart(out, inputs, "--out")
    check_folder(out, overwrite=DATASET if overwrite else None, overwriting="pass --overwrite")
    check_apart(out, inputs, "--out")
    check_apart(quarantine, inputs, "--quarantine")


def list_recipes(
    name: Annotated[str | None, typer.Argument(help="Recipe to show in full; default: list all.")] = None,
) -> None:
    """List the known data sets that adrec prepare --recipe reads, where to get them, and their licences."""
    found = recipes()
    if name is not None:
        recipe_options(name)
    output = Console(highlight=False)
    output.print(recipe_page(found[name]) if name is not None else recipes_table(found.values()))


def import_published(
    path: Annotated[Path, typer.Argument(help="File of the published repository: dataset.pkl, or a .pth file.")],
    out: Out,
    trust: Annotated[bool, typer.Option("--trust", help="Confirm that the file comes from a trusted source.")] = False,
    data: Annotated[Path | None, typer.Option(help="For weights: the imported data set.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set; default: its folder's name.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="For weights: KEY=VALUE missing from the file; repeatable.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Convert data sets and weights of the published repository to prepared data sets and runs."""
    from adrec.published import importing

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


def inspect(
    data: Annotated[Path, typer.Argument(help="A prepared data set.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for the statistics.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Picture of the statistics: .png or .svg.")] = None,
    max_length: Annotated[int, typer.Option(min=1, help="Length of the model's window.")] = inspection.WINDOW,
    quiet: Quiet = False,
) -> None:
    """Show the statistics of a prepared data set, and warn of likely problems."""
    from adrec.data import pictures

    if picture is not None:
        pictures.check_picture(picture)
    check_side_output(json_file, "--json")
    check_side_output(picture, "--picture")
    dataset = open_dataset(data)
    dataset.verify()
    facts = inspection.inspect(dataset, max_length)
    warnings = list(inspection.warnings(facts))
    output = Console(highlight=False, markup=False)
    output.print(facts_table(facts))
    for warning in warnings:
        output.print(f"warning: {warning}", soft_wrap=True)
    if json_file is not None:
        write_json(json_file, {**facts.to_dict(), "warnings": warnings})
    if picture is not None:
        pictures.picture(dataset, facts, picture)
        console_for(quiet).print(f"Picture: {picture}")


def interactions(
    data: Annotated[Path, typer.Argument(help="A prepared data set.")],
    part: Annotated[
        Literal["train", "history", "validation", "test"],
        typer.Option(help="Part to write: training, a held-out part, or the test users' history before the test."),
    ],
    out: Annotated[Path, typer.Option("--out", help="A .csv, .jsonl or .parquet file.")],
    quiet: Quiet = False,
) -> None:
    """Export a part of a data set's split as a table of user, item and time, for other programs."""
    check_output(out)
    check_apart(out, [data], "--out")
    dataset = open_dataset(data)
    dataset.verify()
    table = part_table(dataset, make_split(dataset, None), part)
    write_table(table, out)
    console_for(quiet).print(f"{table.height:,} interactions written to {out}")
