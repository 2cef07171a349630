"""Commands that compare models: benchmark, results, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from adrec.cli.options import Quiet, SeenPolicy, Threads, console_for, seconds, use_threads
from adrec.config.base import DEFAULT_SEED
from adrec.utils.errors import ConfigError
from adrec.utils.files import write_bytes, write_json
from adrec.utils.folders import check_side_output
from adrec.utils.interrupts import Interrupted


def benchmark(
    data: Annotated[list[Path], typer.Argument(help="Folders of prepared data sets.")],
    out: Annotated[Path, typer.Option("--out", help="Ledger folder; jobs already in it are not computed again.")],
    models: Annotated[
        str | None, typer.Option(help="Models to compare, separated by commas; MODEL@PRESET selects a preset.")
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of entries, or a built-in grid: published, tuned, default, ablation, search, paper, "
            "collapse. "
            'Example entry: \\[short], then model = "adrec", preset = "default", set = { finetune.epochs = 3 }.'
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds (final models) of each entry.")] = 1,
    trials: Annotated[int, typer.Option(help="Tuning trials of each entry that has a search space.")] = 0,
    budget: Annotated[str | None, typer.Option(help="Time after which to stop, such as 30m or 6h.")] = None,
    processes: Annotated[
        int,
        typer.Option(
            "--processes", min=1, help="Number of parallel processes; each computes one seed, or one tuned entry."
        ),
    ] = 1,
    diagnose: Annotated[
        Path | None, typer.Option(help="Folder for a report on collapse of the embedding spaces.")
    ] = None,
    plan_only: Annotated[bool, typer.Option("--dry-run", help="Only list the jobs and their time.")] = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Benchmark models on the same users, with the same data, split, filters and tuning budget.

    Exits with code 1 if a job failed, or if the budget ran out before all jobs finished.
    """
    from adrec.bench.forecast import forecast
    from adrec.bench.grid import check_labels, parse_models, read_grid
    from adrec.bench.ledger import Ledger
    from adrec.bench.results import results
    from adrec.bench.schedule import make_plan, run_plan
    from adrec.data.dataset import open_dataset

    console = console_for(quiet)
    if models is None and grid is None:
        raise ConfigError("adrec benchmark needs --models or --grid.")
    entries = [*(parse_models(models) if models else []), *(read_grid(grid) if grid else [])]
    check_labels(entries)
    untuned = [entry.label for entry in entries if entry.search]
    if untuned and not trials:
        console.print(f"--trials is 0, so nothing is tuned: the search of {', '.join(map(repr, untuned))} is left out.")
    if trials and not untuned:
        console.print(f"--trials {trials} tunes nothing: no entry has a search; only a grid's can have one.")
    limit = seconds(budget) if budget else None
    if diagnose is not None:
        from adrec.cli.diagnosing import check_folder
        from adrec.diagnose.maps import check_drawing

        check_drawing()
        check_folder(diagnose)
    plan = make_plan(
        out, data, entries, seeds=seeds, trials=trials, threads=threads, budget=limit, diagnose=diagnose is not None
    )
    if plan_only:
        table = Table("data", "entry", "seed", "state", "time")
        for series in plan.series:
            for row in forecast(series, Ledger(out), keep_embeddings=plan.diagnose):
                table.add_row(*row.values())
        _output().print(table)
        return
    try:
        complete = run_plan(plan, console, processes=processes)
    except (KeyboardInterrupt, Interrupted):
        console.print(f"\nInterrupted; {out} keeps the jobs and epochs that are finished. The same command resumes.")
        raise
    ledger, names = Ledger.open(out), {open_dataset(path).info.name for path in data}
    finals = [each.job for each in ledger.finished() if each.job.trial is None and not each.error]
    if not quiet and any(entry.has(job) for entry in entries for job in finals if job.data in names):
        show(results(ledger, entries=entries, data=names), _output())
    if diagnose is not None:
        from adrec.bench.spaces import diagnose_benchmark

        diagnose_benchmark(ledger, data, entries, diagnose, console)
    shown = f" --grid {grid}" if grid and not models else ""
    console.print(f"{'Complete' if complete else 'Not complete'}. Next: adrec results {out}{shown} --out results.md")
    if not complete:
        raise typer.Exit(1)


