"""What adrec inspect tells of a data set: by hand on a small one, as pictures, and what it warns of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from adrec.config.adrec import preset
from adrec.data.dataset import write_dataset
from adrec.data.prepare import prepare
from adrec.data.summary import inspect, warnings
from command import adrec, refused

DAY = 86400
ROWS = [
    *[("a", item, 1_600_000_000 + DAY * day) for day, item in enumerate(("x", "y", "x", "z", "w"))],
    *[("b", item, 1_600_000_000 + DAY * day) for day, item in enumerate(("y", "x", "y"))],
    ("c", "x", 1_600_000_000),
]
TABLE = pl.DataFrame(ROWS, schema=["user", "item", "time"], orient="row")


def test_figures_by_hand() -> None:
    facts = inspect(prepare(TABLE, name="small"), max_length=2)
    assert (facts.users, facts.items, facts.interactions, facts.single) == (3, 4, 9, 1)
    assert facts.density == 9 / 12
    assert facts.history_length == {
        "mean": 3.0,
        **{"min": 1.0, "25 %": 1.0, "50 %": 3.0, "75 %": 5.0, "90 %": 5.0, "99 %": 5.0, "max": 5.0},
    }
    assert facts.popularity["max"] == 4
    assert facts.top_share == 4 / 9  # of four items the hundredth is one
    assert facts.repeats == pytest.approx(2 / 9)
    assert (facts.first, facts.last) == ("2020-09-13T12:26:40Z", "2020-09-17T12:26:40Z")
    assert facts.same_time == 0
    # Training: x y x of a, y of b, x of c; a's two inputs fill the window.
    assert facts.trained == 5 / 9
    assert facts.window_used == 1
    assert facts.beyond_window == 0
    assert facts.held_out["validation"] == {"interactions": 2, "users": 2, "cold_items": 1, "cold_users": 0}
    assert facts.held_out["test"] == {"interactions": 2, "users": 2, "cold_items": 1, "cold_users": 0}


def test_warnings() -> None:
    said = " ".join(warnings(inspect(prepare(TABLE, seen="leave-out"))))
    for part in ("22.2% of the interactions repeat", "1 user (33.3%)", "2 test users", "50.0% of the test items never"):
        assert part in said
    kept = " ".join(warnings(inspect(prepare(TABLE, seen="keep"))))
    assert "repeat" not in kept and "1 user (33.3%)" in kept
    large = pl.DataFrame({"user": [1, 1, 1] * 400, "item": range(1200), "time": range(1200)})
    quiet = prepare(large.with_columns(user=pl.col("item") // 3), split="none")
    assert list(warnings(inspect(quiet))) == []


def times(*of: Sequence[int]) -> pl.DataFrame:
    at = [each for some in of for each in some]
    return pl.DataFrame(
        {"user": [f"u{n % 7}" for n in range(len(at))], "item": [f"i{n % 3}" for n in range(len(at))], "time": at}
    )


def days(first: int, number: int) -> range:
    return range(1_600_000_000 + DAY * first, 1_600_000_000 + DAY * (first + number), DAY)


@pytest.mark.parametrize(
    ("table", "number"),
    [
        (times([0], days(0, 90)), 1),
        (times([0] * 6, days(0, 94)), 6),
        (times(days(0, 90), [16_000_000_000]), 1),  # a digit too many
        (times([0], days(0, 90), [16_000_000_000] * 2), 3),
        (times(days(0, 11), days(70, 90)), 0),  # more than a tenth: a shop that had closed
        (times(days(0, 9), days(9 + 5 * 90, 91)), 9),  # a gap of more than five times the rest
        (times(days(0, 9), days(7 + 5 * 90, 91)), 0),
        (times([day * DAY * 3 for day in range(50)], [50 * 3 * DAY + 60 * minute for minute in range(9000)]), 0),
        (times([0], [1_490_000_000 + 3600 * hour for hour in range(2000)], [2_114_380_800]), 2),  # hide each other?
        (times([0] * 4, days(0, 92), [16_000_000_000] * 4), 8),
        (times([0], [40_000_000], days(0, 98)), 2),  # one behind the other
        (times([1_600_000_000] * 9), 0),
        (times([1_600_000_000] * 19, [1_700_000_000]), 0),  # all others at one moment: no span to be far from
    ],
)
def test_times_far_from_the_others_are_told(table: pl.DataFrame, number: int) -> None:
    facts = inspect(prepare(table, time_unit="s"))
    assert facts.far_times == number
    assert any("far from all others" in each for each in warnings(facts)) is (number > 0)


def test_what_is_told_of_far_times() -> None:
    told = [each for each in warnings(inspect(prepare(times([0], days(0, 2), days(2, 88))))) if "far from" in each]
    assert len(told) == 1
    assert told[0].startswith(
        "1 interaction is far from all others in time: those run from 2020-09-13T12:26:40Z to 2020-12-11T12:26:40Z, "
        "the data from 1970-01-01T00:00:00Z to 2020-12-11T12:26:40Z."
    )
    assert inspect(prepare(times(range(20), [10**6]))).far_times == 0, "these only give an order"


def test_the_window_is_the_default_models() -> None:
    assert inspect(prepare(TABLE)).max_length == preset().model.max_length


def test_items_of_an_older_vocabulary() -> None:
    older = prepare(TABLE)
    facts = inspect(prepare(TABLE.filter(pl.col("user") == "b"), vocabulary=older))
    assert (facts.users, facts.items, facts.never) == (1, 4, 2)
    assert "2 items of the vocabulary" in " ".join(warnings(facts))


@pytest.mark.parametrize("split", ["leave-one-out", "time:2020-09-16", "none"])
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_command_line(tmp_path: Path, split: str, ending: str) -> None:
    write_dataset(prepare(TABLE, name="small", split=split), tmp_path / "data")
    picture = tmp_path / f"picture.{ending}"
    done = adrec("inspect", "data", "--picture", picture, "--json", "facts.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "small" in done.stdout
    assert "warning: " in done.stdout
    facts: dict[str, Any] = json.loads((tmp_path / "facts.json").read_text())
    assert (facts["users"], facts["items"], facts["interactions"]) == (3, 4, 9)
    start = picture.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if ending == "png" else b"<svg" in picture.read_bytes()
    assert picture.stat().st_size > 10_000


def test_times_that_only_give_an_order_are_drawn_too(tmp_path: Path) -> None:
    write_dataset(prepare(TABLE.with_columns(time=pl.int_range(9))), tmp_path / "data")
    assert adrec("inspect", "data", "--picture", "p.png", cwd=tmp_path).returncode == 0
    assert ".png, .svg" in refused("inspect", "data", "--picture", "p.pdf", cwd=tmp_path)
    assert "no prepared data set" in refused("inspect", "nothing", cwd=tmp_path)
