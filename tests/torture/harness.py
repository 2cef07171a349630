"""What every kind of fault shares: a shop with a data set and a run, the commands that are tried, and a tally."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from command import SMALL, Running, adrec
from conftest import cyclic_table

EPOCHS = 4
TRAIN = [*SMALL, *("--max-epochs", str(EPOCHS), "--preset", "cam", "--set", "finetune.patience=0")]
OFTEN = ["--checkpoint-every", "0.001s"]  # a snapshot after each step
VOLATILE = ("seconds", "core_seconds", "environment", "data_beside")  # what differs between two runs of one command
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EVENTS = {
    *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
}
PATH = re.compile(r"\x1b")


@dataclass(frozen=True)
class Verb:
    """A command, with what it writes.

    Attributes:
        name: its name in the tally.
        words: its arguments.
        outputs: what it writes, files or folders.
        again: the arguments with which it is repeated after it was killed; by default the same.
    """

    name: str
    words: Sequence[str]
    outputs: Sequence[str]
    again: Callable[[Path], Sequence[str]] | None = None

    def repeated(self, folder: Path) -> Sequence[str]:
        """Return the arguments of the next attempt in ``folder``."""
        return self.words if self.again is None else self.again(folder)


def _train_again(words: Sequence[str], out: str) -> Callable[[Path], Sequence[str]]:
    def again(folder: Path) -> Sequence[str]:
        run = folder / out / "run.json"
        if not run.exists():
            return words
        finished = json.loads(run.read_bytes())["finished"]
        return ["recommend", out, "--user", "user 1"] if finished else ["train", "--resume", out, *OFTEN]

    return again


PREPARE = ["prepare", "table.csv", "--out", "new"]
TRAINED = ["train", "data", "--out", "trained", *TRAIN, *OFTEN]
COUNTED = ["train", "data", "--out", "trained", "--model", "markov"]
WRITING = [
    Verb("prepare", PREPARE, ["new", "new.rejected.jsonl"]),
    Verb("prepare --overwrite", ["prepare", "other.csv", "--out", "data2", "--overwrite"], ["data2"]),
    Verb("prepare --extend", ["prepare", "more.csv", "--extend", "data", "--out", "new"], ["new"]),
    Verb("train", TRAINED, ["trained"], _train_again(TRAINED, "trained")),
    Verb("train a model without epochs", COUNTED, ["trained"], _train_again(COUNTED, "trained")),
    Verb("recommend", ["recommend", "run", "--out", "list.parquet"], ["list.parquet"]),
    Verb("recommend to CSV", ["recommend", "run", "--out", "list.csv"], ["list.csv"]),
    Verb("evaluate", ["evaluate", "run", "--json", "m.json", "--ranks", "r.parquet"], ["m.json", "r.parquet"]),
    Verb("interactions", ["interactions", "data", "--part", "train", "--out", "p.jsonl"], ["p.jsonl"]),
    Verb("inspect", ["inspect", "data", "--json", "i.json"], ["i.json"]),
    Verb("benchmark", ["benchmark", "data", "--models", "popular,markov", "--out", "ledger"], ["ledger"]),
    Verb("results", ["results", "ledger0", "--out", "page.md", "--out", "page.json"], ["page.md", "page.json"]),
]
READING = [
    ["train", "data", "--out", "again", "--model", "markov"],
    ["evaluate", "run", "--json", "out.json", "--ranks", "ranks.parquet", "--quiet"],
    ["recommend", "run", "--out", "out.csv"],
    ["similar", "run", "--item", "item 1", "--format", "csv"],
    ["score", "run", "--pairs", "pairs.csv", "--out", "out.csv"],
    ["inspect", "data", "--json", "out.json"],
    ["interactions", "data", "--part", "test", "--out", "out.csv"],
    ["prepare", "more.csv", "--extend", "data", "--out", "extended"],
    ["prepare", "more.csv", "--vocabulary", "data", "--out", "extended"],
    ["train", "--resume", "begun", *OFTEN],
    ["results", "ledger0", "--out", "out.json"],
]


@dataclass
class Tally:
    """The faults that were tried, and what went wrong.

    Attributes:
        counts: the number of faults of each kind.
        wrong: a sentence on each fault that was not borne.
    """

    counts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def tried(self, kind: str, problems: Sequence[str]) -> None:
        """Count a fault, and what it did that it must not."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.wrong += [f"{kind}: {problem}" for problem in problems]

    def show(self) -> None:
        """Print the tally."""
        for kind, count in self.counts.items():
            bad = sum(each.startswith(f"{kind}: ") for each in self.wrong)
            print(f"{count:6,} faults  {bad:4} wrong  {kind}")
        took = time.monotonic() - self.started
        print(f"{sum(self.counts.values()):6,} faults  {len(self.wrong):4} wrong  in {took / 60:.0f} min")
        for each in self.wrong:
            print(f"WRONG {each}")


