"""Ctrl-C and SIGTERM at random times: one sentence, the exit code, within two seconds, and the same end on resuming."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from command import adrec, start
from torture.harness import TRAIN, Tally, content, copy_of

LONGEST = 2.0  # seconds from the signal to the end
WORDS = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}
COMMANDS: Sequence[tuple[str, Sequence[str], float]] = (  # with the seconds in which to send the signal
    ("train", ["train", "data", "--out", "trained", *TRAIN, "--max-epochs", "400"], 8.0),
    ("prepare", ["prepare", "table.csv", "--out", "new"], 2.0),
    ("evaluate", ["evaluate", "run", "--json", "m.json"], 3.5),
    ("benchmark", ["benchmark", "data", "--models", "sasrec+,adrec@cam", "--out", "ledger", "--quiet"], 8.0),
)


def signals(shop: Path, work: Path, tally: Tally, rounds: int = 5, seed: int = 0) -> None:
    """Send a signal at a random time to each command, ``rounds`` times; from the first of them on after 0.15 s."""
    rng = random.Random(seed)
    for name, words, most in COMMANDS:
        for _ in range(rounds):
            for number in (signal.SIGINT, signal.SIGTERM):
                here = copy_of(shop, work / "here")
                after = rng.uniform(0.15, most)
                tally.tried("signal", _sent(here, name, words, number, after))


def _sent(here: Path, name: str, words: Sequence[str], number: signal.Signals, after: float) -> list[str]:
    process = start(*words, cwd=here)
    time.sleep(after)
    process.send_signal(number)
    sent = time.monotonic()
    _, said = process.communicate(timeout=60)
    took = time.monotonic() - sent
    where = f"{number.name} to {name} after {after:.2f} s"
    if process.returncode == 0:
        return []  # it had ended
    word, code = WORDS[number]
    problems = []
    if process.returncode != code:
        problems.append(f"exit code {process.returncode}: {said[-300:]}")
    elif said.count(f"adrec: {word}.") != 1 or "Traceback" in said:
        problems.append(f"it said {said[-500:]!r}")
    if took > LONGEST:
        problems.append(f"it took {took:.1f} s")
    left = [str(path) for path in here.rglob("*.tmp")]
    if left and name != "benchmark":
        problems.append(f"left behind {left}")
    return [f"{where}: {each}" for each in problems]


def resumed(shop: Path, work: Path, tally: Tally, rounds: int = 3, seed: int = 0) -> None:
    """Interrupt a training again and again, and compare its end with that of an undisturbed one."""
    rng = random.Random(seed)
    words = ["train", "data", "--out", "trained", *TRAIN, "--max-epochs", "60"]
    here = copy_of(shop, work / "here")
    assert adrec(*words, cwd=here).returncode == 0
    expected = content(here / "trained")
    for _ in range(rounds):
        here = copy_of(shop, work / "here")
        command, problems = list(words), list[str]()
        for _ in range(8):
            process = start(*command, cwd=here)
            time.sleep(rng.uniform(2.5, 5.0))
            process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
            process.communicate(timeout=60)
            if (here / "trained" / "run.json").exists():
                command = ["train", "--resume", "trained"]
            if process.returncode == 0:
                break
        else:
            done = adrec(*command, cwd=here)
            if done.returncode and "is finished already" not in done.stderr:  # a kill may come right after the end
                problems.append(done.stderr[-300:])
        if content(here / "trained") != expected:
            problems.append("another end than undisturbed")
        tally.tried("interrupted again and again", problems)
