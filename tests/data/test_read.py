"""Tables in: formats, columns by name, ids, times, and one sentence for whatever cannot be read."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
import zstandard

from adrec.data.preparation import Preparation
from adrec.data.read import Interactions, read_interactions
from adrec.utils.errors import DataError

HEADER = b"user_id,item_id,timestamp\n"
TABLE = pl.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "timestamp": [5, 6]})


def write(folder: Path, content: bytes, name: str = "r.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(source: Any, **options: Any) -> Interactions:
    return read_interactions(source, Preparation(**options))


def rows(source: Any, **options: Any) -> list[tuple[Any, ...]]:
    return read(source, **options).table.drop("row").rows()


def changed(**columns: Any) -> pl.DataFrame:
    return TABLE.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", HEADER + b"7,a,1\n7,b,2\n"),
        ("r.CSV", HEADER + b"7,a,1\n7,b,2"),
        ("r.csv", b"\xef\xbb\xbf" + (HEADER + b"7,a,1\n7,b,2\n").replace(b"\n", b"\r\n")),
        ("r.csv", (HEADER + b"7,a,1\n7,b,2\n").replace(b",", b";")),
        ("r.csv", (HEADER + b"7,a,1\n7,b,2\n").replace(b",", b"\t")),
        ("r.tsv", (HEADER + b"7,a,1\n7,b,2\n").replace(b",", b"\t")),
        ("r.csv", b'"user_id","item_id",note,"timestamp"\n"7","a","x, ""y""",1\n7,b,,2\n'),
    ],
)
def test_text_formats(tmp_path: Path, name: str, content: bytes) -> None:
    assert rows(write(tmp_path, content, name)) == [(7, "a", 1), (7, "b", 2)]


def test_parquet_and_what_is_told_of_it(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    TABLE.with_columns(extra=pl.lit("x")).write_parquet(path)
    table = read(str(path), item="item_id")
    assert table.table.rows() == [(1, 3, 5, 1), (2, 4, 6, 2)]
    assert table.columns == {"user": "user_id", "item": "item_id", "time": "timestamp"}
    assert [guess.partition(",")[0] for guess in table.guesses] == [
        f"{path}: Parquet",
        "user = column 'user_id'",
        "time = column 'timestamp'",
        "column 'timestamp': times are numbers that only give an order",
    ]
    assert (table.kind, table.source, table.time_unit) == ("path", str(path), "none")
    assert table.digests == (hashlib.sha256(path.read_bytes()).hexdigest(),)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (TABLE, "polars"),
        (TABLE.lazy(), "polars"),
        (TABLE.to_pandas(), "pandas"),
        (TABLE.to_arrow(), "pyarrow"),
    ],
)
def test_frames(source: Any, kind: str) -> None:
    table = read(source)
    assert (table.kind, table.digests) == (kind, (None,))
    assert table.table.rows() == [(1, 3, 5, 1), (2, 4, 6, 2)]
    assert table.table.schema == {"user": pl.Int64, "item": pl.Int64, "time": pl.Int64, "row": pl.Int64}


@pytest.mark.parametrize(
    ("user", "item", "time"),
    [
        ("reviewerID", "asin", "unixReviewTime"),
        ("userId", "movieId", "timestamp"),
        ("user_id:token", "item_id:token", "timestamp:float"),
        ("visitor_id", "parent_asin", "event_time"),
        ("SESSION_ID", "Product_ID", "created_at"),
        ("uid", "iid", "ts"),
    ],
)
def test_columns_are_found_by_usual_names(user: str, item: str, time: str) -> None:
    table = read(pl.DataFrame({"other": ["x"], time: [1], item: ["i"], user: ["u"]}))
    assert table.columns == {"user": user, "item": item, "time": time}
    assert table.table.rows() == [("u", "i", 1, 1)]


def test_a_name_that_is_given_wins_and_the_likelier_usual_name_comes_first() -> None:
    table = changed(uid=[8, 9], session_id=["a", "b"])
    assert read(table).columns["user"] == "user_id"
    assert read(table, user="session_id").table["user"].to_list() == ["a", "b"]


