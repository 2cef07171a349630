"""What a request may ask for: attributes, lists as a whole, recent items, reasons and deadlines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from adrec import ADRec
from serve.server import serving

HISTORY = ["item 3", "item 4", "item 5"]


@pytest.fixture(scope="module")
def client(small_run: Path) -> Iterator[httpx.Client]:
    table = pl.DataFrame(
        {
            "item_id": [f"item {at}" for at in range(11)] + ["nowhere"],
            "title": [f"Film {at}" for at in range(11)] + ["Lost"],
            "genre": ["comedy|drama" if at % 3 == 0 else "drama" if at % 3 == 1 else None for at in range(12)],
            "year": [2000 + at // 4 for at in range(12)],
        }
    )
    path = small_run.parent / "items.csv"
    table.write_csv(path)
    with serving(small_run, "--attributes", path, "--names", "title", "--category", "year") as client:
        yield client


@pytest.fixture(scope="module")
def model(small_run: Path) -> ADRec:
    return ADRec.load(small_run, device="cpu")


def ask(client: httpx.Client, **body: Any) -> Any:
    answer = client.post("/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: Any) -> list[Any]:
    return [each["item"] for each in answer["items"]]


def refusal(client: httpx.Client, **body: Any) -> Any:
    answer = client.post("/v1/recommend", json=body)
    assert answer.status_code == 422, answer.text
    return answer.json()


def test_filters_by_attributes(client: httpx.Client) -> None:
    comedies = {f"item {at}" for at in (0, 3, 6, 9)}
    dramas = comedies | {f"item {at}" for at in (1, 4, 7, 10)}
    assert set(ids(ask(client, history=HISTORY, k=12, seen="keep", filter={"genre": "comedy"}))) == comedies
    assert set(ids(ask(client, history=HISTORY, k=12, seen="keep", filter={"genre": ["drama", "none"]}))) == dramas
    both = ask(client, history=HISTORY, k=12, seen="keep", filter={"genre": "comedy", "year": 2001})
    assert set(ids(both)) == {"item 6"}
    listed = ask(client, history=HISTORY, k=12, seen="keep", filter={"genre": "comedy"}, allow=["item 9", "item 1"])
    assert ids(listed) == ["item 9"]
    popular = ask(client, k=12, filter={"genre": "comedy"})
    assert set(ids(popular)) == comedies and {each["source"] for each in popular["items"]} == {"popular"}
    assert ids(ask(client, history=HISTORY, filter={"genre": "western"})) == []
    said = refusal(client, history=HISTORY, filter={"gnere": "comedy"})
    assert said["field"] == "$.filter" and "did you mean 'genre'" in said["detail"]


def test_titles(client: httpx.Client) -> None:
    titles = {each["item"]: each.get("title") for each in ask(client, history=HISTORY, k=12, seen="keep")["items"]}
    assert titles == {f"item {at}": f"Film {at}" for at in range(11)} | {"item 11": None}
    found = client.get("/v1/items", params={"query": "film 1"}).json()["items"]
    assert found == [{"item": "item 1", "title": "Film 1"}, {"item": "item 10", "title": "Film 10"}]
    assert client.get("/v1/items", params={"query": "item 11"}).json()["items"] == [{"item": "item 11"}]
    assert client.get("/v1/items", params={"query": "film", "k": 3}).json()["field"] == "k"
    similar = client.post("/v1/similar", json={"item": "item 1", "k": 2}).json()["items"]
    assert all(each["title"] == each["item"].replace("item", "Film") for each in similar)


def test_lists_as_a_whole(client: httpx.Client, model: ADRec) -> None:
    years = {f"item {at}": str(2000 + at // 4) for at in range(11)}
    capped = ask(client, history=HISTORY, k=6, seen="keep", slate={"per_category": 2})
    table = model.recommend(histories=[HISTORY], k=6, seen="keep", per_category=2, categories=years)
    assert ids(capped) == table["item_id"].to_list()
    diverse = ask(client, history=HISTORY, k=4, slate={"diversity": 0.7})
    assert ids(diverse) == model.recommend(histories=[HISTORY], k=4, diversity=0.7)["item_id"].to_list()
    genre = ask(client, history=HISTORY, k=12, seen="keep", slate={"per_category": 1, "category": "genre"})
    kinds = [int(item.split()[1]) % 3 for item in ids(genre) if item != "item 11"]
    assert kinds.count(0) == kinds.count(1) == 1 and kinds.count(2) == 3  # without a genre there is no limit
    assert refusal(client, slate={"per_category": 1, "category": "color"})["field"] == "$.slate.category"
    assert refusal(client, slate={"category": "genre"})["field"] == "$.slate.category"
    assert refusal(client, slate={"diversity": 2})["field"] == "$.slate.diversity"


def test_recent_items_alone_are_left_out(client: httpx.Client, model: ADRec) -> None:
    users = model.recommender().dataset.users.ids.to_list()[:20]
    for within in ("2s", "5s"):
        table = model.recommend(users=users, k=12, seen_within=within)
        for user in users:
            assert (
                ids(ask(client, user=user, k=12, seen_within=within)) == table.filter(user_id=user)["item_id"].to_list()
            )
    assert refusal(client, user=users[0], seen_within="soon")["field"] == "$.seen_within"
    assert refusal(client, user=users[0], seen_within="2s", seen="keep")["field"] == "$.seen"


def test_reasons(client: httpx.Client, model: ADRec) -> None:
    answer = ask(client, history=HISTORY, k=2, seen="keep", explain=3)
    engine = model.recommender().engine
    expected = engine.reasons(engine.numbers(HISTORY), ids(answer), 3)
    for item, reasons in zip(answer["items"], expected, strict=True):
        assert [each["item"] for each in item["why"]] == [each.item for each in reasons]
        assert all(each["title"] == each["item"].replace("item", "Film") for each in item["why"])
        assert [each["change"] for each in item["why"]] == pytest.approx([each.change for each in reasons], abs=1e-5)
    assert "why" not in ask(client, history=HISTORY)["items"][0]
    assert "why" not in ask(client, explain=3)["items"][0]  # popular
    assert refusal(client, history=HISTORY, explain=1000)["field"] == "$.explain"


def test_deadlines(client: httpx.Client) -> None:
    assert ask(client, history=HISTORY, deadline_ms=2000)
    assert refusal(client, history=HISTORY, deadline_ms=0)["field"] == "$.deadline_ms"
