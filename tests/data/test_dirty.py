"""Tables as dirty as they come: every row is kept exactly right, or accounted for; against a slow, obvious oracle."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from time import process_time

import polars as pl
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adrec.data import lines as lines_module
from adrec.data.preparation import Preparation
from adrec.data.prepare import prepare
from adrec.data.read import read_interactions
from adrec.data.report import RowAccount
from adrec.utils.errors import DataError, UserError
from command import adrec, refused

Row = tuple[str, str, int]

# What a line of the dirty tables may be: fields as they are written, in quotes or not, and how the line ends.
GOOD_IDS = ("7", "07", "ann", "b b", "ü🎬", "NULL", "-3", "x" * 2000, " ann", "7 ", "\tb b \t")
plain_field = st.sampled_from([*GOOD_IDS, "", " ", "a\tb", 'in"side'])
quoted_field = st.sampled_from(
    ['"a,b"', ' "a,b"', '  "7"', '" ann "', '"say ""hi"""', '""', '"two\nlines"', '"7"', '"cr\r\nlf"']
)
broken_field = st.sampled_from(['"open', '"a"b', '"x" '])
time_field = st.sampled_from(
    ["1", "-5", "2.0", "1e3", "", "soon", "nan", "inf", "1369353600", '"3"', "May", "0", " 7", "8 "]
)
field = st.one_of(plain_field, plain_field, plain_field, quoted_field, broken_field)
row = st.tuples(field, field, time_field).map(list)
ragged = st.lists(field, min_size=0, max_size=5)
line = st.one_of(row, row, row, row, ragged).map(",".join)
raw_line = st.one_of(
    line.map(str.encode), st.sampled_from([b"caf\xe9,a,1", b"a,\xff\xfe,2", b"1,2,\x80", b",,", b"  "])
)
table = st.tuples(
    st.lists(raw_line, min_size=1, max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),  # a byte order mark
    st.booleans(),  # a line end at the end
    st.sampled_from(["plain", "gzip", "zstd"]),
)


def read_record(text: str, start: int) -> tuple[list[str], int] | None:
    """Read the record that begins at ``start``, a character at a time: its fields and its end, None if malformed."""
    fields, at = [], start
    while True:
        value, quote = "", len(text) - len(text[at:].lstrip(" "))
        if text[quote : quote + 1] == '"':
            at = quote + 1
            while True:
                if at >= len(text):
                    return None
                if text[at] == '"' and text[at + 1 : at + 2] == '"':
                    value, at = value + '"', at + 2
                elif text[at] == '"':
                    at += 1
                    break
                else:
                    value, at = value + text[at], at + 1
        else:
            while at < len(text) and text[at] not in ",\r\n":
                value, at = value + text[at], at + 1
        fields.append(value)
        if at < len(text) and text[at] == ",":
            at += 1
            continue
        ending = at
        while ending < len(text) and text[ending] == "\r":
            ending += 1
        if ending >= len(text) or text[ending] == "\n":
            return fields, min(ending + 1, len(text))
        return None


def oracle(content: bytes) -> tuple[list[Row], Counter[str], int]:
    """Return the rows that can be used, how many cannot for each reason, and how many there are."""
    text = content.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    at = text.index("\n") + 1
    kept: list[Row] = []
    reasons: Counter[str] = Counter()
    times = []
    while at < len(text):
        record = read_record(text, at)
        if record is None:
            reasons["malformed row"] += 1
            at = text.find("\n", at) + 1 or len(text)
            continue
        fields, end = record
        if swallows(fields, text[at:end].split("\n")[1:]):
            reasons["malformed row"] += 1
            at = text.find("\n", at) + 1 or len(text)
            continue
        at = end
        if not any(field.strip(" \t\r\n") for field in fields):
            continue
        if len(fields) != 3 or any("\udc80" <= character <= "\udcff" for each in fields for character in each):
            reasons["malformed row"] += 1
        else:
            times.append([each.strip(" \t") for each in fields])
    for user, item, time in times:
        if user in ("", "NULL") or item in ("", "NULL") or time == "":
            reasons["missing value"] += 1
        elif time in ("nan", "inf") or read_number(time) is None:
            reasons["unreadable time"] += 1
        else:
            kept.append((user, item, int(float(time))))
    return kept, reasons, len(times) + reasons["malformed row"]


