"""Two writers of one output, disks of few kilobytes, links, and standard output that cannot be written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from command import Running, adrec
from torture.harness import WRITING, Tally, Verb, copy_of, listing, outputs, refusal

SIZES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 1024, 4096)  # kilobytes


def writers(shop: Path, work: Path, tally: Tally, rounds: int = 3) -> None:
    """Start two processes that write one output from different inputs, and compare it with what each gives alone."""
    pairs = [
        (
            Verb("prepare", [], ["new"]),
            ["prepare", "table.csv", "--out", "new"],
            ["prepare", "other.csv", "--out", "new"],
        ),
        (
            Verb("prepare --overwrite", [], ["data2"]),
            ["prepare", "table.csv", "--out", "data2", "--overwrite"],
            ["prepare", "other.csv", "--out", "data2", "--overwrite"],
        ),
        (
            Verb("recommend", [], ["list.csv"]),
            ["recommend", "run", "--out", "list.csv"],
            ["recommend", "run", "--k", "3", "--out", "list.csv"],
        ),
        (
            Verb("evaluate", [], ["m.json"]),
            ["evaluate", "run", "--json", "m.json"],
            ["evaluate", "run", "--k", "3", "--json", "m.json"],
        ),
        (
            Verb("train", [], ["trained"]),
            ["train", "data", "--out", "trained", "--model", "markov"],
            ["train", "data", "--out", "trained", "--model", "popular"],
        ),
    ]
    for verb, one, two in pairs:
        alone = []
        for words in (one, two):
            here = copy_of(shop, work / "here")
            assert adrec(*words, cwd=here).returncode == 0
            alone.append(outputs(here, verb))
        for _ in range(rounds):
            here = copy_of(shop, work / "here")
            running = [Running(words, here) for words in (one, two)]
            done = [each.wait() for each in running]
            problems = [] if outputs(here, verb) in alone else ["the output is of neither"]
            for each in done:
                if each.returncode != 0:
                    problems += refusal(each)
            if all(each.returncode for each in done):
                problems.append("neither wrote")
            problems += [f"left behind {path}" for path in listing(here) if path.endswith((".tmp", ".old"))]
            tally.tried("two writers", [f"{verb.name}: {each}" for each in problems])


def _may_mount(work: Path) -> bool:
    work.mkdir(parents=True, exist_ok=True)
    place = work / "mounted"
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", place], check=True)
    return True


def disks(shop: Path, work: Path, tally: Tally, verbs: Sequence[Verb] = WRITING, sizes: Sequence[int] = SIZES) -> None:
    """Let each verb write to a disk of few kilobytes."""
    if not _may_mount(work):
        print("disks: skipped, as mounting needs the right to")
        return
    for verb in verbs:
        if verb.name in ("prepare --overwrite", "prepare --extend"):
            continue
        words = list(verb.words)
        for size in sizes:
            here = copy_of(shop, work / "here")
            (here / "disk").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", here / "disk"], check=True)
            try:
                moved = [f"disk/{word}" if word in verb.outputs else word for word in words]
                done = adrec(*moved, cwd=here)
                problems = [] if done.returncode == 0 else refusal(done, "disk", "No space", "space left")
                if done.returncode and verb.name not in ("train", "benchmark"):
                    left = [path for path in listing(here / "disk") if not path.endswith(".rejected.jsonl")]
                    partial_ok = verb.name in ("evaluate", "results")  # the first of two outputs may be there, whole
                    problems += [] if partial_ok or not left else [f"left behind {left}"]
                tally.tried("full disk", [f"{verb.name} on {size} kB: {each}" for each in problems])
            finally:
                subprocess.run(["umount", here / "disk"], check=True)


def links(shop: Path, work: Path, tally: Tally) -> None:
    """Write through links, and beside planted links and folders with names like ours."""
    for verb in WRITING:
        here = copy_of(shop, work / "here")
        expected_run = adrec(*verb.words, cwd=here)
        assert expected_run.returncode == 0, expected_run.stderr
        expected = outputs(here, verb)
        here = copy_of(shop, work / "here")
        victim = here / "victim"
        victim.write_bytes(b"mine")
        for name in verb.outputs:
            (here / f".{name}.tmp").symlink_to(victim)
            (here / f".{name}.old").mkdir()
            (here / f".{name}.old" / "mine").write_bytes(b"mine")
        first = verb.outputs[0]
        if not (here / first).exists():
            (here / "elsewhere").mkdir()
            (here / first).symlink_to(here / "elsewhere" / first)
        done = adrec(*verb.words, cwd=here)
        problems = [] if done.returncode == 0 else [f"exit code {done.returncode}: {done.stderr[-200:]}"]
        if victim.read_bytes() != b"mine":
            problems.append("a planted link was followed")
        if not all((here / f".{name}.old" / "mine").exists() for name in verb.outputs):
            problems.append("a user's folder is gone")
        if done.returncode == 0 and outputs(here, verb) != expected:
            problems.append("other content through a link")
        if (here / "elsewhere").exists() and not (here / first).is_symlink():
            problems.append("the link is gone")
        tally.tried("links", [f"{verb.name}: {each}" for each in problems])


def _streams(target: str | None) -> None:
    """Point standard output to ``target``, or close it."""
    if target is None:
        os.close(1)
        import sys

        sys.stdout = None  # type: ignore[assignment]
        return
    descriptor = os.open(target, os.O_WRONLY)
    os.dup2(descriptor, 1)


def streams(shop: Path, work: Path, tally: Tally) -> None:
    """Close standard output, or let it be a full device."""
    here = copy_of(shop, work / "here")
    for words in (
        ["recommend", "run", "--format", "csv"],
        ["recommend", "run"],
        ["similar", "run", "--item", "item 1"],
        ["evaluate", "run"],
        ["inspect", "data"],
        ["config"],
        ["models"],
        ["results", "ledger0"],
    ):
        full = Running(words, here, partial(_streams, "/dev/full")).wait()
        tally.tried("full standard output", refusal(full, "standard output", "No space"))
        closed = Running(words, here, partial(_streams, None)).wait()
        bad = closed.returncode != 0 or "Traceback" in closed.stderr or "Exception" in closed.stderr
        tally.tried("closed standard output", [f"{words}: {closed.stderr[-300:]}"] if bad else [])
