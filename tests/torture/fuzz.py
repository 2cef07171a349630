"""Random tables and files for every reader: a result or one sentence, and no escape reaches the terminal."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

from command import adrec
from torture.harness import Tally, copy_of

PIECES = [
    *(b"user_id", b"item_id", b"timestamp", b",", b"\t", b'"', b"\n", b"\r\n", b"\x00", b"\xff", b"\xef\xbb\xbf", b"{"),
    *(
        b"}",
        b"[",
        b"]",
        b":",
        b"1",
        b"-1",
        b"1e999",
        b"NaN",
        b"\x1b[31m",
        b"a",
        b"\\",
        b"'",
        b";",
        b"null",
        b"\xe2\x80\xae",
    ),
]


def random_text(rng: random.Random, rows: int = 30) -> bytes:
    """Return a table with mistakes."""
    head = b"user_id,item_id,timestamp\n"
    lines = [b"u%d,i%d,%d\n" % (rng.randrange(5), rng.randrange(9), 1_600_000_000 + row) for row in range(rows)]
    text = bytearray(head + b"".join(lines))
    for _ in range(rng.randrange(12)):
        at = rng.randrange(len(text))
        text[at : at + rng.randrange(3)] = rng.choice(PIECES)
    return bytes(text)


def tables(shop: Path, work: Path, tally: Tally, rounds: int = 100, seed: int = 0) -> None:
    """Prepare random tables."""
    rng = random.Random(seed)
    here = copy_of(shop, work / "here")
    for number in range(rounds):
        suffix = rng.choice([".csv", ".csv", ".jsonl", ".parquet", ".csv.gz", ".zst", ".inter"])
        content = random_text(rng)
        if suffix == ".jsonl":
            rows = [
                {"user_id": f"u{rng.randrange(5)}", "item_id": rng.randrange(9), "timestamp": 1_600_000_000 + row}
                for row in range(20)
            ]
            broken = bytearray("\n".join(json.dumps(row) for row in rows).encode())
            for _ in range(rng.randrange(8)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            content = bytes(broken) + (b"[" * 100_000 if rng.random() < 0.1 else b"")
        elif suffix == ".parquet":
            pl.DataFrame({"user_id": [1, 2] * 9, "item_id": range(18), "timestamp": range(18)}).write_parquet(
                here / "t"
            )
            broken = bytearray((here / "t").read_bytes())
            for _ in range(rng.randrange(4)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            content = bytes(broken)
        path = here / f"table{number}{suffix}"
        path.write_bytes(content)
        done = adrec("prepare", path.name, "--out", f"out{number}", cwd=here)
        tally.tried(
            "fuzzed table", _judged(done.returncode, done.stdout, done.stderr, f"{suffix}, seed {seed}.{number}")
        )


def _judged(code: int, out: str, err: str, where: str) -> list[str]:
    problems = []
    if code not in (0, 2):
        problems.append(f"{where}: exit code {code}: {err[-300:]}")
    if "Traceback" in err or "panicked" in err:
        problems.append(f"{where}: a traceback: {err[-300:]}")
    if "\x1b" in out + err or "\u202e" in out + err:
        problems.append(f"{where}: an escape reaches the terminal")
    return problems


def hostile(shop: Path, work: Path, tally: Tally) -> None:
    """Read files that were made to harm: deep JSON, tensors of rare types, headers of arrays that lie, bombs."""
    here = copy_of(shop, work / "here")
    files = {
        "deep.json": b"[" * 200_000,
        "objects.json": b'{"a":' * 100_000,
        "meta.safetensors": _safetensors({"__metadata__": {"adrec": 5}}),
        "list.safetensors": _safetensors([1, 2]),
        "long.safetensors": struct.pack("<Q", 2**62) + b"{}",
        "lie.npy": _npy(b"{'descr': '<i4', 'fortran_order': False, 'shape': (9999999999,)}"),
        "deep.npy": _npy(b"(" * 59999),
        "object.npy": _npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
        "empty": b"",
    }
    for name, content in files.items():
        (here / name).write_bytes(content)
    for kind in (torch.bfloat16, torch.float8_e4m3fn, torch.float16, torch.bool, torch.complex64):
        save_file({"item_embedding": torch.ones(4, 4).to(kind)}, here / f"{str(kind).split('.')[-1]}.safetensors")
        files[f"{str(kind).split('.')[-1]}.safetensors"] = b""
    np.save(here / "nan.npy", np.full((4, 4), np.nan))
    files["nan.npy"] = b""
    places = ["data/dataset.json", "run/run.json", "run/config.json", "run/weights.safetensors", "data/items.npy"]
    places += ["data/users.parquet", "data/times.npy"]
    for name in files:
        if name.endswith((".npy", ".safetensors")):
            done = adrec("diagnose", name, cwd=here)
            tally.tried("hostile file", _judged(done.returncode, done.stdout, done.stderr, f"diagnose {name}"))
        for place in places:
            fresh = copy_of(here, work / "fresh")
            (fresh / place).write_bytes((here / name).read_bytes())
            done = adrec("recommend", "run", "--out", "o.csv", cwd=fresh)
            problems = _judged(done.returncode, done.stdout, done.stderr, f"{name} as {place}")
            tally.tried("hostile file", problems or ([] if done.returncode == 2 else [f"{name} as {place}: accepted"]))


def _safetensors(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def _npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"


def names(shop: Path, work: Path, tally: Tally) -> None:
    """Use names of data sets that lead elsewhere, forged and given, and ids that move the terminal's cursor."""
    from conftest import reseal

    here = copy_of(shop, work / "here")
    for name in ("../../x", "a/b", "/etc/x", "..", ".", "", "x" * 300, "a\x00b", "a\\b", "\x1b[2J", "C:x"):
        reseal(here / "data" / "dataset.json", name=name)
        for words in (["benchmark", "data", "--models", "popular", "--out", "ledger"], ["inspect", "data"]):
            done = adrec(*words, cwd=here)
            bad = _judged(done.returncode, done.stdout, done.stderr, f"name {name[:20]!r}")
            tally.tried(
                "forged name", bad or ([] if done.returncode == 2 else [f"{name[:20]!r} accepted by {words[0]}"])
            )
        if "\x00" not in name:
            given = adrec("prepare", "table.csv", "--out", "named", "--name", name, cwd=here)
            tally.tried(
                "forged name",
                [] if given.returncode == 2 else [f"prepare --name {name[:20]!r}: {given.returncode}"],
            )
    assert not list(work.parent.glob("x*"))
    rows = [f"\x1b[31mu{user}\x07,\x1b]0;t\x07i{item},{item}" for user in range(4) for item in range(8)]
    (here / "esc.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    for words in (
        ["prepare", "esc.csv", "--out", "esc"],
        ["train", "esc", "--out", "escrun", "--model", "popular"],
        ["recommend", "escrun", "--seen", "keep"],
        ["inspect", "esc"],
        ["recommend", "escrun", "--user", "\x1b[31mnobody"],
    ):
        done = adrec(*words, cwd=here)
        tally.tried("escapes", _judged(done.returncode, done.stdout, done.stderr, words[0]))