def swallows(fields: list[str], later: list[str]) -> bool:
    """Whether a line after a record's first has all fields, filled, with numbers and digits where the record has."""
    for own in (each.rstrip("\r").split(",") for each in later):
        if len(own) == 3 and (len(fields) != 3 or all(alike(*pair) for pair in zip(fields, own, strict=True))):
            return True
    return False


def alike(field: str, other: str) -> bool:
    field, other = field.strip(), other.strip()
    if field not in ("nan", "inf") and read_number(field) is not None:
        return other not in ("nan", "inf") and read_number(other) is not None
    has_digit = any(character.isdigit() for character in field)
    return other != "" and (not has_digit or any(character.isdigit() for character in other))


def read_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def written(folder: Path, content: bytes, how: str) -> Path:
    ending, pack = {
        "plain": ("", bytes),
        "gzip": (".gz", gzip.compress),
        "zstd": (".zst", zstandard.compress),
    }[how]
    path = folder / f"dirty.csv{ending}"
    path.write_bytes(pack(content))
    return path


TALLY: Counter[str] = Counter()


@settings(max_examples=300)
@given(table, st.sampled_from([None, 7, 64]))
@example(([b'"open,1,2', b"1,2,3", b'4,5,"6"'], b"\n", False, True, "plain"), 7)
@example(([b'"1","two","3"', b'"",",","5"'], b"\n", False, True, "plain"), None)
@example(([b'"1","two","3"', b'"","4","5"', b'6,"7",8'], b"\r\n", False, True, "zstd"), None)
@example(([b'1,"two', b'lines",3', b"4,5,6"], b"\r\n", True, False, "gzip"), 7)
@example(([b'a,b,"3', b"c,d,e3", b'f,g,"', b"7,8,9"], b"\n", False, True, "plain"), None)
@example(([b'x","z,1', b'1,"a,b",3', b'x","z,1', b'4,"5"x,6', b"7,8,9"], b"\n", False, True, "plain"), None)
@example(([b'x","z,1', b'2,"a"",b",3', b'"1",2,3', b'x","z,1', b"4,5,6"], b"\r\n", False, False, "plain"), 64)
def test_every_row_is_kept_right_or_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, dirty: tuple[list[bytes], bytes, bool, bool, str], block: int | None
) -> None:
    lines, end, bom, last_end, how = dirty
    header = (b"\xef\xbb\xbf" if bom else b"") + b"user_id,item_id,timestamp" + end
    content = header + b"17,18,19" + end + end.join(lines) + (end if last_end else b"")
    folder = tmp_path_factory.mktemp("dirty")
    path = written(folder, content, how)
    ledger = RowAccount(max_rejected=1.0, quarantine=folder / "rejected.jsonl")
    with pytest.MonkeyPatch.context() as patch, ledger:
        if block is not None:  # records over the ends of chunks
            patch.setattr(lines_module, "CHUNK_BYTES", block)
            patch.setattr("adrec.data.source.HEAD_BYTES", 48)
        interactions = read_interactions(path, Preparation(separator=",", time_unit="none"), ledger)
    kept, reasons, num_read = oracle(content)
    rows = [(str(user), str(item), time) for user, item, time in interactions.table.drop("row").rows()]
    assert rows == kept
    assert {each.reason: each.rows for each in ledger.left_out()} == dict(reasons)
    assert ledger.num_read == num_read == len(kept) + sum(reasons.values())
    quarantined = folder / "rejected.jsonl"
    rejected = [json.loads(text) for text in quarantined.read_text().splitlines()] if quarantined.exists() else []
    assert Counter(each["reason"] for each in rejected) == reasons
    TALLY.update(kept=len(kept), tables=1, **{reason.replace(" ", "_"): count for reason, count in reasons.items()})


