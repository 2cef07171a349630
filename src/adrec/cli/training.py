"""Commands for models: train, refit, plan, models, config, demo."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from adrec.cli.console import config_table, models_table, plan_tables
from adrec.cli.options import (
    Augment,
    Data,
    Dates,
    Device,
    ModelName,
    Out,
    OwnModel,
    Preset,
    Quiet,
    RunFolder,
    Threads,
    console_for,
    seconds,
    use_own_model,
    use_threads,
)
from adrec.config.base import DEFAULT_SEED, parse_changes
from adrec.utils.errors import ConfigError
from adrec.utils.files import write_json
from adrec.utils.folders import check_side_output

if TYPE_CHECKING:
    from adrec.models.base import Model

ValidateUsers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Validate on so many users, drawn once with the seed; default: all, or 10,000 if all would take too long.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run at --out once this one is done.")]


def train(
    data: Annotated[Path | None, typer.Argument(help="Folder of the prepared data set.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Output run folder.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Resume this run; give DATA only if it was moved.")] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Start from the weights and settings of this run on older data."),
    ] = None,
    overwrite: Overwrite = False,
    dates: Dates = False,
    model_name: ModelName = "adrec",
    preset_name: Preset = "default",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Configuration change, such as model.hidden_size=64; repeatable."),
    ] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Largest number of epochs in each stage.")] = None,
    augment: Augment = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = DEFAULT_SEED,
    checkpoint_every: Annotated[
        str | None, typer.Option(help="Time between two snapshots, such as 5m; default: at most 5 % of the time.")
    ] = None,
    recover: Annotated[
        bool, typer.Option(help="Go back to the last snapshot, at half the learning rate, if training diverges.")
    ] = True,
    validate_users: ValidateUsers = None,
    item_vectors: Annotated[
        Path | None,
        typer.Option(help="Table of a vector of features for each item, which places items without interactions."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train a model; --resume continues an interrupted run without loss."""
    from adrec.cli import workflow
    from adrec.cli.ranks import start_ranks
    from adrec.models.factory import make_model
    from adrec.runs.place import Place

    ranks = start_ranks(device, resume)
    console = console_for(quiet or not (ranks is None or ranks.leads), dates)
    every = None if checkpoint_every is None else seconds(checkpoint_every, "--checkpoint-every")
    conduct = workflow.Conduct(device, threads, every, recover, validate_users, ranks, item_vectors)
    if resume is not None:
        if start is not None or overwrite:
            raise ConfigError("--resume goes on with the run as it is; leave out --from and --overwrite.")
        if out is not None:
            raise ConfigError("--resume takes no --out: it resumes in the run folder.")
        own = model_name if ":" in model_name else None  # its runs are opened only if the user names the class
        given = (
            own or model_name,
            preset_name,
            seed,
            device,
            max_epochs,
            augment,
            recover,
            validate_users,
            item_vectors,
        )
        if assignments or given != (own or "adrec", "default", DEFAULT_SEED, "auto", None, None, True, None, None):
            raise ConfigError(
                "--resume keeps the model, configuration, seed and device of the run; give none of "
                "them (but --model module:Class where it is your own), or train a new run."
            )
        use_own_model(own)
        run = workflow.resume(resume, data=data, threads=threads, console=console, every=every, ranks=ranks)
    else:
        if data is None or out is None:
            raise ConfigError("adrec train needs a prepared data set and --out, or --resume with a run folder.")
        changes = parse_changes(assignments or [])
        place = Place(out, overwrite and (ranks is None or ranks.leads))
        if start is not None:
            if (model_name, preset_name, augment) != ("adrec", "default", None):
                raise ConfigError("--from takes the model and its settings from the run; change them with --set alone.")
            run = workflow.train_from(data, place.path, start, changes, max_epochs, seed, console, conduct)
        else:
            model = make_model(model_name, preset_name, changes, max_epochs, augment)
            run = workflow.train_dataset(data, place.path, model, None, seed, console, conduct=conduct, name=model_name)
        run = place.taken(run)
    verb = "evaluate" if run.info.num_test else "recommend"
    console.print(f"Next: adrec {verb} {run.path}{_named(run.info.model)}")


