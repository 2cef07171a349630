"""The parts of a split as tables."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from adrec.data.dataset import write_dataset
from adrec.data.parts import part_table
from adrec.data.prepare import prepare
from adrec.data.split import make_split
from command import adrec, refused

TABLE = pl.DataFrame(
    {"user": list("aaaabbbbcc"), "item": list("pqrspqstqr"), "time": [1, 2, 3, 4, 2, 3, 5, 9, 4, 6]},
)


def rows(table: pl.DataFrame) -> list[str]:
    return ["".join(map(str, row)) for row in table.rows()]


def test_leave_one_out_by_hand() -> None:
    data = prepare(TABLE)
    split = make_split(data, None)
    assert rows(part_table(data, split, "train")) == ["ap1", "aq2", "bp2", "bq3", "cq4", "cr6"]
    assert rows(part_table(data, split, "validation")) == ["ar3", "bs5"]
    assert rows(part_table(data, split, "test")) == ["as4", "bt9"]
    assert rows(part_table(data, split, "history")) == ["ap1", "aq2", "ar3", "bp2", "bq3", "bs5"]


def test_a_split_by_time_has_histories_before_the_first_test_interaction() -> None:
    data = prepare(TABLE, split="time:3,5")
    split = make_split(data, None)
    assert rows(part_table(data, split, "test")) == ["bs5", "bt9", "cr6"]
    assert rows(part_table(data, split, "history")) == ["bp2", "bq3", "cq4"]


def test_as_a_command(tmp_path: Path) -> None:
    write_dataset(prepare(TABLE), tmp_path / "d")
    done = adrec("interactions", "d", "--part", "test", "--out", "test.csv", cwd=tmp_path)
    assert done.returncode == 0 and "2 interactions" in done.stderr
    assert pl.read_csv(tmp_path / "test.csv").columns == ["user", "item", "time"]
    assert "test.txt" in refused("interactions", "d", "--part", "test", "--out", "test.txt", cwd=tmp_path)
