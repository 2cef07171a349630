"""Lists that were shown are judged by the next interaction of their users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.evaluate.served import evaluate_served
from adrec.evaluate.significance import paired_difference, unpaired_difference
from adrec.utils.errors import DataError


def dataset() -> Dataset:
    """Return users u0.. with one interaction with item i1 at 100 s and with item i2 at 200 s."""
    rows = [(f"u{user}", item, time) for user in range(40) for item, time in (("i1", 100), ("i2", 200))]
    table = pl.DataFrame(
        [*rows, ("x", "i3", 50), ("x", "i4", 60)], schema=["user_id", "item_id", "timestamp"], orient="row"
    )
    return prepare(table, time_unit="s")


def line(user: Any, seconds: float, items: list[str], model: str = "a" * 16, **more: Any) -> dict[str, Any]:
    return {"time_ms": int(1000 * seconds), "user": user, "run": "run", "model": model, "items": items, **more}


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines) + '{"time_ms":1,"cut')
    return path


def test_the_last_list_before_an_interaction_counts(tmp_path: Path) -> None:
    log = write(
        tmp_path / "log",
        line("u0", 150, ["i3", "i2"]),  # the next is i2: rank 1
        line("u0", 120, ["i2", "i3"]),  # another list follows before i2
        line("u0", 200, ["i1"]),  # nothing follows
        line("u1", 0, ["i2", "unheard"]),  # the next is i1: a miss
        line("u1", 99.9, ["i9", "i1", "i2"]),  # and this one is the last before it
        line("nobody", 0, ["i1"]),
    )
    found = evaluate_served(log, dataset(), [1, 2, 5])
    assert (found.num_lists, found.unknown, found.waiting) == (6, 1, 3)
    (lists,) = found.models.values()
    assert sorted(lists.ranks) == [1, 1] and found.cutoffs == (1, 2)
    metrics = found.metrics(lists)
    assert (metrics["hr@1"].mean, metrics["hr@2"].mean) == (0, 1)
    assert metrics["ndcg@2"].mean == pytest.approx(1 / np.log2(3))


def test_a_shadow_is_compared_in_pairs(tmp_path: Path) -> None:
    good, bad = ["i1", "i3"], ["i3", "i1"]
    lines = [
        line(f"u{user}", 10, bad, shadow={"run": "new", "model": "b" * 16, "items": good if user < 30 else bad})
        for user in range(40)
    ]
    lines.append(line("u1", 150, bad, shadow={"run": "new", "model": "b" * 16, "error": "it fell over"}))
    found = evaluate_served(write(tmp_path / "log", *lines), dataset(), [1])
    difference = found.differences()["a" * 16, "b" * 16, "paired"]["hr@1"]
    values = np.array([1.0] * 30 + [0.0] * 10)
    assert difference.estimate.mean == -0.75
    assert difference.p <= 3 * paired_difference(np.zeros(40), values).p + 1e-9 and difference.num_users == 40


def test_shares_of_the_users_are_compared_without_pairs(tmp_path: Path) -> None:
    among = ["a" * 16, "b" * 16]
    lines = [
        line(f"u{user}", 10, ["i1"] if user % 2 else ["i3"], model=among[user % 2], among=among) for user in range(40)
    ]
    lines += [line("u1", 150, ["i1"], model=among[0], among=among)]  # in both, as the shares were changed
    found = evaluate_served(write(tmp_path / "log", *lines), dataset(), [1])
    difference = found.differences()["a" * 16, "b" * 16, "unpaired"]["hr@1"]
    assert difference.estimate.mean == -1 and difference.p < 0.01 and difference.num_users == 39
    same = unpaired_difference(np.array([1.0, 0, 1, 0]), np.array([0.0, 1, 1, 0]))
    assert same.estimate.mean == 0 and same.p == 1 and same.estimate.low < 0 < same.estimate.high


def test_models_one_after_the_other_are_not_compared(tmp_path: Path) -> None:
    lines = [line(f"u{user}", 10, ["i1"], model=("b" if user % 2 else "a") * 16) for user in range(40)]
    found = evaluate_served(write(tmp_path / "log", *lines), dataset(), [1])
    assert len(found.models) == 2 and found.differences() == {}


def test_empty_lists_and_lines_that_a_crash_has_cut(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = json.dumps(line("u1", 0, []), separators=(",", ":"))
    log.write_text(first[:30] + "\n" + first + "\n" + json.dumps(line("u2", 0, ["i1"])) + "\n")
    found = evaluate_served(log, dataset(), [1])
    (lists,) = found.models.values()
    assert found.damaged == 1 and sorted(lists.ranks) == [0, 1_000_000]


def test_the_p_value_of_groups_is_that_of_all_divisions() -> None:
    from itertools import combinations

    ours, theirs = np.array([0.9, 0.4, 0.8]), np.array([0.1, 0.5, 0.2, 0.3])
    both, observed = np.concatenate([ours, theirs]), ours.mean() - theirs.mean()
    divisions = [both[list(each)].mean() - np.delete(both, list(each)).mean() for each in combinations(range(7), 3)]
    exact = np.mean(np.abs(divisions) >= abs(observed) - 1e-12)
    assert unpaired_difference(ours, theirs).p == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize(
    "content", ["", '{"user": 1}\n', "no json\n", '{"time_ms":1,"user":[],"run":"r","model":"m","items":[]}\n']
)
def test_what_is_no_log(tmp_path: Path, content: str) -> None:
    (tmp_path / "log").write_text(content)
    with pytest.raises(DataError, match=r"no line of a log|no list"):
        evaluate_served(tmp_path / "log", dataset(), [1])


def test_nothing_follows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no interaction of"):
        evaluate_served(write(tmp_path / "log", line("u0", 300, ["i1"])), dataset(), [1])
    order = prepare(pl.DataFrame({"user": [1, 1, 2, 2], "item": [1, 2, 1, 2], "time": [1, 2, 1, 2]}), time_unit="none")
    with pytest.raises(DataError, match="only give an order"):
        evaluate_served(write(tmp_path / "log", line(1, 0, ["1"])), order, [1])
