"""The command line: one thin function per verb, in ``data``, ``training`` and ``runs``.

Verbs import what needs PyTorch themselves: it takes seconds, which ``adrec --help`` and a mistyped path should not.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from adrec._version import __version__
from adrec.cli import comparing, data, diagnosing, runs, training
from adrec.utils.errors import UserError

NO_MEMORY = (
    "the memory is used up; free some, or give less at once: fewer rows, or a smaller batch_size, max_length or "
    "hidden_size."
)
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Sequential recommendation, from a table of interactions to recommendations.",
    epilog="Any command takes --debug to show a traceback where it fails.",
)
app.command()(data.prepare)
app.command("recipes")(data.list_recipes)
app.command()(data.inspect)
app.command()(data.interactions)
app.command("import-published")(data.import_published)
app.command()(training.plan)
app.command()(training.train)
app.command()(training.refit)
app.command()(runs.evaluate)
app.command()(diagnosing.diagnose)
app.command()(runs.recommend)
app.command()(runs.similar)
app.command("models")(training.list_models)
app.command()(comparing.compare)
app.command()(comparing.benchmark)
app.command("results")(comparing.list_results)
app.command()(training.config)
app.command()(training.demo)


def _version(asked: bool) -> None:
    if asked:
        print(f"adrec {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Take options that every verb has."""


@contextmanager
def _one_sentence(debug: bool) -> Iterator[None]:
    """Print what a user can mend as one sentence and exit with 2."""
    try:
        yield
    except (UserError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        print(f"adrec: error: {NO_MEMORY if isinstance(error, MemoryError) else error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nadrec: interrupted.", file=sys.stderr)
        sys.exit(130)


def _share_the_processor() -> None:
    """Let PyTorch's threads wait for each other for microseconds before they sleep, where the user does not say.

    They spin for milliseconds otherwise, and where other programs run too, keep those from running that they wait
    for, so that training takes several times as long; alone, spinning saves nothing. GNU's OpenMP reads this when
    PyTorch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def main() -> None:
    """Run the command line; ``--debug`` anywhere shows tracebacks."""
    debug = "--debug" in sys.argv
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    _share_the_processor()
    with _one_sentence(debug):
        app()
