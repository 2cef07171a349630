"""Conditions, moments, sessions, rows in order, partitioned folders, databases and object stores."""

from __future__ import annotations

import json
import sqlite3
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrec.data.prepare import prepare
from adrec.data.remote import shown
from adrec.utils.errors import ConfigError, DataError
from command import adrec, refused

EVENTS = pl.DataFrame(
    {
        "user": ["a", "a", "b", "b", "a", "b"],
        "item": ["x", "y", "x", "z", "z", "y"],
        "time": [1_600_000_000 + 600 * step for step in range(6)],
        "event": ["view", "purchase", "purchase", "view", "purchase", "purchase"],
        "price": [1.5, 20.0, 3.0, 100.0, 7.0, None],
    }
)


def kept(source: Any, **options: Any) -> list[tuple[str, str]]:
    dataset = prepare(source, **options)
    return [
        (user, item)
        for index, user in enumerate(dataset.users.ids)
        for item in dataset.catalogue.decode(dataset.history(index).astype(int) - 1)
    ]


def sources(folder: Path) -> dict[str, Any]:
    EVENTS.write_csv(folder / "r.csv")
    EVENTS.write_ndjson(folder / "r.jsonl")
    EVENTS.write_parquet(folder / "r.parquet")
    return {"polars": EVENTS, **{name: folder / f"r.{name}" for name in ("csv", "jsonl", "parquet")}}


@pytest.mark.parametrize("name", ["polars", "csv", "jsonl", "parquet"])
def test_conditions(tmp_path: Path, name: str) -> None:
    source = sources(tmp_path)[name]
    bought = [("a", "y"), ("a", "z"), ("b", "x"), ("b", "y")]
    assert kept(source, where="event = 'purchase'") == bought
    assert kept(source, where="event = 'purchase' AND price < 10") == [("b", "x"), ("a", "z")]
    assert kept(source, where="price IS NULL OR price > 15") == [("a", "y"), ("b", "z"), ("b", "y")]
    dataset = prepare(source, where="event = 'purchase'")
    (left,) = dataset.info.left_out
    assert (left["reason"], left["rows"]) == ("not where", 2)
    assert dataset.info.num_read == 6
    if name in ("csv", "jsonl"):
        assert left["examples"][0].endswith("line 2" if name == "csv" else "line 1")
        numbers = prepare(source, where="price < 30").info.guesses
        assert "--where compares price as numbers" in numbers


def test_a_row_after_rows_that_are_left_out_keeps_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    EVENTS.write_csv(path)
    path.write_text(path.read_text() + ",x,1600009000,purchase,1\n")
    with pytest.raises(DataError, match=r"r\.csv line 8, column 'user'"):
        prepare(path, where="event = 'purchase'", strict=True)


@pytest.mark.parametrize(
    ("where", "error", "said"),
    [
        ("events = 'purchase'", DataError, "no column 'events' (did you mean 'event'?)"),
        ("event = purchase", DataError, "texts are in single quotes"),
        ("event ==== 1", ConfigError, "is no condition in SQL"),
        ("price + 1", DataError, "it gives Float64, not true or false"),
        ("event + 1 > 0", DataError, "cannot be computed"),
        ("event = 'gone'", DataError, "everything was filtered away"),
    ],
)
def test_conditions_that_cannot_be(where: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        prepare(EVENTS, where=where)
    assert said.replace("; ", " ") in str(raised.value).replace("; ", " ")


def test_since_and_until() -> None:
    assert kept(EVENTS, since="2020-09-13T12:36:40Z", until="2020-09-13T13:00:00Z") == [
        ("a", "y"),
        ("b", "x"),
        ("b", "z"),
    ]
    assert kept(EVENTS, since="1600002400") == [("a", "z"), ("b", "y")]
    assert kept(EVENTS, since=datetime(2020, 9, 13, 13, 6, 40)) == [("a", "z"), ("b", "y")]
    assert len(kept(EVENTS, since=date(2020, 9, 13))) == 6
    (left,) = prepare(EVENTS, until="1600001200").info.left_out
    assert (left["reason"], left["rows"]) == ("outside since .. until", 4)
    with pytest.raises(ConfigError, match="no moment"):
        prepare(EVENTS, since="yesterday")


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.integers(0, 500)), min_size=2, max_size=30).filter(
        lambda rows: len({item for _, item, _ in rows}) > 1
    ),
    st.integers(1, 120),
)
def test_sessions(rows: list[tuple[str, int, int]], gap: int) -> None:
    table = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").with_columns(
        time=pl.col("time") + 1_600_000_000
    )
    dataset = prepare(table, session_gap=f"{gap}s")
    found = {
        user: dataset.times[dataset.offsets[index] : dataset.offsets[index + 1]].tolist()
        for index, user in enumerate(dataset.users.ids)
    }
    expected: dict[str, list[int]] = {}
    for user in "ab":
        number, last = 1, None
        for time in sorted(time for other, _, time in table.iter_rows() if other == user):
            number += last is not None and time - last > gap
            last = time
            expected.setdefault(user if number == 1 else f"{user}/{number}", []).append(time)
    assert found == expected