def make_shop(folder: Path) -> Path:
    """Make a data set, newer tables, a finished run, an unfinished one and a ledger in ``folder``."""
    folder.mkdir(parents=True)
    table = cyclic_table(num_users=40)
    table.write_csv(folder / "table.csv")
    with (folder / "table.csv").open("a") as file:
        file.write("user 1,,5\n")  # a row to reject
    cyclic_table(num_users=50, seed=5).write_csv(folder / "other.csv")
    cyclic_table(num_users=6, seed=7).write_csv(folder / "more.csv")
    (folder / "pairs.csv").write_text("user_id,item_id\nuser 1,item 1\nuser 2,item 3\n")
    for words in (
        ["prepare", "table.csv", "--out", "data"],
        ["prepare", "table.csv", "--out", "data2"],
        ["train", "data", "--out", "run", *TRAIN],
        ["benchmark", "data", "--models", "popular,markov", "--out", "ledger0"],
    ):
        done = adrec(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
    cut = Running(["train", "data", "--out", "begun", *TRAIN, *OFTEN], folder, partial(die_at, str(folder), 70)).wait()
    assert cut.returncode == 137 and list((folder / "begun").glob("state-*")), cut.stderr
    return folder


def copy_of(shop: Path, folder: Path) -> Path:
    """Return a fresh copy of a shop."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(shop, folder, symlinks=True)
    return folder


def _operations(root: str, at: int | None, count: str | None) -> None:
    """Count the operations on files below ``root`` from now on; die at number ``at``, or write their number."""
    seen = [0]

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event not in EVENTS:
            return
        path = given[0]
        if event == "open" and not (isinstance(given[2], int) and given[2] & WRITES):
            return
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str | os.PathLike) or not os.path.abspath(path).startswith(root):  # noqa: PTH100
            return
        seen[0] += 1
        if seen[0] == at:
            os._exit(137)
        if count is not None:
            descriptor = os.open(count, os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, str(seen[0]).encode())
            os.close(descriptor)

    sys.addaudithook(hook)


def die_at(root: str, at: int) -> None:
    """Die before the operation on files below ``root`` with this number, as a killed process does."""
    _operations(root, at, None)


def count_to(root: str, count: str) -> None:
    """Write the number of operations on files below ``root`` to the file ``count``, which is elsewhere."""
    _operations(root, None, count)


def refusal(done: subprocess.CompletedProcess[str], *names: str) -> list[str]:
    """Return what is wrong with a command that must have refused in one sentence that has one of ``names``."""
    problems = []
    if done.returncode != 2:
        problems.append(f"exit code {done.returncode}")
    said = done.stderr.strip().splitlines()
    if "Traceback" in done.stderr or "panicked" in done.stderr:
        problems.append(f"a traceback: {said[-1]}")
    elif not said or not said[-1].startswith("adrec: error: "):
        problems.append(f"no sentence: {said[-1:]}")
    elif names and not any(name in said[-1] for name in names):
        problems.append(f"the sentence names none of {names}: {said[-1]}")
    return [f"{' '.join(done.args)}: {each}" for each in problems]


def content(path: Path) -> object:
    """Return what a file or folder holds, without what differs between two runs of one command."""
    if path.is_dir():
        return {each.name: content(each) for each in sorted(path.iterdir()) if not each.name.endswith(".lock")}
    if not path.exists():
        return None
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text()
        values = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        return _steady(values)
    if path.suffix == ".md":
        return None  # it has costs
    return path.read_bytes()


def _steady(value: object) -> object:
    if isinstance(value, dict):
        return {
            name: _steady(each)
            for name, each in value.items()
            if name not in VOLATILE and "second" not in name and "digest" not in name and name != "rows"
        }
    return [_steady(each) for each in value] if isinstance(value, list) else value


def outputs(folder: Path, verb: Verb) -> dict[str, object]:
    """Return the content of what a verb writes in ``folder``."""
    return {name: content(folder / name) for name in verb.outputs}


def listing(folder: Path) -> list[str]:
    """Return the paths below ``folder``, but for locks."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.endswith(".lock"))
