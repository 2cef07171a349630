"""The counting baselines: the contract, numbers worked out by hand, and slow oracles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.spans import spans
from adrec.data.sparse import csr
from adrec.data.split import make_split
from adrec.models.base import Model
from adrec.models.baselines import ease, itemknn, vsknn
from adrec.models.baselines.sparse import strongest
from adrec.models.registry import find_model
from adrec.runs.fit import fit
from adrec.utils.errors import ConfigError, DataError
from command import adrec
from conftest import cyclic_table
from models.contract import HISTORIES, ModelContract, cyclic, scores

COUNTING = ("popular", "recent", "personal", "markov", "itemknn", "vsknn", "ease")


class CountingContract(ModelContract):
    """What holds of a model that counts, beyond what holds of all."""

    def test_the_order_of_users_in_the_table_changes_nothing(self, trained: Model) -> None:
        dataset = cyclic()
        order = np.random.default_rng(1).permutation(dataset.num_users)
        starts, lengths = np.asarray(dataset.offsets)[order], np.diff(dataset.offsets)[order]
        positions = spans(starts, lengths)
        shuffled = replace(
            dataset,
            items=dataset.items[positions],
            times=dataset.times[positions],
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
        )
        again = self.fitted(shuffled)
        torch.testing.assert_close(scores(again, HISTORIES), scores(trained, HISTORIES), rtol=1e-6, atol=1e-7)

    def test_similar_items_need_vectors(self, trained: Model) -> None:
        assert trained.item_vectors is None


class TestPopularity(CountingContract):
    model = "popular"
    hits = None


class TestRecentPopularity(CountingContract):
    model = "recent"
    hits = None


class TestPersonal(CountingContract):
    model = "personal"
    hits = None


class TestMarkov(CountingContract):
    model = "markov"
    hits = 0.99


class TestItemKNN(CountingContract):
    model = "itemknn"


class TestVSKNN(CountingContract):
    model = "vsknn"


class TestEASE(CountingContract):
    model = "ease"
    changes: ClassVar = {"regularization": 10.0}
    hits = 0.2  # it knows no order: the item before the first is as near as the one after the last


def of_sequences(*sequences: str, times: list[list[int]] | None = None) -> Dataset:
    """Return the data set of sequences of letters, all of which train; ``a`` has item number 1, ``b`` 2, and so on."""
    rows: list[Any] = [("alphabet", letter, 0) for letter in sorted(set("".join(sequences)))]
    for user, sequence in enumerate(sequences):
        rows += [
            (f"user {user}", letter, times[user][step] if times else step + 1) for step, letter in enumerate(sequence)
        ]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    dataset = prepare(table, split="none", **({"time_unit": "s"} if times else {}))
    first = int(dataset.offsets[1])  # without the alphabet's user, who only numbered the items
    return replace(
        dataset,
        items=np.array(dataset.items[first:]),
        times=np.array(dataset.times[first:]),
        offsets=np.array(dataset.offsets[1:] - first),
        users=replace(dataset.users, ids=dataset.users.ids[1:]),
    )


def fitted(name: str, dataset: Dataset, **changes: Any) -> Model:
    found = find_model(name)
    model = found(found.Config.make(changes=changes))
    fit(model, dataset, make_split(dataset))
    return model


def of_letters(model: Model, history: str) -> Tensor:
    """Return the scores after a history of letters, [V]."""
    return scores(model, [[ord(letter) - ord("a") + 1 for letter in history]])[0]


def near(found: Tensor, expected: Sequence[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-7)


def test_popularity_by_hand() -> None:
    near(of_letters(fitted("popular", of_sequences("abb", "bc")), "a"), [1, 3, 1])


def test_recent_popularity_halves_with_the_time_that_passed() -> None:
    dataset = of_sequences("ab", "bc", times=[[100, 120], [140, 200]])
    # Ages 1, 0.8, 0.6 and 0 of the whole time, and half the weight every 0.2.
    near(of_letters(fitted("recent", dataset, half_life=0.2), "a"), [2**-5, 2**-4 + 2**-3, 1])


def test_recent_popularity_counts_within_a_user_where_times_only_give_an_order() -> None:
    # Shares of the own sequence that come later: a 3/4, b 2/4, c 1/4, c 0; and c 1/2, a 0.
    near(
        of_letters(fitted("recent", of_sequences("abcc", "ca"), half_life=0.25), "a"),
        [2**-3 + 1, 2**-2, 0.5 + 1 + 1 / 4],
    )


def test_moments_that_are_all_the_same_count_alike() -> None:
    dataset = of_sequences("ab", "b", times=[[5, 5], [5]])
    near(of_letters(fitted("recent", dataset), "a"), [1, 2])


def test_markov_by_hand() -> None:
    # Transitions a-b twice, a-c, b-a, b-c; of 8 interactions a has 3, b 3 and c 2.
    model = fitted("markov", of_sequences("abac", "abc", "b"), smoothing=2.0)
    a, b, c = 3 / 8, 3 / 8, 2 / 8
    near(of_letters(model, "cba"), [2 * a / 5, (2 + 2 * b) / 5, (1 + 2 * c) / 5])
    near(of_letters(model, "b"), [(1 + 2 * a) / 4, 2 * b / 4, (1 + 2 * c) / 4])
    near(of_letters(model, "c"), [a, b, c])  # nothing followed it: popularity
    assert of_letters(model, "a").sum() == pytest.approx(1)


def test_itemknn_by_hand() -> None:
    # Users of a: 3, b: 2, c: 3, d: 1; together ab 2, ac 2, bc 1, cd 1.
    dataset = of_sequences("ab", "abc", "ac", "cdd")
    ab, ac, bc, cd = (together / (math.sqrt(product) + 1) for together, product in ((2, 6), (2, 9), (1, 6), (1, 3)))
    model = fitted("itemknn", dataset, shrinkage=1.0, decay=0.5)
    near(of_letters(model, "a"), [0, ab, ac, 0])
    near(of_letters(model, "ac"), [ac, ab / 2 + bc, ac / 2, cd])
    near(of_letters(model, "aca"), [ac / 2, ab + bc / 2, ac, cd / 2])  # a counts once, as it was last
    nearest = fitted("itemknn", dataset, shrinkage=1.0, decay=1.0, neighbours=1)
    near(of_letters(nearest, "ac"), [ac, ab, 0, 0])  # b is nearest to a, and a to c


def test_itemknn_counts_the_same_some_items_at_a_time() -> None:
    whole = fitted("itemknn", cyclic())
    with patch.object(itemknn, "ITEMS_AT_ONCE", 7):
        parts = fitted("itemknn", cyclic())
    assert all(torch.equal(parts.state()[name], value) for name, value in whole.state().items())


def test_ease_is_the_papers_closed_form() -> None:
    rng = np.random.default_rng(1)
    sequences = ["".join(rng.choice(list("abcdefg"), size=rng.integers(1, 6))) for _ in range(30)]
    dataset = of_sequences("g", *sequences)
    X = np.zeros((31, 7))
    for user, sequence in enumerate(["g", *sequences]):
        X[user, [ord(letter) - ord("a") for letter in sequence]] = 1
    P = np.linalg.inv(X.T @ X + 3 * np.eye(7))
    B = P / -np.diag(P)
    B[np.diag_indices(7)] = 0
    model = fitted("ease", dataset, regularization=3.0)
    near(of_letters(model, "d"), B[3].tolist())
    near(of_letters(model, "dbbd"), (B[1] + B[3]).tolist())
    # Each column is the ridge regression of its item on all others.
    others = np.delete(X, 2, axis=1)
    weights = np.linalg.solve(others.T @ others + 3 * np.eye(6), others.T @ X[:, 2])
    np.testing.assert_allclose(np.delete(B[:, 2], 2), weights)


def test_ease_refuses_a_catalogue_that_is_too_large_for_a_dense_matrix() -> None:
    dataset = cyclic()
    with pytest.raises(DataError, match=r"EASE .* 100,000 items make 80,000,000,000 bytes.* itemknn\.$"):
        ease.EASE().fit(dataset, replace(make_split(dataset), num_items=100_000))


def test_vsknn_by_hand() -> None:
    dataset = of_sequences("ab", "abc", "bcd", "de", times=[[1, 9], [1, 2, 8], [1, 2, 7], [1, 6]])
    model = fitted("vsknn", dataset, weights="linear")
    # After a, b: weights 1/2 and 1. The sequence "ab" has nothing more, "abc" is 3/2 like it, "bcd" 1.
    near(of_letters(model, "ab"), [1.5, 2.5, 2.5, 1, 0])
    near(of_letters(fitted("vsknn", dataset, weights="linear", neighbours=1), "ab"), [1.5, 1.5, 1.5, 0, 0])
    # Of the two most recent that share an item only "abc" has more.
    near(of_letters(fitted("vsknn", dataset, neighbours=1, candidates=2), "ab"), [1.5, 1.5, 1.5, 0, 0])
    near(of_letters(model, "bab"), [1 + 2 / 3, 1 + 2 / 3 + 1, 1 + 2 / 3 + 1, 1, 0])  # b counts as it was last
    # Weights 1/3, 1/2 and 1: "ab" and "abc" have a, "bcd" has d, and "de" nothing more.
    near(of_letters(fitted("vsknn", dataset, weights="division"), "dea"), [2, 2 + 1 / 3, 1 + 1 / 3, 1 / 3, 0])


def slow_vsknn(
    sequences: list[list[int]], history: list[int], k: int, m: int, weights: str, num_items: int
) -> list[float]:
    """Return V-SKNN's scores [V]; ``sequences`` are the most recent first."""
    n = len(history)
    weight = {item: (place + 1) / n if weights == "linear" else 1 / (n - place) for place, item in enumerate(history)}
    candidates = [each for each in sequences if len(set(each)) > 1 and set(each) & set(history)][:m]
    candidates = [each for each in candidates if set(each) - set(history)]
    similarities = [sum(weight[item] for item in sorted(set(each) & set(history))) for each in candidates]
    nearest = sorted(range(len(candidates)), key=lambda place: (-round(similarities[place], 5), place))[:k]
    return [
        sum(similarities[place] for place in nearest if item in candidates[place]) for item in range(1, num_items + 1)
    ]


