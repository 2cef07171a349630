"""A kill before every file operation of every verb; then the same command again, compared with an undisturbed one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from command import Running, adrec
from torture.harness import WRITING, Tally, Verb, copy_of, count_to, die_at, listing, outputs


def kills(shop: Path, work: Path, tally: Tally, verbs: Sequence[Verb] = WRITING, every: int = 1) -> None:
    """Kill each verb before each ``every``-th of its file operations."""
    for verb in verbs:
        whole, number = _undisturbed(shop, work, verb)
        expected, files = outputs(whole, verb), listing(whole)  # the same folder is used again: runs keep its path
        for at in range(1, number + 1, every):
            tally.tried(f"kill in {verb.name}", _killed(shop, work, verb, at, expected, files))


def _undisturbed(shop: Path, work: Path, verb: Verb) -> tuple[Path, int]:
    whole, count = copy_of(shop, work / "here"), work / "count"
    count.unlink(missing_ok=True)
    done = Running(verb.words, whole, partial(count_to, str(whole), str(count))).wait()
    assert done.returncode == 0, done.stderr
    return whole, int(count.read_text())


def _killed(shop: Path, work: Path, verb: Verb, at: int, expected: object, files: list[str]) -> list[str]:
    folder = copy_of(shop, work / "here")
    done = Running(verb.words, folder, partial(die_at, str(folder), at)).wait()
    where = f"{verb.name}, before operation {at}"
    if done.returncode == 0:
        return []  # this run had fewer operations
    if done.returncode != 137:
        return [f"{where}: exit code {done.returncode}: {done.stderr[-300:]}"]
    for _ in range(2):  # a run that is resumed and then finished is read once more
        words = verb.repeated(folder)
        again = adrec(*words, cwd=folder)
        if again.returncode == 2 and "exists already" in again.stderr and outputs(folder, verb) == expected:
            break  # all was done before the kill
        if again.returncode != 0:
            return [f"{where}, then {' '.join(words)}: exit code {again.returncode}: {again.stderr[-300:]}"]
        if words == verb.words:
            break
    problems = []
    if (found := outputs(folder, verb)) != expected:
        names = [name for name in found if found[name] != expected[name]]  # type: ignore[index]
        problems.append(f"{where}: other content than undisturbed in {names}")
    extra = [each for each in listing(folder) if each not in files]
    if extra:
        problems.append(f"{where}: left behind {extra}")
    return problems
