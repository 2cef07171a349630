"""Damaged files and altered values: every verb refuses in a sentence that names the place, or gives the same result."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from command import adrec
from torture.harness import READING, Tally, content, copy_of, refusal

OUTPUTS = ("out.json", "out.csv", "ranks.parquet", "extended", "again", "begun")
FILES = {
    "data": ("dataset.json", "items.npy", "offsets.npy", "times.npy", "users.parquet", "items.parquet"),
    "run": ("run.json", "config.json", "weights.safetensors"),
    "begun": ("run.json", "config.json", "metrics.jsonl", "state-0.safetensors", "state-1.safetensors"),
    "ledger0": (),
}
Damage = Callable[[Path, random.Random], None]


def flip(path: Path, rng: random.Random) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def flip_head(path: Path, rng: random.Random) -> None:
    """Change one bit of the first bytes, where a format describes itself."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(min(200, len(data)))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    """Cut the end off."""
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def empty(path: Path, rng: random.Random) -> None:
    """Leave nothing in it."""
    path.write_bytes(b"")


def remove(path: Path, rng: random.Random) -> None:
    """Remove it."""
    path.unlink()


def noise(path: Path, rng: random.Random) -> None:
    """Replace it by as many random bytes."""
    path.write_bytes(rng.randbytes(path.stat().st_size))


def folder(path: Path, rng: random.Random) -> None:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()


def grown(path: Path, rng: random.Random) -> None:
    """Append random bytes."""
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 100)))


DAMAGES: Sequence[Damage] = (flip, flip, flip_head, flip_head, cut, empty, remove, noise, folder, grown)


def of(words: Sequence[str]) -> Iterator[str]:
    """Yield the folders that a command reads."""
    if "ledger0" in words:
        yield "ledger0"
        return
    yield "data"
    yield from (each for each in ("run", "begun") if each in words)


def result(folder: Path, words: Sequence[str]) -> tuple[int, object, str]:
    """Return the exit code, what a command writes, and its standard output."""
    done = adrec(*words, cwd=folder)
    return done.returncode, [content(folder / name) for name in OUTPUTS], done.stdout


def damages(
    shop: Path,
    work: Path,
    tally: Tally,
    rounds: int = 1,
    seed: int = 0,
    verbs: Sequence[Sequence[str]] = READING,
    ways: Sequence[Damage] = DAMAGES,
) -> None:
    """Damage each file that a verb reads in each way, ``rounds`` times."""
    rng = random.Random(seed)
    for words in verbs:
        expected = result(copy_of(shop, work / "here"), words)
        assert expected[0] == 0, words
        for place in of(words):
            for name in FILES[place] or ledger_files(shop):
                for damage in [*ways] * rounds:
                    here = copy_of(shop, work / "here")
                    damage(here / place / name, rng)
                    tally.tried("damaged file", _borne(here, words, expected, damage.__name__, place, name))


def ledger_files(shop: Path) -> tuple[str, ...]:
    """Return the files of a ledger."""
    files = (path for path in (shop / "ledger0").rglob("*") if path.suffix in (".json", ".parquet"))
    return tuple(str(path.relative_to(shop / "ledger0")) for path in sorted(files))


def _borne(
    here: Path, words: Sequence[str], expected: tuple[int, object, str], what: str, place: str, name: str
) -> list[str]:
    done = adrec(*words, cwd=here)
    where = f"{what} of {place}/{name}, {' '.join(words)}"
    if done.returncode == 0:
        found = [content(here / each) for each in OUTPUTS], done.stdout
        same = found == expected[1:]
        told = name.rsplit("/", maxsplit=1)[-1] in done.stderr or "damaged" in done.stdout + done.stderr + str(found)
        return [] if same or told else [f"{where}: another result with exit code 0"]
    return [f"{where}: {each}" for each in refusal(done, place, Path(name).name)]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in JSON that holds no others."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = False
    for key, each in inner:
        found = True
        yield from leaves(each, (*path, key))
    if not found:
        yield path


def other(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return 1 if value is None else None


def values(shop: Path, work: Path, tally: Tally, every: int = 1) -> None:
    """Change every ``every``-th single value of each JSON file, and remove it."""
    for place, name, words in (
        ("data", "dataset.json", ["inspect", "data", "--json", "out.json"]),
        ("run", "run.json", ["recommend", "run", "--out", "out.csv"]),
        ("run", "config.json", ["recommend", "run", "--out", "out.csv"]),
        ("begun", "run.json", ["train", "--resume", "begun"]),
        ("begun", "config.json", ["train", "--resume", "begun"]),
    ):
        here = copy_of(shop, work / "here")
        read = json.loads((here / place / name).read_bytes())
        for number, path in enumerate(leaves(read)):
            if number % every:
                continue
            for removed in (False, True):
                changed = json.loads(json.dumps(read))
                *above, last = path
                at = changed
                for key in above:
                    at = at[key]
                at.__delitem__(last) if removed else at.__setitem__(last, other(at[last]))
                (here / place / name).write_text(json.dumps(changed))
                done = adrec(*words, cwd=here)
                where = f"{place}/{name} {'/'.join(map(str, path))} {'removed' if removed else 'changed'}"
                tally.tried(
                    "altered value", [f"{where}: {each}" for each in refusal(done, name, f"{place} was written")]
                )
    shutil.rmtree(work / "here", ignore_errors=True)
