"""Interrupts: Ctrl-C and SIGTERM, at once or, while a step must not be cut in two, at the next point that allows it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Interrupted(BaseException):
    """The process was asked to end by ``number``, SIGINT or SIGTERM.

    It is no KeyboardInterrupt, which Typer turns into an exit of its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Waiting:
    """The signal that waits for a point that allows it, and how many contexts defer signals."""

    number: int | None = None
    depth: int = 0
    seen: int = 0
    leaves: bool = False  # whether a second signal ends the process


_state = _Waiting()


def _on_signal(number: int, frame: FrameType | None) -> None:
    _state.seen += 1
    if _state.seen > 1:  # whoever asks twice does not want to wait
        if _state.leaves:
            leave(number)
        raise Interrupted(number)
    if _state.depth:
        _state.number = number
        return
    raise Interrupted(number)


def leave(number: int) -> None:
    """End this process now, with a sentence and the exit code of the signal."""
    try:
        os.write(2, f"\nadrec: {WORDS.get(signal.Signals(number), 'ended')}.\n".encode())
    finally:
        os._exit(128 + number)


def install() -> None:
    """Handle SIGINT and SIGTERM in this process, which is the command line's. A second signal ends it at once."""
    _state.leaves = True
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGTERM, _on_signal)


@contextmanager
def handled() -> Iterator[None]:
    """Let Ctrl-C wait for a point that allows it, where Python's own handler would raise KeyboardInterrupt anywhere.

    It is raised at that point. Other handlers, and other threads than the main one, are left as they are.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _state.seen = 0
    signal.signal(signal.SIGINT, _on_signal)
    try:
        yield
    except Interrupted as error:
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ignore() -> None:
    """Ignore signals from here on: the work is done, and all that is left is to exit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def waits() -> bool:
    """Return whether a signal waits."""
    return _state.number is not None


def interrupt() -> None:
    """Raise :class:`Interrupted`: by the signal that waits, or by that of another process of the same training."""
    number, _state.number = _state.number or signal.SIGTERM, None
    raise Interrupted(number)


def check() -> None:
    """Raise :class:`Interrupted` if a signal waits."""
    if _state.number is not None:
        number, _state.number = _state.number, None
        raise Interrupted(number)


@contextmanager
def deferred() -> Iterator[None]:
    """Keep signals waiting within the context, until :func:`check` or its end."""
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1
    if _state.depth == 0:
        check()


def quiet_imports() -> None:
    """Handle signals while the program is imported, when there is nothing to keep: one sentence, no traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: leave(number))
