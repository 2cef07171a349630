"""Live events: stored once, seen by the next request, kept by a restart, and prepared for the next training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adrec import ADRec
from adrec.data.dataset import open_dataset
from command import SMALL, adrec, refused
from serve.postgres import POSTGRES, postgres
from serve.server import serving, started


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("store")
    if request.param == "sqlite":
        yield str(folder / "events.db")
        return
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres(folder) as url:
        yield url


def event(number: int, user: Any = "newcomer", item: Any = "item 3", **more: Any) -> dict[str, Any]:
    return {"event_id": f"e{number}", "user": user, "item": item, **more}


def post(client: httpx.Client, *events: dict[str, Any]) -> Any:
    answer = client.post("/v1/events", json=list(events))
    assert answer.status_code == 200, answer.text
    return answer.json()


def history(client: httpx.Client, user: str) -> list[Any]:
    answer = client.get(f"/v1/users/{user}")
    return answer.json()["history"] if answer.status_code == 200 else []


def ids(client: httpx.Client, **body: Any) -> list[Any]:
    return [each["item"] for each in client.post("/v1/recommend", json=body).json()["items"]]


@pytest.mark.slow
def test_the_whole_loop(small_run: Path, store: str, tmp_path: Path) -> None:
    model = ADRec.load(small_run, device="cpu")
    before = model.recommender().dataset.history(0).astype(int)
    own = model.recommender().dataset.catalogue.decode(before - 1).to_list()
    first = model.recommender().dataset.users.ids[0]
    with serving(small_run, "--events", store) as client:
        assert history(client, "newcomer") == []
        assert post(client, event(1, time=2000), event(2, item="item 4", time=3000)) == {"stored": 2, "repeated": 0}
        assert post(client, event(2), event(3, item="unheard", time=4000)) == {"stored": 1, "repeated": 1}
        assert client.post("/v1/events", json=event(4, user=first, time=10**11)).json()["stored"] == 1
        assert history(client, "newcomer") == ["item 3", "item 4", "unheard"]
        assert history(client, first) == [*own, "item 3"]
        expected = model.recommend(histories=[["item 3", "item 4"]], k=4)["item_id"].to_list()
        assert ids(client, user="newcomer", k=4) == expected
        late = event(5, user="sorter", item="item 8", time="2020-01-02T00:00:00Z")
        post(client, late, event(6, user="sorter", item="item 7", time="2020-01-01T00:00:00+00:00"))
        assert history(client, "sorter") == ["item 7", "item 8"]
        assert "adrec_events_total 6.0" in client.get("/metrics").text
        assert "another process writes" in refused("serve", small_run, "--port", "0", "--events", store)
    with serving(small_run, "--events", store) as client:  # a restart
        assert history(client, "newcomer") == ["item 3", "item 4", "unheard"]
        assert post(client, event(1)) == {"stored": 0, "repeated": 1}
    _prepares(small_run, store, tmp_path, first, own)


def _prepares(small_run: Path, store: str, tmp_path: Path, first: str, own: list[str]) -> None:
    """The next data set contains the events, and a service of a model of it does not count them twice."""
    done = adrec("prepare", "--events", store, "--extend", small_run.parent / "data", "--out", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    dataset = open_dataset(tmp_path / "data")
    assert dataset.num_interactions == open_dataset(small_run.parent / "data").num_interactions + 6
    users = dataset.users.ids.to_list()
    items = dataset.catalogue.ids.to_list()
    assert [items[at - 1] for at in dataset.history(users.index("newcomer"))] == ["item 3", "item 4", "unheard"]
    assert "no event that" in refused("prepare", "--events", store, "--extend", "data", "--out", "more", cwd=tmp_path)
    done = adrec("train", "data", "--out", "run", *SMALL, "--max-epochs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with serving(tmp_path / "run", "--events", store) as client:
        assert history(client, "newcomer") == ["item 3", "item 4", "unheard"]
        post(client, event(20, item="item 9"))
        assert history(client, "newcomer") == ["item 3", "item 4", "unheard", "item 9"]
        assert client.delete("/v1/users/newcomer").status_code == 204
        assert client.delete(f"/v1/users/{first}").status_code == 204
        assert history(client, "newcomer") == history(client, first) == []
        assert {each["source"] for each in client.post("/v1/recommend", json={"user": first}).json()["items"]} == {
            "popular"
        }
        post(client, event(21, item="item 5"))
        assert history(client, "newcomer") == ["item 5"]
    with serving(tmp_path / "run", "--events", store) as client:
        assert history(client, "newcomer") == ["item 5"] and history(client, first) == []
    done = adrec("prepare", "--events", store, "--extend", "data", "--out", "third", cwd=tmp_path)
    assert done.returncode == 0 and f"{len(own) + 4} older interactions left out" in done.stderr
    done = adrec("prepare", "--events", store, "--extend", "third", "--out", "fourth", cwd=tmp_path)
    assert done.returncode == 2 and "no event that" in done.stderr
    third = open_dataset(tmp_path / "third")
    assert [third.catalogue.ids[int(at) - 1] for at in third.history(third.users.ids.to_list().index("newcomer"))] == [
        "item 5"
    ]
    assert len(third.history(third.users.ids.to_list().index(first))) == 0


def test_an_erasure_alone_makes_a_data_set(small_run: Path, tmp_path: Path) -> None:
    store = tmp_path / "events.db"
    with serving(small_run, "--events", store) as client:
        assert client.delete("/v1/users/user 7").status_code == 204
    data = small_run.parent / "data"
    done = adrec("prepare", "--events", store, "--extend", data, "--out", tmp_path / "next")
    assert done.returncode == 0, done.stderr
    older, newer = open_dataset(data), open_dataset(tmp_path / "next")
    at = older.users.ids.to_list().index("user 7")
    assert newer.num_interactions == older.num_interactions - len(older.history(at)) and len(newer.history(at)) == 0


def test_an_erased_event_does_not_come_back(small_run: Path, tmp_path: Path) -> None:
    with serving(small_run, "--events", tmp_path / "events.db") as client:
        post(client, event(1, user="a/b", item="item 4"), event(2, user="a/b", item="a secret"))
        assert client.get("/v1/users/a%2Fb").json()["history"] == ["item 4", "a secret"]
        assert client.delete("/v1/users/a%2Fb").status_code == 204
        assert post(client, event(1, user="a/b", item="item 4")) == {"stored": 0, "repeated": 1}
        assert client.get("/v1/users/a%2Fb").status_code == 404
        assert not any(b"a secret" in file.read_bytes() for file in tmp_path.glob("events.db*"))


@pytest.mark.slow
def test_users_who_wait_in_the_data_keep_their_history(tmp_path: Path) -> None:
    rows = "".join(f"u{user},i{(user + at) % 5},{at}\n" for user in range(30) for at in range(6))
    (tmp_path / "t.csv").write_text("user_id,item_id,timestamp\n" + rows)
    options = ("--time-unit", "s", "--min-user", "5")
    assert adrec("prepare", "t.csv", *options, "--out", "data", cwd=tmp_path).returncode == 0
    assert adrec("train", "data", "--out", "run", *SMALL, "--max-epochs", "1", cwd=tmp_path).returncode == 0
    store = tmp_path / "events.db"
    with serving(tmp_path / "run", "--events", store) as client:
        post(client, *(event(at, user="fresh", item=f"i{at}", time=1000 * at) for at in range(3)))
    done = adrec("prepare", "--events", store, "--extend", "data", "--out", "next", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert adrec("train", "next", "--out", "run2", *SMALL, "--max-epochs", "1", cwd=tmp_path).returncode == 0
    with serving(tmp_path / "run2", "--events", store) as client:
        assert history(client, "fresh") == ["i0", "i1", "i2"]
        post(client, event(9, user="fresh", item="i4", time=9000))
        assert history(client, "fresh") == ["i0", "i1", "i2", "i4"]
        assert client.post("/v1/recommend", json={"user": "fresh"}).json()["items"][0]["source"] == "model"


@pytest.mark.slow
def test_ids_and_times_that_the_data_cannot_have(tmp_path: Path) -> None:
    rows = "".join(f"{user},{(user + at) % 5},{at}\n" for user in range(30) for at in range(6))
    (tmp_path / "t.csv").write_text("user_id,item_id,timestamp\n" + rows)
    assert adrec("prepare", "t.csv", "--time-unit", "s", "--out", "data", cwd=tmp_path).returncode == 0
    assert adrec("train", "data", "--out", "run", *SMALL, "--max-epochs", "1", cwd=tmp_path).returncode == 0
    with serving(tmp_path / "run", "--events", tmp_path / "events.db") as client:
        for wrong, field in (
            (event(1, user="abc", item=1), "$.user"),
            (event(1, user=5, item="x"), "$.item"),
            (event(1, user=5, item=2, time="2999-01-01T00:00:00Z"), "$.time"),
            (event(1, user=5, item="1\u0000"), "$.item"),
        ):
            answer = client.post("/v1/events", json=wrong)
            assert answer.status_code == 422 and answer.json()["field"] == field, answer.text
        # In whole seconds these are of one time, so they keep the order in which they were stored.
        times = (5900, 5100, 5500)
        post(client, *(event(10 + at, user="77", item=at, time=time) for at, time in enumerate(times)))
        assert history(client, "77") == [0, 1, 2]
    done = adrec("prepare", "--events", "events.db", "--extend", "data", "--out", "next", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    newer = open_dataset(tmp_path / "next")
    own = newer.history(newer.users.ids.to_list().index(77))
    assert [newer.catalogue.ids[int(at) - 1] for at in own] == [0, 1, 2]


@pytest.mark.slow
def test_an_older_copy_of_the_store_is_refused(small_run: Path, tmp_path: Path) -> None:
    store = tmp_path / "events.db"
    with serving(small_run, "--events", store) as client:
        post(client, event(1))
    shutil.copy(store, tmp_path / "old.db")
    with serving(small_run, "--events", store) as client:
        post(client, event(2), event(3))
    done = adrec("prepare", "--events", store, "--extend", small_run.parent / "data", "--out", tmp_path / "next")
    assert done.returncode == 0, done.stderr
    assert adrec("train", "next", "--out", "run", *SMALL, "--max-epochs", "1", cwd=tmp_path).returncode == 0
    said = refused("serve", tmp_path / "run", "--events", tmp_path / "old.db", "--port", "0")
    assert "older copy" in said


def test_two_names_of_one_store_are_one(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "events.db")
    with serving(small_run, "--events", tmp_path / "events.db"):
        assert "another process writes" in refused("serve", small_run, "--port", "0", "--events", tmp_path / "link.db")


@pytest.mark.slow
def test_a_lost_connection_loses_and_doubles_nothing(small_run: Path, tmp_path: Path) -> None:
    """PostgreSQL ends the service's connections under load: what is acknowledged is there, once, and one writes."""
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres(tmp_path) as url, serving(small_run, "--events", url) as client:
        from adrec.live.store import Store

        sent = 0
        for _ in range(5):
            for _ in range(20):
                sent += 1
                body = event(sent, user="counted", item=f"item {sent}", time=sent)
                while client.post("/v1/events", json=body).status_code != 200:
                    pass
            other = Store(url)
            other.connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            )
            other.close()
        post(client, event(10_000, user="counted", item="last", time=10_000))
        assert history(client, "counted") == [*(f"item {at}" for at in range(1, sent + 1)), "last"]
        assert "another process writes" in refused("serve", small_run, "--port", "0", "--events", url)