def test_rating_is_read_where_it_is_named_or_needed() -> None:
    table = changed(rating=["5", "2.5"])
    assert "rating" not in read(table).table.columns
    assert read(table, min_rating=0).table["rating"].to_list() == [5.0, 2.5]
    assert read(table, rating="rating").table["rating"].dtype == pl.Float64


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["12", "-3"], [12, -3]),
        (["0", "9223372036854775807"], [0, 2**63 - 1]),
        (["007", "8"], ["007", "8"]),
        (["-0", "8"], ["-0", "8"]),
        (["+1", "8"], ["+1", "8"]),
        (["1.0", "8"], [1, 8]),
        (["-3.00", "x"], ["-3.00", "x"]),
        (["9223372036854775808", "8"], ["9223372036854775808", "8"]),
        ([" a ", "ü 🎬"], ["a", "ü 🎬"]),
        ([" 1", "8"], [1, 8]),
    ],
)
def test_ids_of_text_files_are_integers_only_where_all_are_printed_as_integers(
    tmp_path: Path, texts: list[str], expected: list[Any]
) -> None:
    content = HEADER.decode() + "".join(f"{text},a,1\n" for text in texts)
    assert [user for user, *_ in rows(write(tmp_path, content.encode()))] == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series([1, 2], dtype=pl.UInt8), [1, 2]),
        (pl.Series([1.0, -2.0]), [1, -2]),
        (pl.Series(["1", "2"]), ["1", "2"]),
        (pl.Series(["x", "y"], dtype=pl.Categorical), ["x", "y"]),
        (pl.Series(["x", "y"], dtype=pl.Enum(["x", "y"])), ["x", "y"]),
    ],
)
def test_ids_of_frames_keep_their_kind(values: pl.Series, expected: list[Any]) -> None:
    assert read(changed(user_id=values)).table["user"].to_list() == expected


def test_pandas_texts_categories_and_nullable_integers() -> None:
    frame = pd.DataFrame(
        {
            "user_id": pd.Series(["ann", "bob"], dtype=object),
            "item_id": pd.Series(["x", "y"], dtype="category"),
            "timestamp": pd.Series([5, 6], dtype="Int64"),
        }
    )
    assert rows(frame) == [("ann", "x", 5), ("bob", "y", 6)]


NOON = int(datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()) * 10**6


@pytest.mark.parametrize(
    ("text", "expected", "kind"),
    [
        ("12", 12, "none"),
        ("-1e3", -1000, "none"),
        ("1.5", 1.5, "none"),
        ("1369353600", 1369353600, "s"),
        ("1369353600.5", 1369353600.5, "s"),
        ("1369353600000", 1369353600000, "ms"),
        ("1369353600000000", 1369353600000000, "us"),
        ("1369353600000000000", 1369353600000000000, "ns"),
        ("2024-05-01", NOON - 12 * 3600 * 10**6, "us"),
        ("2024-05-01 12:00", NOON, "us"),
        ("2024-05-01T12:00:00", NOON, "us"),
        ("2024-05-01 12:00:00.000001", NOON + 1, "us"),
        ("2024-05-01T12:00:00Z", NOON, "us"),
        ("2024-05-01T14:00:00+02:00", NOON, "us"),
        ("2024-05-01T14:00:00+0200", NOON, "us"),
        ("2024-05-01T14:00:00.5+02", NOON + 500_000, "us"),
        ("2024-05-01 14:00+02", NOON, "us"),
        ("2024-05-01T12:00Z", NOON, "us"),
        ("20240501T120000Z", NOON, "us"),
        ("20240501T120000", NOON, "us"),
        ("20240501T1200Z", NOON, "us"),
        ("20240501t140000.25+0200", NOON + 250_000, "us"),
        ("2024-05-01T12:00:00,5Z", NOON + 500_000, "us"),
    ],
)
def test_times_of_texts(tmp_path: Path, text: str, expected: float, kind: str) -> None:
    table = read(write(tmp_path, HEADER + f'1,2,"{text}"\n'.encode()))
    assert (table.table["time"].to_list(), table.time_unit) == ([expected], kind)


@pytest.mark.parametrize(
    ("values", "expected", "kind"),
    [
        ([1.0, 2.0], [1, 2], "none"),
        ([1.5, 2.0], [1.5, 2.0], "none"),
        ([date(1970, 1, 2), date(1970, 1, 1)], [86400 * 10**6, 0], "us"),
        (pl.Series([1000, 2999]).cast(pl.Datetime("ns", "Europe/Rome")), [1, 2], "us"),
    ],
)
def test_times_of_frames(values: Any, expected: list[float], kind: str) -> None:
    table = read(changed(timestamp=values))
    assert (table.table["time"].to_list(), table.time_unit) == (expected, kind)