@pytest.mark.parametrize("weights", ["linear", "division"])
@pytest.mark.parametrize(("k", "m"), [(1, 1), (3, 5), (5, 200), (200, 200)])
def test_vsknn_is_what_a_slow_search_finds(weights: str, k: int, m: int) -> None:
    rng = np.random.default_rng(k)
    letters = list("abcdefghijklmnopq")
    # Histories of 1, 2 or 4 distinct items have weights that binary fractions, or sums in any order, hold exactly.
    sequences = ["".join(rng.choice(letters, size=rng.integers(1, 7))) for _ in range(120)]
    times = [[1000 - user] * len(sequence) for user, sequence in enumerate(sequences)]
    dataset = of_sequences("".join(letters), *sequences, times=[[1] * len(letters), *times])
    model = fitted("vsknn", dataset, neighbours=k, candidates=m, weights=weights)
    recent = [[ord(letter) - ord("a") + 1 for letter in sequence] for sequence in [*sequences, "".join(letters)]]
    histories = [rng.permutation(17)[:size].tolist() for size in (1, 2, 4) for _ in range(40)]
    histories = [[item + 1 for item in history] for history in histories]
    with patch.object(vsknn, "HISTORIES_AT_ONCE", 50):
        found = scores(model, histories)
    expected = torch.tensor([slow_vsknn(recent, history, k, m, weights, 17) for history in histories])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_own_training_sequence_is_no_neighbour() -> None:
    """With a sequence that holds no more than the history, or without it, the scores are the same."""
    others = ("abc", "bcd", "cad")
    for history in ("ef", "efa"):
        alone, beside = (
            of_letters(fitted("vsknn", of_sequences(*each, "abcdefg")), history) for each in (others, (*others, "ef"))
        )
        near(beside, alone.tolist())