def test_without_a_store(small_run: Path) -> None:
    with serving(small_run) as client:
        answer = client.post("/v1/events", json=event(1))
        assert answer.status_code == 409 and "--events" in answer.json()["detail"]
        assert client.delete("/v1/users/user 1").status_code == 409


def test_what_is_no_event(small_run: Path, tmp_path: Path) -> None:
    with serving(small_run, "--events", tmp_path / "events.db") as client:
        for body, field in (
            ({"user": "a", "item": "b"}, "$"),
            (event(1, time="yesterday"), "$.time"),
            (event(1, time="2020-01-01T00:00:00"), "$.time"),
            (event(1, time=-1), "$.time"),
            (event(1, time="1960-01-01T00:00:00Z"), "$.time"),
            ([event(1), event(2, event=5)], "$[1].event"),
            (event(1, user=""), "$.user"),
            (event(1, color="red"), "$"),
            ([event(at) for at in range(1001)], "$"),
        ):
            answer = client.post("/v1/events", json=body)
            assert answer.status_code == 422 and answer.json()["field"] == field, answer.text
        assert post(client) == {"stored": 0, "repeated": 0}
        assert history(client, "newcomer") == []


def test_what_is_no_store(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, " * 100)
    assert "cannot be used" in refused("serve", small_run, "--events", tmp_path / "text.db", "--port", "0")
    assert "is no store" in refused("prepare", "--events", tmp_path / "none.db", "--out", tmp_path / "out")
    assert "give one of the two" in refused("prepare", "--out", tmp_path / "out")
    said = refused("serve", small_run, "--events", "postgresql://nobody@127.0.0.1:9/none", "--port", "0")
    assert "cannot be used" in said
    said = refused("serve", small_run, "--events", "postgresql://someone:secret@127.0.0.1:9/none", "--port", "0")
    assert "secret" not in said


@pytest.mark.slow
def test_types_of_events_follow_the_weights(tmp_path: Path) -> None:
    rows = "".join(
        f"u{user},i{(user + at) % 5},{at},{'view' if at % 2 else 'buy'}\n" for user in range(30) for at in range(6)
    )
    (tmp_path / "t.csv").write_text("user_id,item_id,timestamp,event\n" + rows)
    options = ("--event-weights", "buy=1,view=0", "--time-unit", "s")
    assert adrec("prepare", "t.csv", "--event", "event", *options, "--out", "data", cwd=tmp_path).returncode == 0
    assert adrec("train", "data", "--out", "run", *SMALL, "--max-epochs", "1", cwd=tmp_path).returncode == 0
    store = tmp_path / "events.db"
    with serving(tmp_path / "run", "--events", store) as client:
        for wrong in ({}, {"event": "click"}):
            answer = client.post("/v1/events", json=event(1, item="i1", **wrong))
            assert answer.status_code == 422 and answer.json()["field"] == "$.event"
        post(client, event(1, item="i1", event="buy"), event(2, item="i2", event="view"))
    done = adrec("prepare", "--events", store, "--extend", "data", "--out", "next", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    newer = open_dataset(tmp_path / "next")
    own = newer.users.ids.to_list().index("newcomer")
    assert newer.weights is not None
    assert newer.weights[newer.offsets[own] : newer.offsets[own + 1]].tolist() == [1.0, 0.0]


@pytest.mark.slow
def test_kill_loses_nothing_that_was_acknowledged(small_run: Path, tmp_path: Path) -> None:
    store, sent = tmp_path / "events.db", 0
    for _ in range(3):
        process, client = started(small_run, "--events", store)
        for _ in range(30):
            sent += 1
            post(client, event(sent, user="counted", item=f"item {sent % 12}", time=sent))
        process.kill()
        process.wait()
    with serving(small_run, "--events", store) as client:
        assert history(client, "counted") == [f"item {at % 12}" for at in range(1, sent + 1)]
        assert post(client, *(event(at, user="counted") for at in range(1, sent + 1)))["stored"] == 0


@pytest.mark.slow
def test_a_damaged_copy_is_told(small_run: Path, tmp_path: Path) -> None:
    store = tmp_path / "events.db"
    with serving(small_run, "--events", store) as client:
        post(client, *(event(at, item=f"item {at % 9}") for at in range(900)))
    copy = tmp_path / "copy.db"
    shutil.copy(store, copy)
    content = bytearray(copy.read_bytes())
    content[8192:40960] = b"\xff" * (40960 - 8192)
    copy.write_bytes(bytes(content))
    said = refused("serve", small_run, "--events", copy, "--port", "0")
    assert "cannot be used" in said and "Traceback" not in said
