"""Event weights: how they are read, kept through filters, files and extensions, and what they leave out of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrec import ADRec
from adrec.data.batch import training_batch
from adrec.data.dataset import Dataset, open_dataset, write_dataset
from adrec.data.prepare import prepare
from adrec.data.split import make_split
from adrec.data.weights import parse_weights
from adrec.utils.errors import ConfigError, DataError
from command import TRAIN_FAST, adrec, refused

WEIGHTS = "purchase=1, cart=0.5,view=0"
KINDS = ("purchase", "cart", "view")
rows = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 9), st.sampled_from(KINDS)), min_size=3, max_size=40
).filter(lambda rows: len({item for _, item, *_ in rows}) > 1 and any(kind != "view" for *_, kind in rows))


def frame(rows: list[tuple[int, int, int, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user", "item", "time", "event"], orient="row")


def weights_by_pair(dataset: Dataset) -> list[tuple[int, int, int, float]]:
    """Return user, item, time and weight of each interaction, in order."""
    assert dataset.weights is not None
    owners = np.repeat(dataset.users.ids.to_numpy(), np.diff(dataset.offsets))
    items = dataset.catalogue.decode(np.asarray(dataset.items).astype(int) - 1).to_list()
    return list(zip(owners.tolist(), items, dataset.times.tolist(), dataset.weights.tolist(), strict=True))


def test_weights_are_parsed() -> None:
    assert parse_weights(WEIGHTS) == {"purchase": 1.0, "cart": 0.5, "view": 0.0}
    assert parse_weights("a=b=2") == {"a=b": 2.0}
    for text in ("purchase", "=1", "view=-1", "view=nan", "view=inf", "view=x", "view=1,", ""):
        with pytest.raises(ConfigError, match=r"event_weights has .* write purchase=1"):
            parse_weights(text)
    with pytest.raises(ConfigError, match="names 'view' twice"):
        parse_weights("view=1,view=2")
    with pytest.raises(ConfigError, match="every weight is 0"):
        parse_weights("view=0")


@given(rows)
def test_each_interaction_has_the_weight_of_its_event(rows: list[tuple[int, int, int, str]]) -> None:
    dataset = prepare(frame(rows), event_weights=WEIGHTS)
    known = parse_weights(WEIGHTS)
    expected = sorted((user, item, time, known[event]) for user, item, time, event in rows)
    assert sorted(weights_by_pair(dataset)) == expected


@given(rows, rows, st.sampled_from([{}, {"min_item": 2}, {"min_user": 2}, {"duplicates": "exact"}]))
def test_extending_keeps_weights(
    old: list[tuple[int, int, int, str]], new: list[tuple[int, int, int, str]], options: dict[str, Any]
) -> None:
    new = [(user, item, time + 10, event) for user, item, time, event in new]
    try:
        base = prepare(frame(old), event_weights=WEIGHTS, split="none", **options)
    except DataError:  # filters left nothing
        return
    extended = prepare(frame(new), extend=base, split="none")
    together = prepare(frame(old + new), event_weights=WEIGHTS, split="none", **options)
    assert sorted(weights_by_pair(extended)) == sorted(weights_by_pair(together))


def test_files_keep_weights_and_the_fingerprint_tells_them(tmp_path: Path) -> None:
    table = frame([(1, item, item, KINDS[item % 2]) for item in range(6)])
    weighed, plain = prepare(table, event_weights=WEIGHTS), prepare(table)
    assert weighed.fingerprint != plain.fingerprint
    assert plain.weights is None
    write_dataset(weighed, tmp_path / "data")
    again = open_dataset(tmp_path / "data")
    again.verify()
    assert again.weights is not None
    assert again.weights.tolist() == [1.0, 0.5] * 3


def test_events_of_weight_0_do_not_test() -> None:
    table = frame(
        [(user, item, item, "view" if user == 1 and item == 4 else "purchase") for user in (1, 2) for item in range(5)]
    )
    dataset = prepare(table, event_weights=WEIGHTS)
    split = make_split(dataset)
    assert split.test.positions.tolist() == [3, 9], "the last purchase, not the view after it"
    assert split.validation.positions.tolist() == [2, 8]
    assert split.train_ends.tolist() == [2, 8]
    by_time = prepare(table, event_weights=WEIGHTS, split="time:3,4")
    assert make_split(by_time).test.positions.tolist() == [9]
    assert "1 of 2 that would test do not, as the weight of their event is 0" in by_time.info.notes
    last = make_split(prepare(table, event_weights=WEIGHTS, split="temporal-leave-one-out:2,3"))
    assert last.test.positions.tolist() == [3, 9]
    seldom = table.with_columns(event=pl.when(pl.col("item") == 0, pl.col("user") == 1).then(pl.lit("purchase")))
    alone = prepare(seldom.with_columns(pl.col("event").fill_null("view")), event_weights=WEIGHTS)
    assert len(make_split(alone).test.users) == 0
    assert any("2 of 2 users are not evaluated: fewer than two" in note for note in alone.info.notes)
    with pytest.raises(DataError, match="nobody to test"):
        prepare(table.with_columns(event=pl.lit("view")), event_weights=WEIGHTS, split="time:0.5")


def test_a_batch_has_the_weights_of_its_targets() -> None:
    items, weights = np.arange(1, 8, dtype=np.int32), np.arange(7, dtype=np.float32)
    batch = training_batch(items, np.array([0, 4]), np.array([4, 7]), 2, weights)
    assert batch.targets.tolist() == [3, 4, 6, 7]
    assert batch.weights is not None
    assert batch.weights.tolist() == [2.0, 3.0, 5.0, 6.0]
    part, _ = batch.select(np.array([1]))
    assert part.weights is not None
    assert part.weights.tolist() == [5.0, 6.0]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    table = frame([(1, item, item, "purchase") for item in range(5)])
    with pytest.raises(ConfigError, match="event names a column of event types, which event_weights reads"):
        prepare(table, event="event")
    with pytest.raises(DataError, match="was prepared without event weights"):
        prepare(table, extend=prepare(table.with_columns(time=0)), event_weights=WEIGHTS)
    (tmp_path / "log.csv").write_text("user,item,time,event\n1,a,1,purchase\n1,b,2,remove\n1,c,3,\n")
    log, out = str(tmp_path / "log.csv"), str(tmp_path / "out")
    said = refused("prepare", log, "--out", out, "--event-weights", "purchase=1")
    assert "line 3, column 'event': this type of event has no weight (name it in --event-weights" in said
    assert "'remove'" in said
    assert "has no column 'kind'" in refused("prepare", log, "--out", out, "--event-weights", "a=1", "--event", "kind")


def test_models_that_ignore_weights_say_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = frame(
        [
            (int(user), int(item), time, KINDS[time % 2])
            for time, (user, item) in enumerate(rng.integers(0, 9, (120, 2)))
        ]
    )
    table.write_csv(tmp_path / "log.csv")
    data = tmp_path / "data"
    adrec("prepare", str(tmp_path / "log.csv"), "--out", str(data), "--event-weights", WEIGHTS)
    said = adrec("train", str(data), "--out", str(tmp_path / "ease"), "--model", "ease")
    assert "ease ignores event weights" in said.stdout + said.stderr
    said = adrec("train", str(data), "--out", str(tmp_path / "run"), *TRAIN_FAST)
    assert "ignores event weights" not in said.stdout + said.stderr


def test_counting_models_count_by_weight() -> None:
    table = frame([(1, 1, 0, "cart"), (1, 2, 1, "purchase"), (1, 1, 2, "cart"), (1, 3, 3, "view")])
    dataset = prepare(table, event_weights=WEIGHTS, split="none")
    popular = ADRec(model="popular").fit(dataset)
    assert popular.score(pl.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3]}))["score"].to_list() == [1.0, 1.0, 0.0]