def refit(
    run: RunFolder,
    out: Out,
    data: Data = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Run whose weights to start from; default: those that RUN started from."),
    ] = None,
    own_model: OwnModel = None,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    dates: Dates = False,
    quiet: Quiet = False,
) -> None:
    """Retrain a run for production, on all interactions, with its settings and chosen epochs."""
    from adrec.cli import workflow
    from adrec.runs.place import Place

    use_own_model(own_model)

    console, place = console_for(quiet, dates), Place(out, overwrite)
    conduct = workflow.Conduct(device, threads)
    final = workflow.refit(run, place.path, data=data, start=start, conduct=conduct, console=console)
    final = place.taken(final)
    console.print(f"Next: adrec recommend {out}{_named(final.info.model)}")


def _named(model: str) -> str:
    """Return the option that opening a run of the user's own model requires."""
    return f" --model {model}" if ":" in model else ""


def plan(
    data: Annotated[Path, typer.Argument(help="Folder of the prepared data set.")],
    model_name: ModelName = "adrec",
    preset_name: Preset = "default",
    assignments: Annotated[list[str] | None, typer.Option("--set", help="Configuration change; repeatable.")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Largest number of epochs in each stage.")] = None,
    augment: Augment = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for the plan.")] = None,
    validate_users: ValidateUsers = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Estimate the memory, time and disk of a training run from a few real steps."""
    from adrec.cli import planning
    from adrec.models.factory import make_model

    check_side_output(json_file, "--json")
    use_threads(threads)
    model = make_model(model_name, preset_name, parse_changes(assignments or []), max_epochs, augment)
    made = planning.plan(data, model, device=device, validate_users=validate_users)
    if json_file is not None:
        write_json(json_file, made.to_dict())
    output = Console(highlight=False, soft_wrap=True)
    for part in plan_tables(made):
        output.print(part)
    asked: list[tuple[str, object, object]] = [
        ("--model", model_name, "adrec"),
        ("--preset", preset_name, "default"),
        ("--augment", augment, None),
    ]
    asked += [("--set", each, None) for each in assignments or []] + [("--max-epochs", max_epochs, None)]
    asked += [("--validate-users", validate_users, None), ("--device", device, "auto"), ("--threads", threads, None)]
    options = [part for name, value, usual in asked if value != usual for part in (name, str(value))]
    command = shlex.join(["adrec", "train", str(data), *options, "--out", f"runs/{data.absolute().name}"])
    console_for(quiet).print(f"Next: {command}")


def list_models() -> None:
    """List the available models, with their papers."""
    from adrec.models.registry import find_model, model_names

    found: dict[str, type[Model] | ConfigError] = {}
    for name in model_names():
        try:
            found[name] = find_model(name)
        except ConfigError as error:  # a model that cannot be imported does not hide the others
            found[name] = error
    Console(highlight=False).print(models_table(found))


def config(
    preset_name: Annotated[str | None, typer.Argument(metavar="PRESET", help="Preset; default: default.")] = None,
    model_name: ModelName = "adrec",
    preset_option: Annotated[str | None, typer.Option("--preset", help="Preset, as an option instead.")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="Configuration change; repeatable.")] = None,
    augment: Augment = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the configuration as JSON.")] = False,
) -> None:
    """Print the configuration of a preset: every effective key, its value and its meaning."""
    from adrec.models.factory import make_model

    if preset_name is not None and preset_option is not None:
        raise ConfigError(f"the preset is named twice, {preset_name} and --preset {preset_option}; name it once.")
    preset = preset_option or preset_name or "default"
    model = make_model(model_name, preset, parse_changes(assignments or []), augment=augment)
    if as_json:
        print(json.dumps(model.config.to_dict(), indent=2))
        return
    output = Console(highlight=False, markup=False)
    if not output.is_terminal:
        output = Console(highlight=False, markup=False, width=200)  # a line for each key
    output.print(config_table(model.config))
    absent = model.config.absent_groups()
    if absent:
        output.print(f"Left out: {', '.join(absent)}. --set {absent[0]}=true takes a group with its default values.")


def demo(
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the data set and the run.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = DEFAULT_SEED,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train on real MovieLens ratings and recommend films by title, in minutes."""
    from adrec.cli.demo import run_demo

    use_threads(threads)
    run_demo(out, seed=seed, console=Console(quiet=quiet, highlight=False, soft_wrap=True))
