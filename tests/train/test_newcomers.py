"""Items without interactions get vectors from their features: the regression, and the whole way of a user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import command
from adrec.data.prepare import prepare
from adrec.data.sequences import Sequences
from adrec.data.vectors import read_item_vectors
from adrec.train.newcomers import PENALTIES, Ridge, place_new_items, target_counts
from adrec.utils.errors import DataError
from conftest import cyclic_table


def test_the_leave_one_out_error_is_that_of_leaving_one_out() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(30, 4)), rng.uniform(0.2, 1.0, 30)
    y = x @ rng.normal(size=(4, 3)) + 0.5 + rng.normal(size=(30, 3))
    found = Ridge.of(x, y, w)
    mean, scale = found.mean, found.scale
    a = (x - mean) / scale
    errors = {}
    for penalty in PENALTIES:
        total = 0.0
        for n in range(30):
            kept = np.arange(30) != n
            # the intercept is not penalised
            design = np.column_stack([np.ones(29), a[kept]])
            fence = penalty * np.diag([0.0, 1, 1, 1, 1])
            solved = np.linalg.solve(design.T @ (w[kept, None] * design) + fence, design.T @ (w[kept, None] * y[kept]))
            total += w[n] * ((y[n] - np.r_[1.0, a[n]] @ solved) ** 2).sum()
        errors[penalty] = total
    best = min(errors, key=lambda each: errors[each])
    assert found.penalty == best
    variance = (w[:, None] * (y - w @ y / w.sum()) ** 2).sum()
    assert found.explained == pytest.approx(1 - errors[best] / variance, rel=1e-6)


def test_vectors_of_new_items_follow_their_features() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(41, 3)).astype(np.float32)
    features[0], features[40] = np.nan, np.nan
    slope = rng.normal(size=(3, 8))
    embedding = torch.from_numpy((features @ slope + 1).astype(np.float32)).nan_to_num()
    truth = embedding.clone()
    counts = np.full(41, 9)
    counts[[0, 5, 7, 40]] = 0
    embedding[[5, 7]] = -3.0
    placed = place_new_items(embedding, features, counts)
    assert placed.items.tolist() == [5, 7] and placed.without == 1 and placed.explained > 0.99
    torch.testing.assert_close(embedding, truth, atol=0.02, rtol=0)
    nothing = place_new_items(embedding, features, np.full(41, 9))
    assert len(nothing.items) == 0 and "no vector was predicted" in nothing.sentence()


def test_an_item_that_is_never_a_target_is_new() -> None:
    items = np.array([1, 2, 3, 4, 5, 1, 2], dtype=np.int32)
    weights = np.array([1, 1, 0, 1, 1, 1, 1], dtype=np.float32)
    sequences = Sequences(items, np.array([0, 5]), np.array([5, 7]), 3, weights)
    assert target_counts(sequences, 6).tolist() == [0, 0, 1, 0, 1, 1, 0]  # 1 only begins; 3 weighs nothing


def with_features(path: Path, items: int, more: int) -> pl.DataFrame:
    """Write where each item is on its circle; the last ``more`` items have no interactions, and twins that have."""
    places = np.r_[np.arange(items), np.arange(more) + 0.01]
    angles = 2 * np.pi * places[:, None] * np.array([1, 2, 3]) / items
    values = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    names = [f"item {number}" for number in range(items)] + [f"new {number}" for number in range(more)]
    table = pl.DataFrame({"item_id": names, "vector": values.tolist()})
    table.write_parquet(path)
    return table


@pytest.mark.slow
def test_an_item_without_interactions_is_recommended(tmp_path: Path) -> None:
    cyclic_table(num_users=200).write_csv(tmp_path / "table.csv")
    with_features(tmp_path / "vectors.parquet", 12, 4)
    prepared = command.adrec(
        *("prepare", "table.csv", "--items", "vectors.parquet", "--time-unit", "s", "--out", "data"), cwd=tmp_path
    )
    assert prepared.returncode == 0 and "4 items of the catalogue have no interaction" in prepared.stderr, (
        prepared.stderr
    )
    train = ["train", "data", "--max-epochs", "40", *command.SMALL, "--preset", "fast"]
    for name, given in (("with", ["--item-vectors", "vectors.parquet"]), ("without", [])):
        done = command.adrec(*train, "--out", name, *given, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("4 items that are never a target got vectors" in done.stdout + done.stderr) == bool(given), done.stdout
    lists = {}
    for name in ("with", "without"):
        done = command.adrec(
            *("recommend", name, "--given", "item 8", "--given", "item 9", "--given", "item 10", "--given", "item 11"),
            *("--k", "12", "--out", f"{name}.csv"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        lists[name] = pl.read_csv(tmp_path / f"{name}.csv")["item_id"].to_list()
    assert "item 0" in lists["with"][:2] and "new 0" in lists["with"][:5]  # what follows, and its twin
    assert lists["without"].index("new 0") > 2 + lists["with"].index("new 0")
    refitted = command.adrec("refit", "with", "--out", "final", cwd=tmp_path)
    assert refitted.returncode == 0 and "got vectors" in refitted.stdout + refitted.stderr, refitted.stderr


@pytest.mark.slow
def test_a_training_goes_on_from_what_features_say(tmp_path: Path) -> None:
    """An item of a later day that stands beside no older one starts as its twin, and learns the rest."""
    cyclic_table(num_users=200).write_csv(tmp_path / "table.csv")
    vectors = with_features(tmp_path / "vectors.parquet", 12, 0)
    twin = vectors.filter(pl.col("item_id") == "item 3").with_columns(item_id=pl.lit("late"))
    pl.concat([vectors, twin]).write_parquet(tmp_path / "later.parquet")
    rows = [
        {"user_id": f"later {user}", "item_id": item, "timestamp": 90 + at}
        for user in range(2)
        for at, item in enumerate(("late", "late", "late"))
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "new.csv")
    small = [*command.SMALL, "--preset", "fast"]
    for arguments in (
        ("prepare", "table.csv", "--time-unit", "s", "--out", "data"),
        ("train", "data", "--max-epochs", "40", *small, "--item-vectors", "vectors.parquet", "--out", "run"),
        ("prepare", "new.csv", "--extend", "data", "--out", "newer"),
        ("train", "newer", "--from", "run", "--max-epochs", "1", "--item-vectors", "later.parquet", "--out", "second"),
        ("train", "newer", "--from", "run", "--max-epochs", "1", "--out", "without"),
        ("similar", "second", "--item", "late", "--k", "3", "--out", "second.csv"),
        ("similar", "without", "--item", "late", "--k", "3", "--out", "without.csv"),
    ):
        done = command.adrec(*arguments, cwd=tmp_path)
        assert done.returncode == 0, (arguments, done.stderr)
    near = {name: pl.read_csv(tmp_path / f"{name}.csv")["similar_item"].to_list() for name in ("second", "without")}
    assert near["second"][0] == "item 3" != near["without"][0]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"item_id": ["item 1"]}, "no column besides the items"),
        ({"item_id": ["item 1", "item 2"], "a": [1.0, None]}, "item 'item 2': a value is missing"),
        ({"item_id": ["item 1", "item 2"], "a": ["red", "blue"]}, "column 'a' has no numbers"),
        ({"item_id": ["item 1", "item 2"], "a": [[1.0], [1.0, 2.0]]}, "different lengths"),
        ({"item_id": ["x", "y"], "a": [1.0, 2.0]}, "names no item of the data set"),
    ],
    ids=str,
)
def test_vectors_that_cannot_be_used_are_one_sentence(tmp_path: Path, columns: dict[str, object], said: str) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "vectors.parquet")
    with pytest.raises(DataError, match=said):
        read_item_vectors(tmp_path / "vectors.parquet", prepare(cyclic_table()))


def test_numbers_in_columns_and_texts(tmp_path: Path) -> None:
    (tmp_path / "vectors.csv").write_text("item_id,a,b\nitem 1,1,0.5\nitem 3,2,1e3\nnobody,3,4\nitem 1,9,9\n")
    dataset = prepare(cyclic_table())
    found = read_item_vectors(tmp_path / "vectors.csv", dataset)
    numbers = dataset.catalogue.encode(["item 1", "item 3"]) + 1
    assert found[numbers].tolist() == [[1, 0.5], [2, 1000]] and np.isfinite(found).all(axis=1).sum() == 2


def test_counting_models_have_no_vectors(tmp_path: Path) -> None:
    cyclic_table().write_csv(tmp_path / "table.csv")
    with_features(tmp_path / "vectors.parquet", 12, 0)
    command.adrec("prepare", "table.csv", "--time-unit", "s", "--out", "data", cwd=tmp_path)
    done = command.adrec(
        *("train", "data", "--model", "popular", "--out", "run", "--item-vectors", "vectors.parquet"), cwd=tmp_path
    )
    assert done.returncode == 2 and "popular has no item vectors" in done.stderr
