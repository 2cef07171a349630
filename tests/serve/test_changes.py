"""Models change while requests come: reload, rollback, a share of the users, a shadow."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from adrec import ADRec
from adrec.serve.models import share_of
from command import SMALL, adrec, refused
from conftest import cyclic_table
from serve.server import serving

HISTORY = ["item 3", "item 4"]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of other data, with more items."""
    folder = tmp_path_factory.mktemp("other")
    cyclic_table(num_users=90, num_items=20, seed=5).write_csv(folder / "table.csv")
    assert adrec("prepare", "table.csv", "--out", "data", cwd=folder).returncode == 0
    assert adrec("train", "data", "--out", "run", *SMALL, "--max-epochs", "2", cwd=folder).returncode == 0
    return folder / "run"


def ids(client: httpx.Client, **body: Any) -> list[Any]:
    return [each["item"] for each in client.post("/v1/recommend", json=body).json()["items"]]


def expected(run: Path, k: int = 3) -> list[Any]:
    found: list[Any] = ADRec.load(run, device="cpu").recommend(histories=[HISTORY], k=k)["item_id"].to_list()
    return found


@pytest.mark.slow
def test_reload_and_rollback_under_load(small_run: Path, other: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(small_run)
    first, second = expected(small_run), expected(other)
    assert first != second
    with serving(link) as client:
        answers, ends = list[list[Any]](), threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=client.base_url, trust_env=False) as own:
                while not ends.is_set():
                    answer = own.post("/v1/recommend", json={"history": HISTORY, "k": 3})
                    answers.append([each["item"] for each in answer.json()["items"]] if answer.is_success else [])

        thread = threading.Thread(target=ask)
        thread.start()
        assert client.post("/v1/model/rollback").status_code == 409
        old = client.get("/v1/model").json()
        for _ in range(3):
            link.unlink()
            link.symlink_to(other)
            new = client.post("/v1/model/reload").json()
            assert (new["items"], new["previous"]) == (20, old["model"]) and new["model"] != old["model"]
            assert ids(client, history=HISTORY, k=3) == second
            back = client.post("/v1/model/rollback").json()
            assert back["model"] == old["model"]
            assert ids(client, history=HISTORY, k=3) == first
        ends.set()
        thread.join()
        assert len(answers) > 5 and {tuple(each) for each in answers} == {tuple(first), tuple(second)}
        assert f'digest="{old["model"]}"' in client.get("/metrics").text


def test_a_broken_run_is_refused_and_the_old_one_goes_on(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ADRec.load(small_run, device="cpu").save(run)
    wanted = expected(small_run)
    with serving(run) as client:
        weights = run / "weights.safetensors"
        whole = weights.read_bytes()
        for damage in (
            lambda: weights.write_bytes(whole[:-40] + bytes(40)),
            weights.unlink,
            lambda: shutil.rmtree(run),
        ):
            damage()
            answer = client.post("/v1/model/reload")
            assert answer.status_code == 409 and "the model goes on" in answer.json()["detail"]
            assert ids(client, history=HISTORY, k=3) == wanted
            assert client.get("/readyz").status_code == 200


@pytest.mark.slow
def test_what_is_evaluated_is_told(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    with serving(run, "--data", small_run.parent / "data") as client:
        assert client.get("/v1/model").json()["accuracy"] is None
        done = adrec("evaluate", run, "--data", small_run.parent / "data", "--json", tmp_path / "found.json")
        assert done.returncode == 0, done.stderr
        about = client.post("/v1/model/reload").json()
        metrics = json.loads((tmp_path / "found.json").read_text())["metrics"]
        assert about["accuracy"] == {name: each["mean"] for name, each in metrics.items()}
        assert "test part of leave-one-out" in about["protocol"] and "left out" in about["protocol"]


@pytest.mark.slow
def test_a_share_of_the_users_and_a_shadow(small_run: Path, other: Path, tmp_path: Path) -> None:
    log = tmp_path / "shown.jsonl"
    options = ("--split", f"{other}=40%", "--shadow", other, "--log", log)
    with serving(small_run, *options) as client:
        answers = {
            f"user {at}": client.post("/v1/recommend", json={"user": f"user {at}", "k": 3}).json() for at in range(60)
        }
        old = client.get("/v1/model").json()["model"]
        anonymous = client.post("/v1/recommend", json={"history": HISTORY}).json()
    assert anonymous["model"] == old
    for user, answer in answers.items():
        assert (answer["model"] != old) == (share_of(user) < 0.4)
    assert 10 < sum(answer["model"] != old for answer in answers.values()) < 40
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    shown = {line["user"]: line for line in lines}
    assert set(shown) == set(answers)
    for user, answer in answers.items():
        assert shown[user]["items"] == [each["item"] for each in answer["items"]]
        assert shown[user]["model"] == answer["model"]
        assert shown[user]["time_ms"] > 1.7e12
    theirs = ADRec.load(other, device="cpu").recommend(users=["user 1"], k=3)["item_id"].to_list()
    assert shown["user 1"]["shadow"]["items"] == theirs


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_a_full_disk_stops_the_log_alone(small_run: Path) -> None:
    with serving(small_run, "--log", "/dev/full", "--shadow", small_run) as client:
        for at in range(200):
            assert len(ids(client, user=f"user {at % 50}", k=1)) == 1
        assert client.get("/readyz").status_code == 200
        assert "adrec_unlogged_lists 0.0" not in client.get("/metrics").text


@pytest.mark.slow
def test_each_list_is_logged_and_the_shadow_sees_what_was_known_then(small_run: Path, tmp_path: Path) -> None:
    log = tmp_path / "shown.jsonl"
    with serving(small_run, "--shadow", small_run, "--log", log, "--events", tmp_path / "events.db") as client:
        for at in range(300):
            body = [{"user": f"user {at % 40}", "k": 3}] * 4
            assert client.post("/v1/recommend", json=body).status_code == 200
            event = {"event_id": f"e{at}", "user": f"user {at % 40}", "item": f"item {at % 12}"}
            assert client.post("/v1/events", json=event).status_code == 200
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 1200
    both = [line for line in lines if "shadow" in line]
    assert both and all(line["shadow"]["items"] == line["items"] for line in both)


def test_shares_that_make_no_sense(small_run: Path) -> None:
    for share in ("run", "run=10", "run=0%", "run=100%", "=5%"):
        assert "--split takes a run and a share" in refused("serve", small_run, "--split", share)
    said = refused("serve", small_run, "--split", "a=60%", "--split", "b=40%")
    assert "leave some users" in said
    assert "--log" in refused("serve", small_run, "--shadow", small_run)
