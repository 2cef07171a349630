"""A fast part of every kind of fault; ``make torture`` tries them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from torture.damage import cut, damages, flip_head, remove, values
from torture.fuzz import hostile, names, tables
from torture.harness import READING, WRITING, Tally, make_shop
from torture.kills import kills
from torture.places import disks, links, streams, writers
from torture.signals import resumed, signals

BY_NAME = {verb.name: verb for verb in WRITING}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("torture") / "shop")


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.mark.parametrize(
    ("name", "every"),
    [("prepare", 4), ("prepare --overwrite", 5), ("recommend", 2), pytest.param("train", 61, marks=pytest.mark.slow)],
)
def test_kills(shop: Path, tmp_path: Path, tally: Tally, name: str, every: int) -> None:
    kills(shop, tmp_path, tally, [BY_NAME[name]], every=every)
    assert tally.counts and tally.wrong == []


def test_damages(shop: Path, tmp_path: Path, tally: Tally) -> None:
    damages(shop, tmp_path, tally, verbs=[READING[2]], ways=(flip_head, cut, remove))
    assert tally.counts and tally.wrong == []


def test_values(shop: Path, tmp_path: Path, tally: Tally) -> None:
    values(shop, tmp_path, tally, every=23)
    assert tally.counts and tally.wrong == []


def test_writers(shop: Path, tmp_path: Path, tally: Tally) -> None:
    writers(shop, tmp_path, tally, rounds=1)
    assert tally.counts and tally.wrong == []


@pytest.mark.slow
def test_links_and_streams(shop: Path, tmp_path: Path, tally: Tally) -> None:
    links(shop, tmp_path, tally)
    streams(shop, tmp_path, tally)
    assert len(tally.counts) == 3 and tally.wrong == []


def test_disks(shop: Path, tmp_path: Path, tally: Tally) -> None:
    disks(shop, tmp_path, tally, [BY_NAME[name] for name in ("prepare", "recommend to CSV", "train")], (4, 16, 64))
    assert tally.wrong == []


@pytest.mark.slow
def test_fuzz(shop: Path, tmp_path: Path, tally: Tally) -> None:
    tables(shop, tmp_path, tally, rounds=8, seed=1)
    names(shop, tmp_path, tally)
    assert tally.counts and tally.wrong == []


@pytest.mark.slow
def test_hostile_files(shop: Path, tmp_path: Path, tally: Tally) -> None:
    hostile(shop, tmp_path, tally)
    assert tally.counts and tally.wrong == []


@pytest.mark.slow
def test_signals(shop: Path, tmp_path: Path, tally: Tally) -> None:
    signals(shop, tmp_path, tally, rounds=2)
    resumed(shop, tmp_path, tally, rounds=1)
    assert tally.counts and tally.wrong == []
