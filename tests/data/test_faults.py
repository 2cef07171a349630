"""Faults of real tables, kind by kind: stray quotes, encodings, marks of missing values, several columns for a role."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest

from adrec.data.preparation import Preparation
from adrec.data.prepare import prepare
from adrec.data.read import Interactions, read_interactions
from adrec.data.recipes import recipe_options
from adrec.data.report import RowAccount
from adrec.utils.errors import ConfigError, DataError
from command import adrec, refused

HEADER = "user_id\titem_id\ttimestamp\ttitle\n"
MUSIC = [(1, "a", 1600000001), (1, "b", 1600000002), (2, "a", 1600000003), (3, "a", 1600000005)]


def read(path: Path, **options: Any) -> tuple[Interactions, RowAccount]:
    ledger = RowAccount(max_rejected=1.0)
    return read_interactions(path, Preparation().changed(options), ledger), ledger


def rows(path: Any, **options: Any) -> list[tuple[Any, ...]]:
    return read(path, **options)[0].table.select("user", "item", "time").rows()


def music(folder: Path, titles: list[str]) -> Path:
    path = folder / "music.tsv"
    lines = ["\t".join(map(str, [*row, title])) for row, title in zip(MUSIC, titles, strict=True)]
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    "titles", [["Fire", '"Weird', "Fire", 'x"'], ["Fire", '"Weird', 'say "x"', '"'], ['"', '"', "", ""]]
)
def test_rows_do_not_vanish_inside_quotes(tmp_path: Path, titles: list[str]) -> None:
    path = music(tmp_path, titles)
    found, ledger = read(path)
    assert found.table.height + ledger.num_rejected == ledger.num_read == 4
    assert ledger.num_rejected >= 1
    assert rows(path, quoted=False) == MUSIC
    with pytest.raises(DataError, match=r"line [234]: a quote .*--no-quoted"):
        prepare(path)


def test_a_quoted_field_over_lines_of_prose_is_one_field(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text('user_id,item_id,timestamp,text\n1,a,5,"Good,\nsimple, cheap, small\nand fast"\n2,b,6,fine\n')
    assert rows(path) == [(1, "a", 5), (2, "b", 6)]
    path.write_text('user_id,item_id,timestamp,text\n1,a,5,"like\n2,b,6,this"\n2,b,6,fine\n')
    assert rows(path, quoted=True) == [(1, "a", 5), (2, "b", 6)]
    assert rows(path) == [(2, "b", 6), (2, "b", 6)]  # line 2 is refused
    assert rows(path, quoted=False) == [(1, "a", 5), (2, "b", 6), (2, "b", 6)]


@pytest.mark.parametrize("quote", ["", '"'])
def test_bytes_that_are_not_utf8_do_no_harm_where_nobody_reads_them(tmp_path: Path, quote: str) -> None:
    path = tmp_path / "latin.tsv"
    title = f"{quote}Café{quote}"
    text = HEADER + "".join("\t".join(map(str, [*row, title])) + "\n" for row in MUSIC)
    path.write_bytes(text.encode("latin-1"))
    assert rows(path) == MUSIC
    path.write_bytes((text + "ragged\n").encode("latin-1"))  # read line by line
    assert rows(path) == MUSIC
    path.write_bytes(text.replace("\ta\t", "\tà\t").encode("latin-1"))
    assert rows(path) == [MUSIC[1]]
    with pytest.raises(DataError, match=r"line 2: the line is not UTF-8 text \(--encoding"):
        prepare(path)
    assert [item for _, item, _ in rows(path, encoding="latin-1")] == ["à", "b", "à", "à"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "latin-1", "UTF-8"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes("user,item,time\nzoë,crème,1\nzoë,thé,2\n".encode(encoding))
    assert rows(path, encoding=encoding) == [("zoë", "crème", 1), ("zoë", "thé", 2)]


def test_encodings_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes("user,item,time\nzoë,a,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"r\.csv is not ascii text .*name another encoding"):
        rows(path, encoding="ascii")
    for name in ("klingon", "rot13", "base64"):
        with pytest.raises(ConfigError, match=f"encoding '{name}' is not known"):
            rows(path, encoding=name)
    pl.DataFrame({"user": [1], "item": [2], "time": [3]}).write_parquet(tmp_path / "r.parquet")
    assert any("encoding is not used" in guess for guess in read(tmp_path / "r.parquet", encoding="latin-1")[0].guesses)
    assert "r.csv line 2: the line is not UTF-8" in refused("prepare", path, "--out", tmp_path / "o")
    assert adrec("prepare", path, "--out", tmp_path / "o", "--encoding", "latin-1").returncode == 2  # one item only


@pytest.mark.parametrize("mark", ["NA", "NULL", "\\N", "nan", "None", "<NA>", ""])
def test_marks_of_missing_values_are_no_users(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f"user_id,item_id,timestamp\n{mark},a,1\n5,b,2\n{mark},b,3\n6,{mark},4\n")
    found, ledger = read(path)
    assert found.table.select("user", "item").rows() == [(5, "b")]
    assert ledger.counts == {"missing value": 3}
    if mark:
        assert len(rows(path, keep_null_ids=True)) == 4
        with pytest.raises(DataError, match=r"marks a missing value \(--keep-null-ids makes it an id\)"):
            prepare(path)


def test_marks_are_missing_in_frames_too() -> None:
    frame = pl.DataFrame({"user": ["NA", "b"], "item": ["x", "y"], "time": [1, 2]})
    assert rows(frame) == [("b", "y", 2)]


def test_a_user_column_that_is_mostly_missing_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    lines = [f"{session},{'NA' if session % 4 else 9},{session % 3},{session}" for session in range(8)]
    path.write_text("sessionId;userId;itemId;time\n".replace(";", ",") + "\n".join(lines) + "\n")
    found, _ = read(path)
    assert found.columns["user"] == "sessionId"
    assert "user = column 'sessionId', as 'userId' is missing in 75% of the first rows" in found.guesses
    path.write_text("sessionId,userId,itemId,time\n1,5,2,3\n2,6,3,4\n")
    found, _ = read(path)
    assert found.columns["user"] == "userId"
    assert "user = column 'userId', by its name; 'sessionId' could be it too: --user chooses" in found.guesses


def test_of_several_time_columns_the_finer_is_taken(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "user_id": [1, 1, 2],
            "video_id": [7, 8, 9],
            "date": [20220422, 20220422, 20220423],
            "time_ms": [1650585600123, 1650585600456, 1650672000000],
        }
    )
    table.write_csv(tmp_path / "r.csv")
    table.write_ndjson(tmp_path / "r.jsonl")
    table.write_parquet(tmp_path / "r.parquet")
    for source in (table, *(tmp_path / f"r.{ending}" for ending in ("csv", "jsonl", "parquet"))):
        found, _ = read(source)  # type: ignore[arg-type]
        assert found.columns == {"user": "user_id", "item": "video_id", "time": "time_ms"}
        assert any("finer than 'date'" in guess for guess in found.guesses)
        assert found.time_unit == "ms"
    found, _ = read(table, time="date")  # type: ignore[arg-type]
    assert found.time_unit == "us"
    assert found.table["time"][0] == 1650585600000000
    assert "column 'date': numbers such as 20220422 are dates, in UTC" in found.guesses


def test_a_parent_is_taken_before_its_variants() -> None:
    found, _ = read(pl.DataFrame({"user": [1], "asin": ["B1"], "parent_asin": ["B0"], "time": [3]}))  # type: ignore[arg-type]
    assert found.columns["item"] == "parent_asin"
    assert any("'asin' could be it too" in guess for guess in found.guesses)


def test_numbers_that_are_no_days_are_an_order() -> None:
    for times in ([20220422, 20221399], [20220230, 20220301], [5, 6]):
        found, _ = read(pl.DataFrame({"user": [1, 1], "item": [2, 3], "time": times}))  # type: ignore[arg-type]
        assert found.time_unit == "none"


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("31.12.2020 10:15", {}, "the time cannot be read as it is; --time-format '%d.%m.%Y %H:%M' reads it"),
        ("12/1/2010 8:26", {}, "--time-format '%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M' reads it"),
        ("12/31/2010 8:26 PM", {}, "--time-format '%m/%d/%Y %I:%M %p' reads it"),
        ("31.12.2020", {"time_format": "%d/%m/%Y"}, "not in the format '%d/%m/%Y'; --time-format '%d.%m.%Y' reads it"),
        ("2020-12-31", {"time_format": "%d/%m/%Y"}, "it is an ISO date, which is read without --time-format"),
        ("soon", {}, "the time cannot be read (--time-format says how"),
    ],
)
def test_the_format_of_unreadable_times_is_guessed(
    tmp_path: Path, text: str, options: dict[str, str], said: str
) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f"user,item,time\n1,2,{text}\n1,3,{text}\n")
    with pytest.raises(DataError) as raised:
        prepare(path, **options)  # type: ignore[arg-type]
    assert said in str(raised.value)


def test_wrapped_values_of_a_document_store(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    records = [
        {"user": {"$oid": "5f1"}, "item": {"$numberLong": "7"}, "time": {"$date": "2020-01-01T00:00:00Z"}},
        {"user": {"$oid": "5f2"}, "item": {"$numberInt": "8"}, "time": {"$date": "2020-01-02T00:00:00Z"}},
    ]
    expected = [("5f1", 7, 1577836800000000), ("5f2", 8, 1577923200000000)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert rows(path) == expected
    path.write_text(path.read_text() + "no json\n")  # read line by line
    assert rows(path) == expected
    dated = {"user": "[a]", "item": "{b}", "time": {"$date": {"$numberLong": "1577836800000"}}}
    path.write_text(json.dumps(dated) + "\n")
    assert rows(path) == [("[a]", "{b}", 1577836800000)]


@pytest.mark.parametrize(("value", "what"), [([1, 2], "a list; explode it"), ({"id": 1}, "an object; name one")])
def test_containers_are_not_ids(tmp_path: Path, value: Any, what: str) -> None:
    records = [{"user": 1, "item": value, "time": 1}, {"user": 1, "item": 3, "time": 2}]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(DataError, match=f"line 1: column 'item' holds {what}"):
        prepare(path)
    path.write_text("".join(repr(record) + "\n" for record in records))
    with pytest.raises(DataError, match=f"line 1: column 'item' holds {what}"):
        prepare(path, format="python-lines")
    table = pl.DataFrame({"user": [1], "item": [value], "time": [1]})
    with pytest.raises(DataError, match=r"column 'item' holds (lists; explode them|objects)"):
        prepare(table)


def test_python_literals_name_their_recipe(tmp_path: Path) -> None:
    path = tmp_path / "steam.json"
    path.write_text("{'username': 'ann', 'product_id': u'7', 'date': '2018-01-05'}\n")
    with pytest.raises(DataError, match="--recipe steam"):
        prepare(path)


OTTO = [
    {"session": session, "events": [{"aid": aid, "ts": time, "type": "clicks"} for aid, time in events]}
    for session, events in ((1, [(7, 1661724000278), (8, 1661724000279)]), (2, [(8, 1661724000277)]))
]


def test_otto(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in OTTO))
    expected = [(1, 7, 1661724000278), (1, 8, 1661724000279), (2, 8, 1661724000277)]
    with pytest.raises(DataError, match="--recipe otto"):
        prepare(path)
    assert rows(path, **recipe_options("otto")) == expected
    path.write_text(path.read_text() + 'oops\n{"session": 3}\n')
    found, ledger = read(path, **recipe_options("otto"))
    assert found.table.select("user", "item", "time").rows() == expected
    assert found.at(found.table["row"][2]).endswith("train.jsonl line 2")
    assert ledger.examples["malformed row"][0].endswith("line 3: the line is no session with its events")
    assert (ledger.num_read, ledger.num_rejected) == (5, 2)


def test_mind(tmp_path: Path) -> None:
    path = tmp_path / "behaviors.tsv"
    path.write_text(
        "1\tU1\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0 N7-1\n"
        "2\tU2\t11/12/2019 6:11:30 PM\t\tN35729-0\n3\tU2\t11/12/2019 6:11:31 PM\t\tN35729-1\n"
    )
    with pytest.raises(DataError, match="--recipe mind"):
        prepare(path)
    first, second = 1573463158000000, 1573582291000000
    assert rows(path, **recipe_options("mind")) == [
        ("U1", "N55689", first),
        ("U1", "N7", first),
        ("U2", "N35729", second),
    ]


def test_netflix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "combined_data_1.txt"
    path.write_text("1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n1488844,4,2005-09-07\nodd\n")
    with pytest.raises(DataError, match="--recipe netflix"):
        prepare(path)
    expected = [(1488844, 1, 1125964800000000), (822109, 1, 1115942400000000), (1488844, 2, 1126051200000000)]
    for size in (1 << 24, 8):
        monkeypatch.setattr("adrec.data.lines.CHUNK_BYTES", size)
        monkeypatch.setattr("adrec.data.source.HEAD_BYTES", min(size, 1 << 16))
        found, ledger = read(path, **recipe_options("netflix"))
        assert found.table.select("user", "item", "time").rows() == expected
        assert ledger.examples["malformed row"][0].endswith("line 6: the line is no film and no rating of one")


def test_exact_duplicates_are_told_and_removed() -> None:
    day = pl.DataFrame({"user": [1, 1, 2, 2] * 3, "item": list(range(1, 13)), "time": list(range(1, 13))})
    twice = pl.concat([day, day[:6]])
    (note,) = [note for note in prepare(twice).info.notes if "duplicates" in note]
    assert note.startswith("33.3% of the interactions have the user, item and time of another one")
    once = prepare(twice, duplicates="exact")
    assert once.num_interactions == 12
    assert not [note for note in once.info.notes if "another one" in note]


def test_runs_of_one_item_are_told_and_made_one() -> None:
    table = pl.DataFrame(
        {"user": [1] * 8, "item": ["a", "a", "a", "b", "b", "a", "c", "c"], "time": [1, 2, 3, 4, 5, 6, 7, 8]}
    )
    dataset = prepare(table, duplicates="consecutive")
    assert dataset.catalogue.decode(dataset.history(0) - 1).to_list() == ["a", "b", "a", "c"]
    assert dataset.times.tolist() == [1, 4, 6, 7]
    assert dataset.info.left_out[0]["rows"] == 4
    assert any("repeat the item before" in note for note in prepare(table).info.notes)
    alternating = pl.DataFrame({"user": [1, 2] * 4, "item": ["a"] * 4 + ["b"] * 4, "time": list(range(8))})
    assert prepare(alternating, duplicates="consecutive").num_interactions == 4  # runs are each user's own


def test_one_id_with_a_large_share_is_told() -> None:
    users = ["guest"] * 200 + [f"u{index}" for index in range(1000)]
    table = pl.DataFrame({"user": users, "item": [index % 97 for index in range(1200)], "time": list(range(1200))})
    (note,) = [note for note in prepare(table).info.notes if "guest" in note]
    assert note.startswith("user 'guest' has 16.7% of all interactions")
    assert not [note for note in prepare(table[200:]).info.notes if "all interactions" in note and "user" in note[:5]]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pl.Series([Decimal(7), Decimal(8)], dtype=pl.Decimal(10, 0)), [7, 8]),
        (pl.Series([Decimal("7.00"), Decimal("8.00")], dtype=pl.Decimal(10, 2)), [7, 8]),
        (pl.Series([7, 2**63 + 1], dtype=pl.UInt64), ["7", str(2**63 + 1)]),
        (pl.Series([7, 8], dtype=pl.UInt64), [7, 8]),
        (pl.Series([UUID(int=1), UUID(int=2)], dtype=pl.Object), [str(UUID(int=1)), str(UUID(int=2))]),
    ],
)
def test_ids_of_other_types(column: pl.Series, expected: list[Any]) -> None:
    table = pl.DataFrame([column.alias("user")]).with_columns(item=pl.lit("x"), time=pl.Series([1, 2]))
    assert [user for user, _, _ in rows(table)] == expected


def test_decimals_that_are_no_ids() -> None:
    column = pl.Series("user", [Decimal("7.50"), Decimal("8.00")], dtype=pl.Decimal(10, 2))
    table = pl.DataFrame([column]).with_columns(item=pl.lit("x"), time=pl.Series([1, 2]))
    with pytest.raises(DataError, match="row 1, column 'user': the id is not a whole number"):
        prepare(table, strict=True)


def test_uuids_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    users = [UUID(int=1), UUID(int=2)]
    assert [user for user, _, _ in rows(pandas.DataFrame({"user": users, "item": [1, 2], "time": [1, 2]}))] == [
        str(user) for user in users
    ]


class Stream:
    """A table of some other library, of which only the Arrow stream is known."""

    def __init__(self, table: pl.DataFrame) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def test_anything_with_an_arrow_stream() -> None:
    table = pl.DataFrame({"user": [1, 2], "item": [3, 4], "time": [5, 6]})
    assert rows(Stream(table)) == table.rows()
    with pytest.raises(DataError, match="interactions of type dict cannot be read"):
        read({"user": [1]})  # type: ignore[arg-type]


def test_integers_that_pandas_wrote_as_floats(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user,item,time\n12.0,1,5\n12,2,6\n13.0,1,7\n")
    found, _ = read(path)
    assert [row[:2] for row in found.table.select("user", "item").rows()] == [(12, 1), (12, 2), (13, 1)]
    assert "column 'user': ids such as 12.0 are integers, 12" in found.guesses
    path.write_text("user,item,time\n12.0,1,5\n12,2,6\nann,1,7\n")
    found, _ = read(path)
    assert found.table["user"].cast(pl.String).to_list() == ["12.0", "12", "ann"]
    assert any("12.0 and 12 are different ids" in guess for guess in found.guesses)