BAD_FILES = {
    "empty": ("r.csv", b"", ["empty"]),
    "header alone": ("r.csv", HEADER, ["no rows"]),
    "a workbook": ("r.xlsx", b"PK\x03\x04\x14\x00\x06", ["binary"]),
    "a zip archive": ("r.zip", b"PK\x03\x04\x14 r.csv", ["zip archive", "unpack it", "gzip and zstd are read"]),
    "bzip2": ("r.csv.bz2", bz2.compress(HEADER + b"1,2,3\n"), ["bzip2", "unpack it", "gzip and zstd are read"]),
    "xz": ("r.csv.xz", lzma.compress(HEADER + b"1,2,3\n"), ["xz", "unpack it", "gzip and zstd are read"]),
    "xz in gzip": ("r.csv.gz", gzip.compress(lzma.compress(HEADER)), ["xz", "unpack it"]),
    "no header, a value twice": ("r.csv", b"1,1,1700000000\n1,2,1700000001\n", ["two columns '1'", "--columns"]),
    "one column": ("r.xyz", b"x\n1\n", ["'x'", "user"]),
    "gzip cut short": ("r.csv", gzip.compress(HEADER + b"1,2,3\n" * 99)[:-9], ["cut short", "gzip"]),
    "zstd cut short": ("r.csv", zstandard.compress(bytes(range(256)) * 9999)[:-99], []),
    "zstd without its last block": ("r.csv", zstandard.compress(HEADER + b"1,2,3\n" * 99)[:-5], ["cut short", "zstd"]),
    "zstd cut in its second frame": ("r.csv", zstandard.compress(HEADER) + zstandard.compress(b"1,2,3")[:-1], ["cut"]),
    "zstd and something else": ("r.csv", zstandard.compress(HEADER + b"1,2,3\n") + b"garbage", ["damaged", "zstd"]),
    "Parquet as CSV": ("r.csv", b"PAR1xxxxPAR1", ["Parquet"]),
    "JSON list": ("r.json", b'[{"user": 1}]', ["JSON list", "one object a line"]),
    "mixed units": ("r.csv", HEADER + b"1,2,1369353600\n1,3,1369353600000\n", ["seconds", "milliseconds", "line 3"]),
    "bytes as CSV": ("r.csv", bytes(range(256)) * 8, []),
    "UTF-16": ("r.csv", "user_id,item_id\n".encode("utf-16"), []),
    "not UTF-8": ("r.csv", HEADER + b"1,2,3\n1,\xff,3\n", ["line 3", "UTF-8"]),
    "header not UTF-8": ("r.csv", b"user\xff,item\n1,2\n", ["line 1", "UTF-8"]),
    "text as Parquet": ("r.parquet", b"hello " * 9, ["Parquet"]),
    "long row": ("r.csv", HEADER + b"1,2,3\n1,2,3,4\n", ["line 3", "4 fields", "3"]),
    "short row": ("r.csv", HEADER + b"1,2,3\n1,2\n", ["line 3", "2 fields", "3"]),
    "open quote": ("r.csv", HEADER + b'1,"2,3\n1,2,3\n', ["line 2", "quote"]),
    "column twice": ("r.csv", b"user_id,item_id,item_id\n1,2,3\n", ["two columns", "'item_id'", "line 1"]),
    "no user": ("r.csv", HEADER + b"1,2,3\n,2,3\n", ["line 3", "'user_id'", "missing"]),
    "quoted nothing": ("r.csv", HEADER + b'1,2,3\n1,"",3\n', ["line 3", "'item_id'", "missing"]),
    "no time": ("r.csv", HEADER + b"1,2,\n", ["line 2", "'timestamp'", "missing"]),
    "unreadable time": ("r.csv", HEADER + b"1,2,2024-05-01\n1,2,05/02/2024\n", ["line 3", "'timestamp'", "05/02/2024"]),
    "mixed times": ("r.csv", HEADER + b"1,2,17\n1,2,2024-05-01\n", ["line 3", "2024-05-01"]),
    "no such day": ("r.csv", HEADER + b"1,2,2024-02-30\n", ["line 2", "2024-02-30"]),
    "no such time": ("r.csv", HEADER + b"1,2,20240501T250000Z\n", ["line 2", "20240501T250000Z", "--time-format"]),
    "another date": ("r.csv", HEADER + b"1,2,2024-05-01\n1,2,01.05.2024\n", ["line 3", "01.05.2024", "--time-format"]),
    "infinite time": ("r.csv", HEADER + b"1,2,inf\n", ["line 2", "inf"]),
    "item missing": ("r.csv", b"user_id,thing,timestamp\n1,2,3\n", ["no item column that is known by name; it has"]),
    "item nearly": ("r.csv", b"user_id,itemm_id,timestamp\n1,2,3\n", ["did you mean 'itemm_id'?", "'user_id'"]),
    "column missing": ("r.csv", b"user_id,item_id,when\n1,2,3\n", ["time", "'when'", "--time"]),
}