def list_results(
    ledger: Annotated[Path, typer.Argument(help="Ledger folder written by adrec benchmark.")],
    out: Annotated[
        list[Path] | None, typer.Option("--out", help="Output file: .md, .tex, .json, .png or .svg; repeatable.")
    ] = None,
    metric: Annotated[str, typer.Option(help="Metric by which entries are sorted and compared.")] = "ndcg@20",
    reference: Annotated[
        str | None, typer.Option(help="Entry to compare with, in addition to the best; default: ADRec's best.")
    ] = None,
    grid: Annotated[
        list[Path] | None, typer.Option(help="Grid (a file or a built-in name) whose entries to show; repeatable.")
    ] = None,
    preface: Annotated[
        Path | None, typer.Option(help="Markdown file to put at the top of a .md page; it includes the title.")
    ] = None,
) -> None:
    """Show the results in a ledger: means with intervals, paired significance tests and costs. Nothing is trained."""
    from adrec.bench.figure import draw
    from adrec.bench.grid import read_grid
    from adrec.bench.ledger import Ledger
    from adrec.bench.render import latex, markdown
    from adrec.bench.results import results

    if preface is not None and not any(path.suffix == ".md" for path in out or []):
        raise ConfigError("--preface is what a .md page begins with; name one with --out.")
    for path in out or []:
        check_side_output(path, "--out")
    entries = [entry for each in grid for entry in read_grid(each)] if grid else None
    words = [] if preface is None else [_markdown_of(preface)]
    found = results(Ledger.open(ledger), metric, reference, entries)
    for path in out or []:
        if path.suffix == ".md":
            write_bytes(path, markdown(found, *words).encode())
        elif path.suffix == ".tex":
            write_bytes(path, latex(found).encode())
        elif path.suffix == ".json":
            write_json(path, found.to_dict())
        elif path.suffix in (".png", ".svg"):
            draw(found, path)
        else:
            raise ConfigError(f"--out {path} should end in .md, .tex, .json, .png or .svg.")
    if out:
        console_for(False).print(f"Wrote {', '.join(map(str, out))}.", markup=False)
    else:
        show(found, _output())


def _output() -> Console:
    """Return the console for results. Markup is off, as labels may contain brackets."""
    return Console(highlight=False, markup=False)


def _markdown_of(preface: Path) -> str:
    try:
        return preface.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--preface {preface} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--preface {preface} is not UTF-8 text: {error}.") from error


def show(found: object, output: Console) -> None:
    """Print the tables of results."""
    from adrec.bench.render import COST_FROM, accuracy, costs, differences
    from adrec.bench.results import Results

    assert isinstance(found, Results)
    for name, rows in found.rows.items():
        cost = costs(rows)
        for title, cells in (
            (f"{name}: seen items ranked too, x 100", accuracy(rows, "all", ("hr@20", found.metric))),
            (f"{name}: seen items left out, x 100", accuracy(rows, "unseen", ("hr@20", found.metric))),
            (f"{name}: differences in {found.metric}, x 100", differences(rows, "all")),
            (f"{name}: the same, seen items left out", differences(rows, "unseen")),
            (f"{name}: what is recommended", [row[:COST_FROM] for row in cost]),
            (f"{name}: cost", [[row[0], *row[COST_FROM:]] for row in cost]),
        ):
            if len(cells[0]) == 1:
                continue  # a single entry has no differences
            table = Table(*cells[0], title=title)
            for row in cells[1:]:
                table.add_row(*row)
            output.print(table)
    for words, why in found.failed.items():
        output.print(f"failed: {words}: {why}")


def _bare_name(table: Path) -> str:
    """Return a table's file name without the endings for format and compression."""
    from adrec.data.source import COMPRESSED_ENDINGS, SHARD_ENDINGS

    name = Path(table.absolute().name)
    while name.suffix.lower() in (*SHARD_ENDINGS, *COMPRESSED_ENDINGS) and name.stem != name.suffix:
        name = Path(name.stem)
    return str(name)


def compare(
    source: Annotated[Path, typer.Argument(help="Table with user, item and time columns, or a prepared data set.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the data set, the report and the chosen run; default: TABLE-compare."),
    ] = None,
    budget: Annotated[str, typer.Option(help="Total time budget, such as 30m or 2h.")] = "30m",
    user: Annotated[str | None, typer.Option(help="Column of user ids; guessed by default.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of item ids; guessed by default.")] = None,
    time: Annotated[str | None, typer.Option(help="Column of timestamps; guessed by default.")] = None,
    seen: SeenPolicy = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = DEFAULT_SEED,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Choose a model for a data set, and report its margin, its significance and its cost."""
    from adrec.bench.advice import compare_models

    console, limit = console_for(quiet), seconds(budget)
    use_threads(threads)
    out = out or Path(f"{_bare_name(source)}-compare")
    given = {"user": user, "item": item, "time": time, "seen": seen}
    options = {key: value for key, value in given.items() if value is not None}
    found, notes = compare_models(source, out, budget=limit, seed=seed, console=console, options=options)
    output = Console(highlight=False, soft_wrap=True)
    for sentence in (*found.sentences, *notes):
        output.print(sentence, markup=False)
    console.print(f"Report: {out / 'report.html'}. Next: adrec refit {out / 'run'} --out {out / 'final'}")
