"""The same interactions through every door: formats, packings, shards, standard input; and the known data sets."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from adrec.data import jsonlines
from adrec.data.preparation import Preparation
from adrec.data.prepare import prepare
from adrec.data.read import Interactions, read_interactions
from adrec.data.recipes import recipes
from adrec.utils.errors import ConfigError, DataError
from command import adrec, refused

TABLE = pl.DataFrame({"user_id": ["ann", "bob"], "item_id": ["x", "y"], "timestamp": [1369353600, 1369353601]})
ROWS = [("ann", "x", 1369353600), ("bob", "y", 1369353601)]


def rows(source: Any, **options: Any) -> list[tuple[Any, ...]]:
    return read(source, **options).table.drop("row", "rating", strict=False).rows()


def read(source: Any, **options: Any) -> Interactions:
    return read_interactions(source, Preparation().changed(options))


def test_a_table_beyond_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Parquet file of some kilobytes may hold more rows of one value than any memory."""
    table = pl.DataFrame({"user": [1] * 100_000, "item": 1, "time": 1})
    table.write_parquet(tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 10_000
    monkeypatch.setattr("adrec.data.files.total_memory", lambda: 1 << 20)
    with pytest.raises(DataError, match="bomb.parquet has 100,000 rows, which do not fit in the memory"):
        prepare(tmp_path / "bomb.parquet")


def test_blanks_around_fields_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.csv"
    path.write_text("user_id, item_id, timestamp\nann, x , 1369353600\nbob,\ty, 1369353601\n")
    assert rows(path) == ROWS
    path.write_text("user_id, item_id, timestamp\nann, x, 1369353600\nbob, , 1369353601\n")
    with pytest.raises(DataError, match=r"by_hand.csv line 3, column 'item_id': the value is missing"):
        read(path)


def as_bytes(write: Callable[[Path], Any], folder: Path) -> bytes:
    write(folder / "whole")
    return (folder / "whole").read_bytes()


WRITERS: dict[str, Callable[[Path], Any]] = {
    "r.csv": TABLE.write_csv,
    "r.tsv": lambda path: TABLE.write_csv(path, separator="\t"),
    "r.inter": lambda path: TABLE.rename(
        {"user_id": "user_id:token", "item_id": "item_id:token", "timestamp": "timestamp:float"}
    ).write_csv(path, separator="\t"),
    "r.dat": lambda path: path.write_text(TABLE.write_csv().replace(",", "::")),
    "pipes.txt": lambda path: TABLE.write_csv(path, separator="|"),
    "r.parquet": TABLE.write_parquet,
    "r.jsonl": TABLE.write_ndjson,
    "r.json": TABLE.write_ndjson,
    "no ending": TABLE.write_csv,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_every_format_packed_or_not(tmp_path: Path, name: str, packing: str) -> None:
    content = as_bytes(WRITERS[name], tmp_path)
    pack: Callable[[bytes], bytes] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packing]
    path = tmp_path / f"{name}{packing}"
    path.write_bytes(pack(content))
    table = read(path)
    assert table.table.drop("row").rows() == ROWS
    assert table.time_unit == "s"
    assert len(str(table.digests[0])) == 64


@pytest.mark.parametrize("name", ["r.csv", "r.parquet", "r.jsonl"])
def test_standard_input(tmp_path: Path, name: str) -> None:
    content = as_bytes(WRITERS[name], tmp_path)
    code = (
        "from adrec.data.read import read_interactions; r = read_interactions('-'); "
        "print(r.table.drop('row').rows(), r.sources)"
    )
    said = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True).stdout
    assert said.decode().strip() == f"{ROWS} ('standard input',)"


def test_standard_input_that_is_closed(tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m adrec prepare - --out data <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False)
    said = "adrec: error: standard input is closed; pipe a table into it, or name a file.\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_several_files_and_a_folder_of_shards(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    TABLE.write_csv(folder / "part-1.csv")
    TABLE.select("timestamp", "item_id", "user_id").write_csv(folder / "part-2.csv.gz".removesuffix(".gz"))
    (folder / "part-3.csv.gz").write_bytes(gzip.compress(TABLE.write_csv().encode()))
    (folder / "_SUCCESS").write_text("")
    (folder / "notes.md").write_text("hello")
    table = read(folder)
    assert table.table.drop("row").rows() == ROWS * 3
    assert [table.at(row).removeprefix(f"{folder}/") for row in table.table["row"]] == [
        f"part-{part}{line}"
        for part, lines in (("1.csv", (2, 3)), ("2.csv", (2, 3)), ("3.csv.gz", (2, 3)))
        for line in (f" line {number}" for number in lines)
    ]
    assert table.guesses[0] == f"{folder}: a folder of 3 shards, without notes.md"
    assert rows([folder / "part-1.csv", folder / "part-3.csv.gz"]) == ROWS * 2
    with pytest.raises(DataError, match="named twice"):
        read([folder, folder / "part-1.csv"])


