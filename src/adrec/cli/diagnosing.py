"""The command that diagnoses embedding collapse: diagnose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from adrec.cli.options import Data, OwnModel, Quiet, Threads, console_for, use_own_model, use_threads
from adrec.utils.errors import ConfigError
from adrec.utils.files import write_json
from adrec.utils.folders import check_side_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adrec.diagnose.attributes import Attribute

MOST_BESIDE = 2  # spaces whose measures and references fit the width of a terminal


def diagnose(
    embedding: Annotated[Path, typer.Argument(help="Embedding: a run folder, a .npy or a .safetensors file.")],
    against: Annotated[list[Path] | None, typer.Option(help="Another embedding to compare; repeatable.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for report.html, pictures and diagnosis.json.")
    ] = None,
    attributes: Annotated[Path | None, typer.Option(help="Table of item attributes, with an item column.")] = None,
    attribute: Annotated[str | None, typer.Option(help="Column of --attributes that colours the maps.")] = None,
    names: Annotated[str | None, typer.Option(help="Column of --attributes that labels items on the maps.")] = None,
    fail_on: Annotated[
        Literal["fading", "collapsed"] | None,
        typer.Option(help="Exit with code 1 if the first embedding has this state or a worse one."),
    ] = None,
    pictures: Annotated[
        str | None, typer.Option(help="Picture formats, separated by commas, such as png,svg; default: png.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for the measures.")] = None,
    tensor: Annotated[str | None, typer.Option(help="Name of the matrix in a .safetensors file.")] = None,
    data: Data = None,
    own_model: OwnModel = None,
    diffusion: Annotated[
        bool, typer.Option("--diffusion", help="Measure instead what diffusion contributes to the ranking.")
    ] = False,
    part: Annotated[
        Literal["validation", "test"] | None,
        typer.Option("--on", help="With --diffusion: the held-out part; default: validation."),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=2, help="With --diffusion: samples per user; default: 8.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of samples and maps.")] = 0,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Diagnose embedding collapse: compare an embedding with random noise, its shuffled columns and stage 1."""
    from adrec.diagnose.diagnosis import diagnose as diagnosed
    from adrec.diagnose.maps import check_drawing
    from adrec.diagnose.pictures import check_kinds
    from adrec.diagnose.report import write_report
    from adrec.diagnose.source import distinct_names, named, open_space

    use_threads(threads)
    from adrec.diagnose.structure import check_scikit_learn
    from adrec.diagnose.table import measures_table, summary_table
    from adrec.diagnose.verdict import STATES

    console, output = console_for(quiet), Console(highlight=False, soft_wrap=True)
    check_side_output(json_file, "--json")
    use_own_model(own_model)
    if diffusion:
        if attributes or attribute or names or out or fail_on or tensor or pictures is not None:
            raise ConfigError("--diffusion goes with --against, --on, --samples, --json and --data alone.")
        _contribution(embedding, against or [], part or "validation", samples, seed, data, json_file, output)
        return
    check_scikit_learn()
    kinds = [f".{kind.strip().lstrip('.')}" for kind in ("png" if pictures is None else pictures).split(",")]
    if out is not None:
        check_drawing()
        check_kinds(kinds)
        check_folder(out)
    paths = [embedding, *(against or [])]
    _check_options(attributes, attribute, names, out, part or samples)
    if pictures is not None and out is None:
        raise ConfigError("--pictures are of the report; give --out for it.")
    if tensor is not None and not any(path.suffix == ".safetensors" for path in paths):
        raise ConfigError("--tensor names a matrix of a safetensors file, and none is given; leave it out.")
    spaces = [
        open_space(path, name=name, data=data, tensor=tensor)
        for path, name in zip(paths, distinct_names(paths), strict=True)
    ]
    coloured = _attributes(spaces, attributes, attribute, console) if attributes and attribute else None
    found = []
    for space in spaces:
        rows, size = space.embedding.shape
        console.print(f"{space.name}: {rows:,} items in {size} dimensions ..")
        found.append(diagnosed(space, seed=seed))
    for each in found:
        output.print(f"{each.space.name}: {' '.join(each.verdict.sentences)}", markup=False)
        for note in each.measures.notes:
            console.print(f"note: {note}")
    few = len(found) <= MOST_BESIDE
    Console(highlight=False).print(measures_table(found) if few else summary_table(found))
    if json_file is not None:
        write_json(json_file, {each.space.name: each.to_dict() for each in found})
    if out is not None:
        if attributes and names:
            found = [replace(each, space=named(each.space, attributes, names)) for each in found]
        console.print("Drawing maps (t-SNE), about half a minute for each ..")
        console.print(f"Report: {write_report(found, out, kinds=kinds, attribute=coloured, seed=seed)}")
    if fail_on is not None and STATES.index(found[0].verdict.state) >= STATES.index(fail_on):
        raise typer.Exit(1)


def _check_options(
    attributes: Path | None, attribute: str | None, names: str | None, out: Path | None, of_diffusion: object
) -> None:
    if (attributes is None) != (attribute is None and names is None):
        raise ConfigError("--attributes FILE goes together with --attribute COLUMN or --names COLUMN.")
    if names is not None and out is None:
        raise ConfigError("--names names the points of maps; give --out for them.")
    if of_diffusion is not None:
        raise ConfigError("--on and --samples say how --diffusion is measured; give that too, or leave them out.")


def check_folder(out: Path) -> None:
    """Raise :class:`ConfigError` if the path of the output folder is a file."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder.")


def _contribution(
    path: Path,
    against: Sequence[Path],
    part: str,
    samples: int | None,
    seed: int,
    data: Path | None,
    json_file: Path | None,
    output: Console,
) -> None:
    from adrec.diagnose.contribution import SAMPLES, contribution_of_runs
    from adrec.diagnose.table import contribution_notes, contribution_table

    found = contribution_of_runs(path, against, part, samples=samples or SAMPLES, seed=seed, data=data)
    output.print(contribution_table(found, part))
    for sentence in contribution_notes(found):
        output.print(sentence, markup=False)
    if json_file is not None:
        write_json(json_file, found.to_dict())


def _attributes(spaces: Sequence[object], path: Path, column: str, console: Console) -> list[Attribute]:
    from adrec.diagnose.attributes import Attribute
    from adrec.diagnose.diagnosis import Space
    from adrec.diagnose.source import attribute_of

    found = []
    for space in spaces:
        assert isinstance(space, Space)
        values, notes = attribute_of(space, path, column)
        for note in notes:
            console.print(f"note: {note}")
        found.append(Attribute(column, values))
    return found
