"""The commands of the command line, and what is common to them: errors in one sentence, exit codes, streams."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from adrec._version import __version__
from adrec.cli import comparing, data, diagnosing, evaluating, exporting, runs, serving, synthetic, training
from adrec.utils import interrupts
from adrec.utils.errors import ConfigError, UserError
from adrec.utils.files import reason
from adrec.utils.platforms import is_started_by_torchrun, prepare_stream

NO_MEMORY = (
    "the memory is used up; free some, or give less at once: fewer rows, or a smaller batch_size, max_length or "
    "hidden_size."
)
IN_PROCESSES = ("train", "evaluate", "recommend")  # the commands that several processes share
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Sequential recommendation, from a table of interactions to recommendations.",
    epilog="Every command accepts --debug, which shows the traceback of an error.",
)
app.command()(data.prepare)
app.command("recipes")(data.list_recipes)
app.command()(data.inspect)
app.command()(data.interactions)
app.command()(synthetic.synth)
app.command("import-published")(data.import_published)
app.command()(training.plan)
app.command()(training.train)
app.command()(training.refit)
app.command()(evaluating.evaluate)
app.command()(diagnosing.diagnose)
app.command()(runs.recommend)
app.command()(runs.similar)
app.command()(runs.score)
app.command()(serving.serve)
app.command()(serving.key)
app.command()(exporting.export)
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
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Handle the options of the program itself."""
    if is_started_by_torchrun() and context.invoked_subcommand not in IN_PROCESSES:
        raise ConfigError(f"{context.invoked_subcommand} is done by one process; start it without torchrun.")


@contextmanager
def _one_sentence(debug: bool) -> Iterator[None]:
    """Print an error that the user can fix as one sentence and exit with code 2; with 130 or 143 if interrupted."""
    try:
        yield
    except (UserError, MemoryError, OSError) as error:
        if debug:
            traceback.print_exc()
        _say(f"adrec: error: {_sentence(error)}")
        sys.exit(2)
    except (interrupts.Interrupted, KeyboardInterrupt) as error:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        interrupts.leave(error.number if isinstance(error, interrupts.Interrupted) else signal.SIGINT)


def _sentence(error: UserError | MemoryError | OSError) -> str:
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, OSError):
        return f"{error.filename or 'the output'} cannot be read or written ({reason(error)})."
    return str(error)


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):  # standard error may be full too
        sys.stderr.write(f"{sentence}\n")  # at once: several processes may write to one terminal
        sys.stderr.flush()


def _open_streams() -> None:
    """Give a process without standard streams, as one that was started with them closed, streams that lead nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for the whole process
        prepare_stream(getattr(sys, name))


def _flushed() -> None:
    """Write out standard output. If it cannot be written, the process ends with code 2 and a sentence, once."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)  # the reader has enough
    except OSError as error:
        _say(f"adrec: error: standard output cannot be written ({reason(error)}).")
        os._exit(2)


def _share_the_processor() -> None:
    """Limit the busy-waiting of PyTorch's threads to microseconds, unless the user configures it.

    By default they spin for milliseconds. Where other programs run too, spinning threads block the threads that they
    wait for, and training takes several times as long. On an idle machine, spinning saves nothing. GNU's OpenMP reads
    the variable when PyTorch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def run() -> None:
    """Run the command line; ``--debug`` anywhere shows tracebacks."""
    debug = "--debug" in sys.argv
    interrupts.install()
    _open_streams()
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    _share_the_processor()
    try:
        with _one_sentence(debug):
            app()
    finally:
        _flushed()
        interrupts.ignore()
