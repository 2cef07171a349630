"""The command line: one thin function per command, in ``data``, ``training``, ``runs``, ``comparing``, ``diagnosing``.

:mod:`adrec.cli.app` has them all. Commands import PyTorch inside the function: importing it takes seconds, and ``adrec
--help`` should not wait for it.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line. An interrupt is one sentence from here on, while its modules are imported too."""
    from adrec.utils import interrupts

    interrupts.quiet_imports()
    from adrec.cli.app import run

    run()