@pytest.mark.parametrize(("name", "content", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_gets_one_sentence(tmp_path: Path, name: str, content: bytes, said: list[str]) -> None:
    path = write(tmp_path, content, name)
    with pytest.raises(DataError) as error:
        read(path)
    sentence = str(error.value)
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    assert all(part in sentence for part in said), sentence
    assert list(tmp_path.iterdir()) == [path]


def test_zstd_of_several_frames(tmp_path: Path) -> None:
    skipped = (0x184D2A50).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"any"
    rest = zstandard.compress(b"1,2,3\n" * 99_999)
    path = write(tmp_path, zstandard.compress(HEADER) + skipped + zstandard.compress(b"") + rest)
    assert rows(path) == [(1, 2, 3)] * 99_999


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    TABLE.write_parquet(tmp_path / "whole.parquet")
    path = write(tmp_path, (tmp_path / "whole.parquet").read_bytes()[:-9], "cut.parquet")
    with pytest.raises(DataError, match=r"cut\.parquet"):
        read(path)


def test_no_file_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read(tmp_path / "r.csv")
    with pytest.raises(DataError, match="an empty folder"):
        read(tmp_path)
    (tmp_path / "year=2024").mkdir()
    (tmp_path / "year=2025").mkdir()
    (tmp_path / "_temporary").mkdir()
    with pytest.raises(DataError, match=r"no table but 2 folders \(year=2024, year=2025\); name the one to"):
        read(tmp_path)
    for folder in tmp_path.iterdir():
        folder.rmdir()
    write(tmp_path, b"x")
    (tmp_path / "r.csv").rename(tmp_path / "notes.md")
    with pytest.raises(DataError, match="a folder without any table"):
        read(tmp_path)


BAD_FRAMES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "null user": ({"user_id": ["a", None]}, ["row 2", "'user_id'"]),
    "all null": ({"item_id": [None, None]}, ["row 1", "'item_id'"]),
    "NaN user": ({"user_id": [1.0, float("nan")]}, ["row 2", "'user_id'"]),
    "empty category": ({"user_id": pl.Series(["a", ""], dtype=pl.Categorical)}, ["row 2", "'user_id'"]),
    "half user": ({"user_id": [1.0, 2.5]}, ["row 2", "'user_id'", "2.5"]),
    "infinite user": ({"user_id": [1.0, float("inf")]}, ["row 2", "'user_id'"]),
    "true user": ({"user_id": [True, False]}, ["'user_id'", "Boolean"]),
    "list": ({"item_id": [[1], [2]]}, ["'item_id'", "holds lists; explode them"]),
    "infinite time": ({"timestamp": [1.5, float("inf")]}, ["row 2", "'timestamp'"]),
    "true time": ({"timestamp": [True, False]}, ["'timestamp'", "Boolean"]),
}


@pytest.mark.parametrize(("columns", "said"), BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_bad_column_gets_one_sentence(columns: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(DataError) as error:
        read(changed(**columns))
    assert all(part in str(error.value) for part in ["the polars table", *said]), str(error.value)


def test_ratings_that_are_no_numbers() -> None:
    with pytest.raises(DataError, match=r"row 2, column 'rating'.*'good'"):
        read(changed(rating=["5", "good"]), rating="rating")
    with pytest.raises(DataError, match="no rating column"):
        read(TABLE, min_rating=1)


def test_a_column_that_is_not_there_names_the_likely_one() -> None:
    with pytest.raises(DataError, match=r"'usr_id' \(did you mean 'user_id'\?\).*'item_id'"):
        read(TABLE, user="usr_id")


def test_other_things_are_refused() -> None:
    with pytest.raises(DataError, match="type dict"):
        read({"user_id": [1]})
    with pytest.raises(DataError, match="no rows"):
        read(TABLE.clear())
    with pytest.raises(DataError, match=r"'user_id'|one type"):
        read(pd.DataFrame({"user_id": ["a", 1], "item_id": [1, 2], "timestamp": [1, 2]}))


def test_the_same_content_under_two_names_is_refused(tmp_path: Path) -> None:
    content = b"user,item,time\n1,a,1\n2,b,2\n"
    (tmp_path / "may.csv").write_bytes(content)
    (tmp_path / "again.csv").write_bytes(content)
    (tmp_path / "june.csv").write_bytes(content + b"3,c,3\n")
    with pytest.raises(DataError, match=r"again\.csv has the same content as .*may\.csv: .* leave one out"):
        read_interactions([tmp_path / "may.csv", tmp_path / "june.csv", tmp_path / "again.csv"])
    assert read_interactions([tmp_path / "may.csv", tmp_path / "june.csv"]).table.height == 5