def test_sessions_need_a_unit_and_no_older_data() -> None:
    with pytest.raises(ConfigError, match="only give an order"):
        prepare(EVENTS, session_gap="30m", time_unit="none")
    with pytest.raises(ConfigError, match="sessions have no ids that last"):
        prepare(EVENTS, session_gap="30m", extend=prepare(EVENTS))
    with pytest.raises(ConfigError, match="no span of time"):
        prepare(EVENTS, session_gap="half an hour")


def test_rows_in_order(tmp_path: Path) -> None:
    table = EVENTS.select("user", "item")
    table[:3].write_csv(tmp_path / "1.csv")
    table[3:].write_csv(tmp_path / "2.csv")
    expected = [("a", "x"), ("a", "y"), ("a", "z"), ("b", "x"), ("b", "z"), ("b", "y")]
    first = prepare(tmp_path / "1.csv", time="none")
    assert first.info.time_unit == "none"
    assert "time = the order of the rows, as asked for" in first.info.guesses
    assert kept([tmp_path / "1.csv", tmp_path / "2.csv"], time="none") == expected
    later = prepare(tmp_path / "2.csv", extend=first, time="none")
    assert later.users.ids.to_list() == ["a", "b"]
    histories = [later.catalogue.decode(later.history(user).astype(int) - 1).to_list() for user in (0, 1)]
    assert histories == [["x", "y", "z"], ["x", "z", "y"]]


def test_folders_that_give_columns(tmp_path: Path) -> None:
    for event in ("view", "purchase"):
        for day in (1, 2):
            folder = tmp_path / "events" / f"event={event}" / f"day=2024-05-0{day}"
            folder.mkdir(parents=True)
            pl.DataFrame({"user": ["a", "b"], "item": [f"{event[0]}{day}", "z"]}).write_parquet(folder / "0.parquet")
    (tmp_path / "events" / "_SUCCESS").write_text("")
    assert kept(tmp_path / "events", time="day", where="event = 'purchase'") == [
        *[("a", "p1"), ("a", "p2"), ("b", "z"), ("b", "z")]
    ]
    dataset = prepare(tmp_path / "events", time="day")
    assert f"{tmp_path / 'events'}: a folder of 4 shards in folders by event, day" in dataset.info.guesses
    assert dataset.info.time_unit == "us"
    (tmp_path / "events" / "event=view" / "odd").mkdir()
    with pytest.raises(DataError, match="only folders such as day="):
        (tmp_path / "mixed" / "odd").mkdir(parents=True)
        prepare(tmp_path / "mixed")


def test_a_database(tmp_path: Path) -> None:
    pytest.importorskip("connectorx")
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("CREATE TABLE orders (customer TEXT, product TEXT, bought_at TEXT)")
        days = [("a", "x", "2024-05-01"), ("a", "y", "2024-05-02"), ("b", "x", "2024-05-03")]
        database.executemany("INSERT INTO orders VALUES (?, ?, ?)", days)
    url = f"sqlite://{tmp_path}/shop.db"
    dataset = prepare(url, query="SELECT * FROM orders WHERE bought_at < '2024-05-03'")
    assert (dataset.num_interactions, dataset.info.sources) == (2, (url,))
    done = adrec("prepare", url, "--query", "SELECT * FROM orders", "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    with pytest.raises(DataError, match="did not answer the query: no such table: order"):
        prepare(url, query="SELECT * FROM order_lines")
    assert "is a database; say with --query" in refused("prepare", url, "--out", tmp_path / "x")


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("https://shop.example/orders.csv", (), "https://shop.example/orders.csv is a URL, not a file; copy it"),
        ("s3://bucket/orders.csv", (), "is no Parquet file, the only kind that is read from there"),
        ("postgresql://me:hush@db/shop", (), "postgresql://***@db/shop is a database; say with --query"),
        ("https://shop.example/?token=hush", ("--query", "SELECT 1"), "--query is for a database; https"),
        ("orders.csv", ("--query", "SELECT 1"), "--query needs one source, the URL of a database"),
    ],
)
def test_urls_are_answered_as_such(tmp_path: Path, url: str, options: tuple[str, ...], said: str) -> None:
    sentence = refused("prepare", url, "--out", tmp_path / "o", *options)
    assert said in sentence
    assert "hush" not in sentence
    assert list(tmp_path.iterdir()) == []