def test_shards_whose_ids_are_of_several_types_are_texts(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": [3]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"user_id": ["x"], "item_id": [2], "timestamp": [3]}).write_parquet(tmp_path / "b.parquet")
    assert rows(tmp_path) == [("1", 2, 3), ("x", 2, 3)]


def test_dates_in_one_shard_and_numbers_in_another_are_refused(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "a.csv")
    TABLE.with_columns(timestamp=pl.lit("2024-01-01")).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="time cannot be read"):
        read(tmp_path)
    TABLE.with_columns(timestamp=pl.date(2024, 1, 1)).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="has dates where numbers were read before"):
        read(tmp_path)


def test_options_win_over_guesses(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("ann;x,z;1700000000\nbob;y;1700000001\n")
    with pytest.raises(DataError, match="no header"):
        read(path, separator=";")
    assert rows(path, separator=";", header=["user", "item", "time"]) == [
        ("ann", "x,z", 1700000000),
        ("bob", "y", 1700000001),
    ]
    with pytest.raises(DataError, match="3 fields where header names 2"):
        read(path, separator=";", header=["user", "item"])
    path.write_text("user,item,time\n1,2,31.12.2023 23:59\n1,3,01.01.2024 00:00\n")
    table = read(path, time_format="%d.%m.%Y %H:%M")
    assert (table.table["time"].diff().to_list(), table.time_unit) == ([None, 60 * 10**6], "us")
    path.write_text("user,item,time\n1,2,1700000000\n1,3,1700000000000\n")
    assert read(path, time_unit="s").time_unit == "s"
    with pytest.raises(ConfigError, match=r"time_unit must be one of s, ms, us, ns, none.*'sec'"):
        read(path, time_unit="sec")
    with pytest.raises(ConfigError, match=r"no option of prepare 'min_usr' \(did you mean 'min_user'"):
        prepare(path, min_usr=2)  # type: ignore[call-arg]


json_values = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.integers(-(10**12), 10**12),
    st.sampled_from([1.5, 2.0, True, "7", "\ud83d", 1e3]),
)
json_line = st.one_of(
    st.fixed_dictionaries({"user": json_values, "item": json_values, "time": st.integers(0, 99)}).map(json.dumps),
    st.fixed_dictionaries({"user": json_values, "time": st.integers(0, 99)}).map(json.dumps),
    st.tuples(json_values, json_values).map(  # a key that is repeated
        lambda users: f'{{"user": {json.dumps(users[0])}, "item": 1, "time": 2, "user": {json.dumps(users[1])}}}'
    ),
    st.sampled_from(["{bad}", "5", "[1]", "", '{"user": "a"', '{"user": NaN, "item": 1, "time": 2}', "null", "{}"]),
)


@given(st.lists(json_line, min_size=1, max_size=8))
def test_json_lines_read_at_once_and_one_by_one_are_the_same(lines: list[str]) -> None:
    content = "".join(f"{line}\n" for line in ['{"user": "u", "item": "i", "time": 0}', *lines]).encode()
    chunk = jsonlines.Chunk(content, 1)
    wanted = ["user", "item", "time"]
    slow, quick = jsonlines._line_by_line(chunk, "jsonl", wanted), jsonlines._piece(chunk, "jsonl", wanted)
    assert quick.columns.rows() == slow.columns.rows()
    assert quick.numbers.tolist() == slow.numbers.tolist()
    assert list(quick.malformed) == list(slow.malformed)
    assert quick.text([0]) == slow.text([0]) == ['{"user": "u", "item": "i", "time": 0}']
    alone = [jsonlines._piece(jsonlines.Chunk(f"{line}\n".encode(), 1), "jsonl", wanted) for line in lines]
    assert slow.columns.rows()[1:] == [each for piece in alone for each in piece.columns.rows()]
    assert len(slow.malformed) == sum(len(piece.malformed) for piece in alone)


