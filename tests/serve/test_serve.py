"""The service over real HTTP: it answers as ``adrec recommend`` does, and refuses in problems that name the field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from adrec import ADRec
from adrec.serve.keys import new_key
from command import refused
from serve.server import serving


@pytest.fixture(scope="module")
def client(small_run: Path) -> Iterator[httpx.Client]:
    with serving(small_run) as client:
        yield client


@pytest.fixture(scope="module")
def model(small_run: Path) -> ADRec:
    return ADRec.load(small_run, device="cpu")


def ask(client: httpx.Client, body: Any) -> Any:
    answer = client.post("/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def items(answer: Any) -> list[Any]:
    return [each["item"] for each in answer["items"]]


def test_it_answers_as_the_command_line_does(client: httpx.Client, model: ADRec) -> None:
    users = model.recommender().dataset.users.ids.to_list()
    for seen in ("data", "keep", "leave-out"):
        answers = ask(client, [{"user": user, "k": 5, "seen": seen} for user in users])
        table = model.recommend(users=users, k=5, seen=seen)
        for user, answer in zip(users, answers, strict=True):
            expected = table.filter(user_id=user)
            assert items(answer) == expected["item_id"].to_list()
            for name in ("score", "confidence"):
                assert [each[name] for each in answer["items"]] == pytest.approx(
                    expected[name].to_list(), rel=1e-4, abs=1e-5
                )
            assert {each["source"] for each in answer["items"]} == {"model"}
            assert answer["history"]["interactions"] == answer["history"]["known"] > 0


def test_histories_lists_and_rules(client: httpx.Client, model: ADRec) -> None:
    history = ["item 3", "item 4", "nowhere", "item 5"]
    answer = ask(client, {"history": history, "k": 3})
    expected = model.recommend(histories=[history], k=3)
    assert items(answer) == expected["item_id"].to_list()
    assert answer["history"] == {"interactions": 4, "known": 3}
    allowed = ask(client, {"history": history, "k": 9, "allow": ["item 1", "item 7", "nowhere"], "block": ["item 7"]})
    assert items(allowed) == ["item 1"]
    rules = {"items": ["item 1", "item 7"], "exclude": ["item 7"]}
    assert items(allowed) == model.recommend(histories=[history], k=9, **rules)["item_id"].to_list()
    both = ask(client, {"user": "user 1", "history": ["item 0"], "k": 4})
    dataset = model.recommender().dataset
    own = dataset.history(dataset.users.ids.to_list().index("user 1"))
    whole = [*dataset.catalogue.decode(own.astype(int) - 1).to_list(), "item 0"]
    assert items(both) == model.recommend(histories=[whole], k=4)["item_id"].to_list()
    assert ask(client, []) == []


def test_who_is_unknown_gets_what_is_popular(client: httpx.Client, model: ADRec) -> None:
    for body in ({}, {"user": "nobody"}, {"history": ["nowhere"]}):
        answer = ask(client, {**body, "k": 3})
        assert {each["source"] for each in answer["items"]} == {"popular"}
        assert items(answer) == model.recommend(histories=[["nowhere"]], k=3)["item_id"].to_list()
        assert answer["history"]["known"] == 0 and answer["items"][0]["confidence"] is None


def test_the_rest_of_the_interface(client: httpx.Client, model: ADRec, small_run: Path) -> None:
    about = client.get("/v1/model").json()
    assert (about["run"], about["items"], about["seen"]) == ("run", 12, "leave-out")
    similar = client.post("/v1/similar", json={"item": "item 1", "k": 4}).json()["items"]
    expected = model.similar_items(["item 1"], k=4)
    assert [each["item"] for each in similar] == expected["similar_item"].to_list()
    assert [each["score"] for each in similar] == pytest.approx(expected["score"].to_list(), rel=1e-4, abs=1e-5)
    found = client.get("/v1/items", params={"query": "ITEM 1"}).json()["items"]
    assert sorted(each["item"] for each in found) == ["item 1", "item 10", "item 11"]
    user = client.get("/v1/users/user 1").json()
    assert user["user"] == "user 1" and len(user["history"]) > 3
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    page = client.get("/metrics").text
    assert 'adrec_requests_total{path="/v1/similar",status="200"} 1.0' in page and "adrec_batch_queries_count" in page
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path in ("/v1/recommend", "/v1/similar"):
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert client.post(path, json=example).status_code in (200, 404)


@pytest.mark.parametrize(
    ("body", "status", "field", "said"),
    [
        ('{"k": 0}', 422, "$.k", "Expected `int` >= 1"),
        ('{"k": "3"}', 422, "$.k", "Expected `int`, got `str`"),
        ('{"k": 1000000000}', 422, "$.k", "k is at most 500"),
        ('{"histori": []}', 422, "$", "unknown field `histori`"),
        ('{"history": [1.5]}', 422, "$.history[0]", "Expected `int | str`, got `float`"),
        ('{"history": [{}]}', 422, "$.history[0]", "got `object`"),
        ('[{"k": 2}, {"seen": "no"}]', 422, "$[1].seen", "Invalid enum value 'no'"),
        ("{", 400, None, "is not JSON"),
        ("[" * 100_000, 422, "$[0]", "got `array`"),
        ('{"k": NaN}', 400, None, "is not JSON"),
        ('"x"', 422, "$", "Expected `object | array`"),
        (b'{"user": "\xff"}', 400, None, "is not JSON"),
        ('{"user": "\\ud800"}', 400, None, "is not JSON"),
        (json.dumps({"history": ["x"] * 1001}), 422, "$.history", "at most 1000 items"),
        (json.dumps([{}] * 257), 422, "$", "at most 256 requests"),
        ('{"user": "' + "x" * (1 << 20) + '"}', 413, None, "more than 1,048,576 bytes"),
    ],
)
def test_a_bad_request_is_a_problem_that_names_the_field(
    client: httpx.Client, body: str | bytes, status: int, field: str | None, said: str
) -> None:
    answer = client.post("/v1/recommend", content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["status"], found.get("field")) == (status, field)
    assert said in found["detail"], found


def test_other_paths_and_methods(client: httpx.Client) -> None:
    for answer, status in (
        (client.get("/nowhere"), 404),
        (client.get("/v1/recommend"), 405),
        (client.post("/v1/similar", json={"item": "nowhere"}), 404),
        (client.get("/v1/users/nobody"), 404),
        (client.get("/v1/items"), 422),
    ):
        assert answer.status_code == status
        assert answer.json()["status"] == status and answer.headers["content-type"] == "application/problem+json"


def test_many_at_a_time_are_answered_together_and_alike(client: httpx.Client) -> None:
    bodies = [{"history": [f"item {at % 12}", f"item {(at + 1) % 12}"], "k": 1 + at % 4} for at in range(400)]
    alone = [ask(client, body) for body in bodies]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda body: ask(client, body), bodies))
    assert [items(each) for each in alone] == [items(each) for each in together]


def test_keys(small_run: Path, tmp_path: Path) -> None:
    key, digest = new_key()
    (tmp_path / "keys").write_text(f"# shop\n{digest}\n\n")
    with serving(small_run, "--api-key-file", tmp_path / "keys", "--host", "0.0.0.0") as client:
        local = str(client.base_url).replace("0.0.0.0", "127.0.0.1")
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer x"}, 401),
            ({"Authorization": f"Bearer {key}"}, 200),
            ({"X-API-Key": key}, 200),
            ({"X-API-Key": digest}, 401),
        ):
            assert httpx.get(f"{local}/v1/model", headers=headers, trust_env=False).status_code == status
        assert httpx.get(f"{local}/healthz", trust_env=False).status_code == 200
    for text, said in (("", "has no key"), ("abc\n", "line 1 is no digest of a key")):
        (tmp_path / "keys").write_text(text)
        assert said in refused("serve", small_run, "--api-key-file", tmp_path / "keys")


def test_what_cannot_be_served_is_refused(small_run: Path, tmp_path: Path) -> None:
    assert "can be reached from other machines" in refused("serve", small_run, "--host", "0.0.0.0")
    assert "is not a run folder" in refused("serve", tmp_path, "--port", "0")
    assert "cannot be listened on" in refused("serve", small_run, "--host", "203.0.113.1", "--insecure")


def test_pages_of_other_sites_may_not_ask(client: httpx.Client) -> None:
    body = {"history": ["item 1"]}
    own = str(client.base_url).rstrip("/")
    assert client.post("/v1/recommend", json=body, headers={"Origin": own}).status_code == 200
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
        answer = client.post("/v1/recommend", json=body, headers=headers)
        assert answer.status_code == 403 and answer.headers["content-type"] == "application/problem+json"


def test_values_beyond_all_bounds(client: httpx.Client) -> None:
    for body, field in (
        ('{"deadline_ms": 1' + "0" * 400 + "}", "$.deadline_ms"),
        ('{"user": 1' + "0" * 30 + "}", "$.user"),
        ('{"user": "a\\u0000b"}', "$.user"),
        ('{"k": 400, "slate": {"diversity": 0.5}}', "$.k"),
        (json.dumps({"filter": {"x": ["y"] * 2000}}), "$.filter"),
        (json.dumps([{"history": ["item 1"], "explain": 1}] * 17), "$"),
    ):
        answer = client.post("/v1/recommend", content=body)
        assert answer.status_code in (400, 422), answer.text
        assert answer.status_code == 400 or answer.json()["field"] == field, answer.text
    assert client.get("/v1/users/" + "x" * 5000).status_code == 422
    assert client.get("/v1/users/a%00b").status_code == 422