def test_the_strongest_of_each_row_stay_and_of_equal_ones_the_first() -> None:
    rng = np.random.default_rng(1)
    dense = rng.integers(0, 4, size=(20, 15)).astype(np.float32)
    found = strongest(csr(dense[dense > 0], *np.nonzero(dense), dense.shape), 4).toarray()
    for row, kept in zip(dense, found, strict=True):
        first = np.argsort(-row, kind="stable")[:4]
        expected = np.zeros(15)
        expected[first] = row[first]
        assert kept.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("recent", {"half_life": 0}, "half_life must be above 0"),
        ("markov", {"smoothing": 0}, "smoothing must be above 0"),
        ("itemknn", {"neighbours": 0}, "neighbours must be at least 1"),
        ("itemknn", {"shrinkage": -1}, "shrinkage must not be negative"),
        ("itemknn", {"decay": 0}, "decay must be in"),
        ("itemknn", {"decay": 1.1}, "decay must be in"),
        ("vsknn", {"neighbours": 0}, "neighbours must be at least 1"),
        ("vsknn", {"candidates": 99}, "candidates must be at least neighbours = 100"),
        ("vsknn", {"weights": "linea"}, "did you mean 'linear'"),
        ("ease", {"regularization": 0}, "regularization must be above 0"),
        ("ease", {"regularisation": 1}, "did you mean 'regularization'"),
        ("popular", {"anything": 1}, "there is no configuration key 'anything'"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        find_model(name).Config.make(changes=changes)


@pytest.mark.parametrize("name", COUNTING)
def test_presets_survive_json(name: str) -> None:
    config = find_model(name).Config
    for each in config.presets:
        assert config.from_dict(config.make(each).to_dict()) == config.make(each)


def test_from_a_table_to_recommendations_on_the_command_line(tmp_path: Path) -> None:
    table, data, run = tmp_path / "table.csv", tmp_path / "data", tmp_path / "run"
    cyclic_table(40, 12).write_csv(table)
    steps = [
        ("prepare", table, "--out", data),
        ("train", data, "--model", "itemknn", "--set", "neighbours=5", "--out", run),
        ("evaluate", run),
        ("recommend", run, "--given", "item 3", "--k", "2", "--format", "csv"),
    ]
    for step in steps:
        result = adrec(*step)
        assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3


@pytest.mark.parametrize("half_life", [0.0, 2.0])
def test_personal_counts_a_history_with_decay_and_then_popular_items(half_life: float) -> None:
    model = fitted("personal", of_sequences("aab", "abd", "acd"), half_life=half_life)
    histories = [[3, 2, 3], [4], [2, 2, 2, 1]]
    found = scores(model, histories)
    counts = np.array([0, 4, 2, 1, 2])
    for row, history in enumerate(histories):
        for item in range(1, 5):
            own = [2 ** (-(len(history) - 1 - at) / half_life) if half_life else 1.0 for at in range(len(history))]
            weight = sum(each for each, there in zip(own, history, strict=True) if there == item)
            expected = 1 + weight if item in history else counts[item] / 5
            assert float(found[row, item - 1]) == pytest.approx(expected, rel=1e-6)