def test_filters_reconcile_too() -> None:
    table = pl.DataFrame(
        {
            "user": ["a", "a", "a", "b", "b", "c", None, "d", "d"],
            "item": ["x", "y", "x", "x", "y", "z", "x", "x", "y"],
            "time": [1, 2, 3, 1, 2, 1, 1, 1, 1],
            "rating": [5, 5, 4, 5, 5, 5, 5, 1, 5],
        }
    )
    dataset = prepare(table, min_rating=4, duplicates="last", min_user=2, min_item=2, max_rejected=0.5)
    left_out = {each["reason"]: (each["kind"], each["rows"]) for each in dataset.info.left_out}
    assert left_out == {
        "missing value": ("rejected", 1),
        "rating below": ("left out", 1),
        "duplicate": ("left out", 1),
        "rare item": ("left out", 1),
        "too short": ("left out", 1),
    }
    assert dataset.num_interactions + sum(rows for _, rows in left_out.values()) == dataset.info.num_read == 9
    examples = {each["reason"]: each["examples"][0] for each in dataset.info.left_out}
    assert examples["duplicate"] == "the polars table row 1: user 'a', item 'x', rating 5"
    assert examples["missing value"] == "the polars table row 7, column 'user': the value is missing"


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("all", [("x", 1), ("x", 1), ("y", 2), ("x", 3)]),
        ("exact", [("x", 1), ("y", 2), ("x", 3)]),
        ("first", [("x", 1), ("y", 2)]),
        ("last", [("y", 2), ("x", 3)]),
    ],
)
def test_duplicates(keep: str, expected: list[tuple[str, int]]) -> None:
    table = pl.DataFrame({"user": [1, 1, 1, 1], "item": ["x", "y", "x", "x"], "time": [3, 2, 1, 1]})
    dataset = prepare(table, duplicates=keep)  # type: ignore[typeddict-item]
    items = dataset.catalogue.decode(dataset.history(0) - 1).to_list()
    assert list(zip(items, dataset.times.tolist(), strict=True)) == expected