@pytest.mark.parametrize("company", ["", "broken\n"])
@pytest.mark.parametrize(
    ("line", "user"),
    [
        ('{"user": 1, "user": 2, "item": 3}', "1"),
        ('{"user": null, "item": 3, "user": 2}', None),
        ('{"user": {"b": 1, "b": 2.0}, "item": 3}', "refused"),
        ('{"user": [1e2], "item": 3}', "refused"),
        ('{"user": "[1e2]", "item": 3}', "[1e2]"),
        ('{"user": {"$oid": "a b"}, "item": 3}', "a b"),
        ('{"user": {"$numberLong": 1, "b": 2}, "item": 3}', "refused"),
        ('{"user": {"$oid": "say \\"x\\""}, "item": 3}', 'say "x"'),
        ('{"user": 12345678901234567890123, "item": 3}', "12345678901234567890123"),
        ('{"user": "\\ud83d", "item": 3, "user": 2}', "refused"),
        ('{"user": {"b": "\\ud83d", "b": 2}, "item": 3}', "refused"),
        ('{"user": 1e999, "item": 3}', "refused"),
    ],
)
def test_what_a_line_of_json_is_worth_does_not_depend_on_its_neighbours(line: str, user: Any, company: str) -> None:
    chunk = jsonlines.Chunk(f'{line}\n{company}{{"item": 4}}\n{{"user": "a", "item": 4}}\n'.encode(), 1)
    for read in (jsonlines._piece, jsonlines._line_by_line):
        piece = read(chunk, "jsonl", ["user", "item"])
        expected = [] if user == "refused" else [(user, "3")]
        assert piece.columns.rows() == [*expected, (None, "4"), ("a", "4")]
        assert len(piece.malformed) == (user == "refused") + (company != "")


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_lines_are_made_only_of_rows_that_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    WRITERS[name](tmp_path / name)
    for module in ("fields", "jsonlines"):
        monkeypatch.setattr(f"adrec.data.{module}.lines_at", None)
    assert rows(tmp_path / name) == ROWS


# Two rows of each known data set, as its files have them; the values are made up.
SAMPLES: dict[str, tuple[str, str, list[tuple[Any, ...]]]] = {
    "movielens-100k": ("u.data", "196\t242\t3\t881250949\n186\t302\t5\t891717742\n", [(196, 242), (186, 302)]),
    "movielens-1m": ("ratings.dat", "1::1193::5::978300760\n2::661::3::978302109\n", [(1, 1193), (2, 661)]),
    "movielens": (
        "ratings.csv",
        "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n2,10,4.0,835355493\n",
        [(1, 31), (2, 10)],
    ),
    "amazon-2014": (
        "reviews_Baby_5.json",
        '{"reviewerID": "A1", "asin": "0097", "reviewerName": "N", "helpful": [0, 0], "reviewText": "x, \\"y\\"", '
        '"overall": 5.0, "summary": "s", "unixReviewTime": 1373846400, "reviewTime": "07 15, 2013"}\n'
        '{"reviewerID": "A2", "asin": "B001", "helpful": [1, 2], "reviewText": "", "overall": 2.0, "summary": "", '
        '"unixReviewTime": 1373846401, "reviewTime": "07 15, 2013"}\n',
        [("A1", "0097"), ("A2", "B001")],
    ),
    "amazon-2014-ratings": (
        "ratings_Baby.csv",
        "A1,0097,5.0,1373846400\nA2,B001,2.0,1373846401\n",
        [("A1", "0097"), ("A2", "B001")],
    ),
    "amazon-2018": (
        "Baby_5.json",
        '{"overall": 5.0, "verified": true, "reviewTime": "02 3, 2014", "reviewerID": "A1", "asin": "0097", '
        '"style": {"Size:": " 1"}, "reviewText": "x", "summary": "s", "unixReviewTime": 1391385600}\n'
        '{"overall": 1.0, "vote": "2", "reviewerID": "A2", "asin": "B001", "unixReviewTime": 1391385601}\n',
        [("A1", "0097"), ("A2", "B001")],
    ),
    "amazon-2018-ratings": (
        "Baby.csv",
        "0097,A1,5.0,1391385600\nB001,A2,2.0,1391385601\n",
        [("A1", "0097"), ("A2", "B001")],
    ),
    "amazon-2023": (
        "Baby_Products.jsonl",
        '{"rating": 5.0, "title": "t", "text": "x", "images": [], "asin": "B0", "parent_asin": "B1", "user_id": "AG", '
        '"timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": true}\n'
        '{"rating": 1.0, "asin": "B2", "parent_asin": "B3", "user_id": "AH", "timestamp": 1588687728924}\n',
        [("AG", "B1"), ("AH", "B3")],
    ),
    "amazon-2023-ratings": (
        "Baby_Products.csv",
        "user_id,parent_asin,rating,timestamp\nAG,B1,5.0,1588687728923\nAH,B3,1.0,1588687728924\n",
        [("AG", "B1"), ("AH", "B3")],
    ),
    "yelp": (
        "yelp_academic_dataset_review.json",
        '{"review_id": "r", "user_id": "mh_-", "business_id": "XQf", "stars": 3.0, "useful": 0, "funny": 0, "cool": 0, '
        '"text": "x\\n\\ny", "date": "2018-07-07 22:09:11"}\n'
        '{"review_id": "s", "user_id": "OyoG", "business_id": "7AT", "stars": 5.0, "text": "", '
        '"date": "2012-01-03 15:28:18"}\n',
        [("mh_-", "XQf"), ("OyoG", "7AT")],
    ),
    "steam": (
        "steam_reviews.json",
        "{u'username': u'Chaos', u'hours': 0.1, u'products': 41, u'product_id': u'725280', u'page_order': 0, "
        "u'date': u'2017-12-17', u'text': u\"it's \\xe9\", u'early_access': False, u'page': 1}\n"
        "{u'username': u'\\u2605 Ann', u'product_id': u'328100', u'date': u'2017-08-02', u'text': u''}\n",
        [("Chaos", 725280), ("★ Ann", 328100)],
    ),
    "gowalla": (
        "loc-gowalla_totalCheckins.txt",
        "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"
        "1\t2010-10-18T22:17:43Z\t30.2691029532\t-97.7493953705\t420315\n",
        [(0, 22847), (1, 420315)],
    ),
}


