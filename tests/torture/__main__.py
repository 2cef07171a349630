"""Every kind of fault at every operation, with a tally: ``make torture``.

``python -m torture KIND..`` tries some kinds alone, in a folder of its own below the system's temporary folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torture.damage import damages, values
from torture.fuzz import hostile, names, tables
from torture.harness import Tally, make_shop
from torture.kills import kills
from torture.places import disks, links, streams, writers
from torture.signals import resumed, signals

KINDS: Mapping[str, Callable[[Path, Path, Tally], None]] = {
    "kills": kills,
    "damages": damages,
    "values": values,
    "writers": partial(writers, rounds=10),
    "disks": disks,
    "links": links,
    "streams": streams,
    "signals": signals,
    "resumed": resumed,
    "tables": partial(tables, rounds=300),
    "hostile": hostile,
    "names": names,
}


def _in_two_processes() -> bool:
    """Try kills, which take half of the time, beside all others; return whether anything went wrong."""
    halves = (["kills"], [kind for kind in KINDS if kind != "kills"])
    running = [subprocess.Popen([sys.executable, "-m", "torture", *half]) for half in halves]
    codes = [each.wait() for each in running]
    return any(codes)


def main() -> None:
    """Try the kinds of fault that are named, by default all; exit with 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], default=[], metavar="KIND")
    chosen = parser.parse_args().kinds
    if not chosen:
        sys.exit(_in_two_processes())
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        shop = make_shop(Path(folder) / "shop")
        for kind in chosen:
            print(f"{kind} ..", file=sys.stderr, flush=True)
            KINDS[kind](shop, Path(folder), tally)
    tally.show()
    sys.exit(bool(tally.wrong))


if __name__ == "__main__":
    main()