def test_passwords_are_never_shown() -> None:
    url = "mysql://me:hu/s@h@db/shop?password=hush&ssl=1&access_token=hush"
    assert shown(f"no route to {url}") == "no route to mysql://***@db/shop?password=***&ssl=1&access_token=***"


@pytest.mark.parametrize("where", ["price > AVG(price)", "COUNT(*) > 1", "ROW_NUMBER() OVER (ORDER BY price) > 2"])
def test_conditions_on_several_rows_are_refused(where: str) -> None:
    with pytest.raises(ConfigError, match="looks at several rows at once"):
        prepare(EVENTS, where=where)


def test_a_column_that_is_a_number_at_first_is_compared_as_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    rows = "".join(f"u{n},i{n % 7},{n},{n % 4}\n" for n in range(3000)) + "u1,i1,4000,web\n"
    path.write_text("user,item,time,store\n" + rows)
    with pytest.raises(DataError, match="column 'store' has 'web', and --where compares it as numbers"):
        prepare(path, where="store <> 3")
    assert prepare(path, where="store <> '3'").num_interactions == 2251


def test_conditions_on_formats_with_several_rows_in_a_line(tmp_path: Path) -> None:
    news = tmp_path / "behaviors.tsv"
    news.write_text("1\tU1\t11/11/2019 9:05:58 AM\t\tN9-1 N8-1 N7-1\n")
    assert prepare(news, recipe="mind", where="item_id <> 'N9'").num_items == 2
    sessions = tmp_path / "otto.jsonl"
    events = [{"aid": aid, "ts": aid - 2, "type": "clicks"} for aid in (7, 8, 9)]
    sessions.write_text(json.dumps({"session": 1, "events": events}) + "\n")
    assert prepare(sessions, recipe="otto", where="ts > 5").num_items == 2


def test_moments_are_days_or_refused() -> None:
    table = pl.DataFrame({"user": [1] * 4, "item": [1, 2, 3, 4], "time": [20220419, 20220420, 20220421, 20220422]})
    assert prepare(table, since="20220421").num_items == 2
    for text in ("2024", "17"):
        with pytest.raises(ConfigError, match=f"since {text} would be a number of s since 1970; write a date"):
            prepare(EVENTS, since=text)


def test_a_session_is_not_called_as_another_user() -> None:
    times = [1_600_000_000, 1_600_009_000, 1_600_000_005]
    table = pl.DataFrame({"user": ["ann", "ann", "ann/2"], "item": [1, 2, 3], "time": times})
    with pytest.raises(ConfigError, match="a session would be called 'ann/2', as another user is"):
        prepare(table, session_gap="30m")


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("connectorx")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"there is no file nope\.db"):
        prepare("sqlite:///nope.db", query="SELECT 1")
    with sqlite3.connect("shop.db") as database:
        database.execute("CREATE TABLE orders (user TEXT, item TEXT, time INTEGER)")
        database.executemany("INSERT INTO orders VALUES (?, ?, ?)", [("a", "x", 1), ("a", "y", 2)])
    assert prepare("sqlite:///shop.db", query="SELECT * FROM orders").num_items == 2
    with pytest.raises(DataError, match="an SQLite database, which --query and the URL"):
        prepare("shop.db")
    assert {each.name for each in tmp_path.iterdir()} == {"shop.db"}


def test_the_limit_of_unusable_rows_is_of_those_that_count() -> None:
    rows = [(None if n < 3 else "a", n, n, "buy" if n < 100 else "view") for n in range(400)]
    table = pl.DataFrame(rows, schema=["user", "item", "time", "event"], orient="row")
    with pytest.raises(DataError, match="3 of 100 rows cannot be used"):
        prepare(table, where="event = 'buy'")
    with pytest.raises(DataError, match=r"everything was filtered away \(where=event = 'gone' leave"):
        prepare(table[5:], where="event = 'gone'")