SEVERAL_IN_A_LINE = {"otto", "mind", "netflix"}  # tests/data/test_faults.py


def test_every_recipe_has_a_sample() -> None:
    own = {name for name in recipes() if not name.startswith("adrec-")}
    assert own == set(SAMPLES) | SEVERAL_IN_A_LINE
    assert {name for name in recipes() if name.startswith("adrec-")} == {
        f"adrec-{name}" for name in ("ml-100k", "beauty", "toys", "sports", "baby", "yelp")
    }


@pytest.mark.parametrize("recipe", SAMPLES)
def test_a_known_data_set_in_its_own_format(tmp_path: Path, recipe: str) -> None:
    name, content, expected = SAMPLES[recipe]
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    dataset = prepare(path, recipe=recipe)
    pairs = [
        (user, item)
        for index, user in enumerate(dataset.users.ids)
        for item in dataset.catalogue.decode(dataset.history(index).astype(int) - 1)
    ]
    assert sorted(pairs) == sorted(expected)
    assert (dataset.info.recipe, dataset.info.name, dataset.info.num_read) == (recipe, recipe, 2)
    assert dataset.info.time_unit in ("s", "ms", "us")
    assert read(path, **{**recipes()[recipe].options, "rating": recipes()[recipe].options.get("rating")}).columns


def test_the_papers_sets_keep_high_ratings_and_a_core(tmp_path: Path) -> None:
    content = "".join(
        f"{user}\t{item}\t{5 if item < 6 else 3}\t{881250949 + item}\n" for user in range(6) for item in range(7)
    )
    path = tmp_path / "ml-100k.inter"
    path.write_text(f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n{content}")
    dataset = prepare(path, recipe="adrec-ml-100k")
    (tmp_path / "u.data").write_text(content)
    header = ("user_id", "item_id", "rating", "timestamp")
    assert prepare(tmp_path / "u.data", recipe="adrec-ml-100k", header=header).fingerprint == dataset.fingerprint
    assert (dataset.num_users, dataset.num_items, dataset.num_interactions) == (6, 6, 36)
    assert prepare(path, recipe="adrec-ml-100k", min_rating=1).num_items == 7
    assert recipes()["adrec-baby"].counts == {"users": 11761, "items": 4731}


def test_recipes_on_the_command_line(tmp_path: Path) -> None:
    listed = adrec("recipes")
    assert listed.returncode == 0
    for name in recipes():
        assert name in listed.stdout
    assert "11,761 users, 4,731 items" in adrec("recipes", "adrec-baby").stdout
    assert "did you mean 'yelp'?" in refused("recipes", "yelpp")
    (tmp_path / "u.data").write_text(SAMPLES["movielens-100k"][1])
    done = adrec("prepare", "u.data", "--recipe", "movielens-100k", "--out", "d", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "kept 2 interactions of 2 users with 2 items" in done.stderr
    assert "did you mean 'movielens-1m'?" in refused(
        "prepare", "u.data", "--recipe", "movielens-1mm", "--out", "e", cwd=tmp_path
    )
