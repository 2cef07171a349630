"""What goes wrong in real files and frames: names that look like patterns, blank ends, columns nobody asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from adrec.data.dataset import open_dataset, write_dataset
from adrec.data.preparation import Preparation
from adrec.data.prepare import prepare
from adrec.data.read import Interactions
from adrec.data.read import read_interactions as read_whole
from adrec.utils.errors import DataError, UserError
from conftest import reseal

TEXT = "user_id,item_id,timestamp\n1,2,3\n"
TABLE = pl.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "timestamp": [5, 6]})


def read_interactions(source: Any, **options: Any) -> Interactions:
    return read_whole(source, Preparation(**options))


def rows(source: Any) -> list[tuple[Any, ...]]:
    return read_interactions(source).table.drop("row").rows()


def write(folder: Path, content: str, name: str = "r.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode())
    return path


def test_a_file_name_is_not_a_pattern(tmp_path: Path) -> None:
    write(tmp_path, TEXT.replace("1,2,3", "8,8,8"), "r1.csv")
    assert rows(write(tmp_path, TEXT, "r[1].csv")) == [(1, 2, 3)]
    TABLE.write_parquet(tmp_path / "r[1].parquet")
    assert read_interactions(tmp_path / "r[1].parquet").table.height == 2


@pytest.mark.parametrize("end", ["\n", "\n\n\n", "\r\n", ",,\n"])
def test_blank_lines_at_the_end_are_no_rows(tmp_path: Path, end: str) -> None:
    assert rows(write(tmp_path, TEXT + end)) == [(1, 2, 3)]


@pytest.mark.parametrize(("name", "delimiter"), [("r.txt", "\t"), ("r.txt", ","), ("r.inter", "\t"), ("r.tsv", ",")])
def test_text_by_other_endings(tmp_path: Path, name: str, delimiter: str) -> None:
    assert rows(write(tmp_path, TEXT.replace(",", delimiter), name)) == [(1, 2, 3)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TEXT.replace("1,2,3", "1,2"), "line 2.*2 fields where 3"),
        (TEXT.replace("\n", "\r"), "carriage return"),
        ("\n" + TEXT, "line 1 is blank"),
        (TEXT + "\n1,,3\n", "line 4.*'item_id'.*missing"),
        (TEXT + '1,"2,3\n1,2,3\n', "line 3.*quote"),
        (TEXT + '1,"2"x,3\n1,2,3\n', "line 3.*quote"),
    ],
)
def test_bad_text_names_the_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_interactions(write(tmp_path, content))


def test_columns_without_a_name_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, ",,user_id,item_id,timestamp\n9,9,1,2,3\n")
    assert rows(path) == [(1, 2, 3)]


def test_times_that_end_in_utc(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT.replace("3\n", "1970-01-01 00:00:01 UTC\n"))
    assert read_interactions(path).table["time"].to_list() == [10**6]


@pytest.mark.parametrize(("dtype", "first"), [(pl.Float64, 2**53), (pl.Float32, 2**24)])
def test_ids_that_floating_point_has_merged_are_refused(dtype: Any, first: int) -> None:
    table = TABLE.with_columns(user_id=pl.Series([first - 1, first], dtype=dtype))
    with pytest.raises(DataError, match="row 2, column 'user_id'.*too large"):
        read_interactions(table)


def test_one_column_cannot_have_two_roles() -> None:
    with pytest.raises(DataError, match="'item_id' cannot be both"):
        read_interactions(TABLE, user="item_id")


def test_pandas_columns_that_nobody_asks_for_do_no_harm() -> None:
    frame = TABLE.to_pandas().assign(title=["a", 1], wave=[1j, 2j])
    assert rows(frame) == [(1, 3, 5), (2, 4, 6)]
    with pytest.raises(DataError, match="'title'.*several types"):
        read_interactions(frame, item="title")


def test_names_that_appear_twice_in_a_frame() -> None:
    frame = TABLE.to_pandas()
    with pytest.raises(DataError, match="two columns 'item_id'"):
        read_interactions(pd.concat([frame, frame[["item_id"]]], axis=1))


def test_a_lazy_frame_that_cannot_be_collected() -> None:
    with pytest.raises(DataError, match="the polars table cannot be read"):
        read_interactions(TABLE.lazy().select("nothing"))
    with pytest.raises(DataError, match="the polars table cannot be read"):
        read_interactions(TABLE.lazy().with_columns(user_id=pl.lit("x").cast(pl.Int64)))


@pytest.mark.parametrize("filters", [{"min_user": "5"}, {"min_item": 2.5}, {"min_rating": float("nan")}])
def test_filters_that_are_not_what_they_should_be(filters: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(filters))):
        prepare(TABLE.with_columns(rating=pl.lit(1.0)), **filters)


@pytest.mark.parametrize("index", [-1, 2])
def test_what_is_no_index_is_never_decoded(index: int) -> None:
    with pytest.raises(IndexError):
        prepare(TABLE).users.decode(np.array([0, index]))


@pytest.mark.parametrize("changes", [{"files": None}, {"files": {}}, {"files": [1]}, {"num_users": 9}])
def test_a_description_that_was_altered(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_dataset(prepare(TABLE), tmp_path / "data")
    file = tmp_path / "data" / "dataset.json"
    altered = json.dumps(json.loads(file.read_text()) | changes)
    for change in (lambda: reseal(file, **changes), lambda: file.write_text(altered)):
        change()
        with pytest.raises(DataError, match="prepare the data set again"):
            open_dataset(tmp_path / "data")