def many(bad: int, good: int) -> pl.DataFrame:
    users = [None] * bad + ["a", "b"] * (good // 2)
    return pl.DataFrame({"user": users, "item": ["x", "y"] * (len(users) // 2), "time": range(len(users))})


def test_at_most_one_in_a_hundred_may_be_unusable() -> None:
    assert prepare(many(2, 198)).info.left_out[0]["rows"] == 2
    with pytest.raises(DataError, match=r"row 1, column 'user'.*4 of 200 rows cannot be used.*1 %.*--max-rejected"):
        prepare(many(4, 196))
    assert prepare(many(4, 196), max_rejected=0.02).num_interactions == 196
    with pytest.raises(DataError, match=r"row 1, column 'user': the value is missing; mend it"):
        prepare(many(2, 198), strict=True)


def test_rejected_rows_are_kept_where_preparing_fails(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('user,item,time\n1,2,3\n1,"x\n,2,3\n1,3,later\n')
    with pytest.raises(DataError, match=r"all are in .*rejected\.jsonl"):
        prepare(path, quarantine=tmp_path / "rejected.jsonl")
    rows = [json.loads(text) for text in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(each["row"], each["reason"], each["column"], each["value"], each["text"]) for each in rows] == [
        (3, "malformed row", None, None, '1,"x'),
        (4, "missing value", "user", None, ",2,3"),
        (5, "unreadable time", "time", "later", "1,3,later"),
    ]


def test_no_rejected_rows_are_left_of_an_earlier_run(tmp_path: Path) -> None:
    path, quarantine = tmp_path / "r.csv", tmp_path / "o.rejected.jsonl"
    for rows, rejected in (("1,2,3\n1,3,4\n,2,3\n", 1), ("1,2,3\n1,3,4\n", None), ("1,2\n1,2\n1,2,3\n1,3,4\n", 2)):
        path.write_text(f"user,item,time\n{rows}")
        prepare(path, quarantine=quarantine, max_rejected=0.5)
        found = len(quarantine.read_text().splitlines()) if quarantine.exists() else None
        assert found == rejected
    path.write_text("nothing,of,use\n1,2,3\n")
    with pytest.raises(DataError, match="no user column"):
        prepare(path, quarantine=quarantine)
    assert quarantine.exists()  # it belongs to the data set that is there still
    path.write_text("user,item,time\n1,2,3\n1,3,4\n")
    (tmp_path / "null").symlink_to("/dev/null")
    prepare(path, quarantine=tmp_path / "null")
    assert (tmp_path / "null").is_char_device()


def test_no_input_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user,item,time\n1,2,3\n1,3,4\n,2,3\n")
    with pytest.raises(UserError, match=r"r\.csv is read, and would be overwritten; choose another quarantine file"):
        prepare(tmp_path, quarantine=path, max_rejected=0.5)
    before = path.read_text()
    (tmp_path / "users.csv").write_text("user\n1\n")
    for name, more in (("r.csv", []), ("users.csv", ["--split", "users:users.csv"])):
        sentence = refused("prepare", "r.csv", "--out", "o", "--quarantine", name, *more, cwd=tmp_path)
        assert sentence == f"{name} is read, and would be overwritten; choose another --quarantine."
    assert "choose a place outside" in refused("prepare", "r.csv", "--out", "o", "--quarantine", "o/q", cwd=tmp_path)
    assert path.read_text() == before
    assert adrec("prepare", "r.csv", "--out", "o", "--max-rejected", "0.5", cwd=tmp_path).returncode == 0
    (tmp_path / "here").mkdir()
    here = adrec("prepare", "../r.csv", "--out", ".", "--max-rejected", "0.5", cwd=tmp_path / "here")
    assert here.returncode == 0, here.stderr
    path.rename(tmp_path / "o" / "r.csv")
    again = refused("prepare", "o/r.csv", "--out", "o", "--max-rejected", "0.5", "--overwrite", cwd=tmp_path)
    assert again == "o/r.csv, which is read, is in o, which is replaced; choose another --out."
    assert (tmp_path / "o" / "r.csv").read_text() == before
    assert {each.name for each in tmp_path.iterdir()} == {
        *("o", "o.rejected.jsonl", "here", "here.rejected.jsonl", "users.csv")
    }


def test_ids_of_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    long = "u" * 2**20
    path.write_text(f'user,item,time\n{long},a,1\n"{long}",b,2\n')
    assert prepare(path).users.ids.to_list() == [long]


def test_quotes_that_go_astray_cost_no_more_than_other_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user,item,time\n" + "1,2,3\n" * 100 + 'x","z,1\n' * 16_000)
    began = process_time()
    with pytest.raises(DataError, match=r"r\.csv line 102: a quote is not closed.*16,000 malformed row"):
        prepare(path)
    assert process_time() - began < 5  # each line once; where each was read to the end of the file, half a minute


def test_a_line_that_is_too_long_is_left_out_and_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LONGEST_LINE", 1 << 20)
    monkeypatch.setattr(lines_module, "CHUNK_BYTES", 1 << 16)
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"user,item,time\n1,a,1\n" + b"0" * (1 << 26) + b"\n2,b,2\n"))
    assert path.stat().st_size * 900 < 1 << 26
    dataset = prepare(path, max_rejected=0.5)
    assert dataset.users.ids.to_list() == [1, 2]
    assert dataset.info.left_out[0]["examples"] == (f"{path} line 3: the line is too long",)
