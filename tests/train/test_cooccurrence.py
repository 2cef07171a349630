"""The embedding that co-occurrences begin: counted as a slow loop counts, factorised as NumPy does."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from adrec.config.adrec import preset
from adrec.data.sequences import Sequences
from adrec.train import cooccurrence
from adrec.train.cooccurrence import (
    cooccurrence_vectors,
    few_enough,
    initialize_from_cooccurrences,
    largest_eigenvectors,
    similarities,
)
from adrec.utils.errors import ConfigError


def sequences_of(*lists: list[int]) -> Sequences:
    ends = np.cumsum([len(each) for each in lists])
    starts = ends - [len(each) for each in lists]
    return Sequences(np.array(list(itertools.chain(*lists)), dtype=np.int32), starts, ends, max_length=3)


def slow_similarities(lists: list[list[int]], num_items: int) -> np.ndarray:
    counts = np.zeros((num_items + 1, num_items + 1))
    for items in lists:
        for (place, item), (other_place, other) in itertools.combinations(enumerate(items), 2):
            distance = other_place - place
            if distance <= cooccurrence.WINDOW and item != other:
                counts[item, other] += cooccurrence.DECAY ** (distance - 1)
                counts[other, item] += cooccurrence.DECAY ** (distance - 1)
    sums = counts.sum(1)
    return counts / (np.sqrt(np.outer(sums, sums)) + cooccurrence.SHRINKAGE)


def test_similarities_are_what_a_slow_loop_counts() -> None:
    rng = np.random.default_rng(5)
    lists = [rng.integers(1, 12, size=n).tolist() for n in (1, 2, 3, 9, 17)]
    found = similarities(sequences_of(*lists), 13).toarray()
    np.testing.assert_allclose(found, slow_similarities(lists, 13), rtol=1e-5, atol=1e-7)


def test_pairs_by_hand() -> None:
    counts = {(1, 2): 1.0, (2, 3): 1.0, (1, 3): 0.7}
    sums = {1: 1.7, 2: 2.0, 3: 1.7}
    found = similarities(sequences_of([1, 2, 3]), 3).toarray()
    for (i, j), count in counts.items():
        assert found[i, j] == found[j, i] == pytest.approx(count / (math.sqrt(sums[i] * sums[j]) + 3.0))
    assert not found.diagonal().any() and not found[0].any()


def test_eigenvectors_are_those_of_numpy_where_few_are_large() -> None:
    rng = np.random.default_rng(3)
    basis, _ = np.linalg.qr(rng.standard_normal((60, 60)))
    values = np.r_[9.0, -7.0, 5.0, np.full(57, 1e-3)]
    matrix = (basis * values) @ basis.T
    found, vectors = largest_eigenvectors(matrix.astype(np.float32), 3, np.random.default_rng(0))
    np.testing.assert_allclose(found, [9, -7, 5], rtol=1e-4)
    np.testing.assert_allclose(np.abs((vectors * basis[:, :3]).sum(0)), 1, rtol=1e-4)


def test_items_of_one_group_point_the_same_way() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.permutation(np.arange(1, 11) + 10 * (user % 2)).tolist() for user in range(200)]
    vectors = cooccurrence_vectors(sequences_of(*groups), 21, 4, rng)
    np.testing.assert_allclose(np.linalg.norm(vectors[1:21], axis=1), 1, rtol=1e-5)
    products = vectors @ vectors.T
    assert products[1:11, 1:11].min() > products[1:11, 11:21].max()
    assert not vectors[0].any() and not vectors[21].any()  # the padding, and an item that nobody has


def test_a_catalogue_smaller_than_the_vectors() -> None:
    vectors = cooccurrence_vectors(sequences_of([1, 2, 3, 1]), 3, 16, np.random.default_rng(0))
    assert vectors.shape == (4, 16) and np.isfinite(vectors).all()


def test_a_sample_of_the_sequences_where_there_are_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [[1 + user, 51 + user] for user in range(50)]
    monkeypatch.setattr(cooccurrence, "MOST_INTERACTIONS", 21)
    found = {tuple(few_enough(sequences_of(*lists), np.random.default_rng(seed)).starts.tolist()) for seed in range(5)}
    assert {len(starts) for starts in found} == {10} and len(found) == 5  # ten whole sequences, others each time
    monkeypatch.setattr(cooccurrence, "MOST_INTERACTIONS", 1)
    assert len(few_enough(sequences_of(*lists), np.random.default_rng(0))) == 1


def test_products_are_how_alike_the_neighbours_are() -> None:
    """Against the matrix root of S S, by NumPy's own eigenvalues, where the vectors hold all of it."""
    rng = np.random.default_rng(5)
    sequences = sequences_of(*(rng.integers(1, 9, size=n).tolist() for n in (9, 12, 17)))
    dense = similarities(sequences, 8).toarray().astype(np.float64)
    values, vectors = np.linalg.eigh(dense)
    assert values.min() < -0.01
    products = (vectors * np.abs(values)) @ vectors.T
    lengths = np.sqrt(products.diagonal()[1:])
    found = cooccurrence_vectors(sequences, 8, 9, rng)[1:]
    np.testing.assert_allclose(found @ found.T, products[1:, 1:] / np.outer(lengths, lengths), atol=1e-4)


def test_an_embedding_keeps_its_length_and_what_nothing_is_known_of() -> None:
    embedding = nn.Embedding(8, 6)  # V = 6, and a row behind the items'
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nn.init.normal_(embedding.weight, std=0.02)
    before = embedding.weight.detach().clone()
    initialize_from_cooccurrences(embedding, sequences_of([1, 2, 3], [2, 3, 5]), 6, np.random.default_rng(1))
    kept = [0, 4, 6, 7]
    assert torch.equal(embedding.weight[kept], before[kept])
    lengths = embedding.weight[[1, 2, 3, 5]].norm(dim=1)
    torch.testing.assert_close(lengths, before[1:7].norm(dim=1).mean().expand(4))
    again = nn.Embedding.from_pretrained(before.clone(), freeze=False)
    initialize_from_cooccurrences(again, sequences_of([1, 2, 3], [2, 3, 5]), 6, np.random.default_rng(1))
    assert torch.equal(again.weight, embedding.weight)


def test_only_new_weights_can_begin_so() -> None:
    with pytest.raises(ConfigError, match=r"^finetune\.initial_embedding has no effect: the item embedding is that of"):
        preset("paper", {"finetune.initial_embedding": "cooccurrence"})
    with pytest.raises(ConfigError, match=r"as pretrain is left out; set pretrain=true too"):
        preset("cam", {"pretrain.initial_embedding": "cooccurrence"})
    config = preset("paper", {"pretrain.initial_embedding": "cooccurrence"})
    assert json.loads(json.dumps(config.to_dict()))["pretrain"]["initial_embedding"] == "cooccurrence"
