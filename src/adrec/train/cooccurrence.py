"""An initial item embedding from the co-occurrences of items in the training sequences.

From random vectors, the first epochs only learn which items are similar. Counting finds this in seconds. The factorised
similarities of items give vectors that are close if the items have the same neighbours, as for word embeddings (Levy
and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization", NeurIPS 2014).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn

from adrec.data.sequences import Sequences
from adrec.data.spans import spans
from adrec.data.sparse import Matrix, csr, rows_of
from adrec.nn.base import SequenceNetwork

WINDOW = 5  # maximum distance in positions of two co-occurring items of a sequence
DECAY = 0.7  # factor on the weight of a co-occurrence for each further position
SHRINKAGE = 3.0  # added to the cosine's denominator: it discounts rare co-occurrences
MOST_INTERACTIONS = 10_000_000  # maximum counted, in a minute or two and 2 GiB; above it, users are sampled
PRODUCTS, SPARE = 3, 16  # iterations of the random subspace, and its dimensions in excess of those requested

Float32s = NDArray[np.float32]


def start_from_cooccurrences(network: SequenceNetwork, sequences: Sequences, seed: int) -> int:
    """Initialise the item embedding of ``network`` from a part of ``sequences``; return the counted interactions."""
    rng = np.random.default_rng(seed)
    counted = few_enough(sequences, rng)
    initialize_from_cooccurrences(network.item_embedding, counted, network.num_items, rng)
    return counted.num_interactions


def initialize_from_cooccurrences(
    embedding: nn.Embedding, sequences: Sequences, num_items: int, rng: np.random.Generator
) -> None:
    """Point the drawn rows of an item embedding, [V + 1 or more, D], in the directions given by co-occurrences.

    The rows get the mean length of the drawn rows. Unchanged are the rows of items without co-occurrences, the padding
    row and the rows after the items'. ``rng`` draws the random subspace of the eigenvalue search.
    """
    vectors = cooccurrence_vectors(sequences, num_items, embedding.embedding_dim, rng)
    directions = torch.from_numpy(vectors).to(embedding.weight.device)  # [V + 1, D]
    with torch.no_grad():
        weight = embedding.weight[: num_items + 1]
        length = weight[1:].norm(dim=1).mean()
        weight.copy_(torch.where(directions.any(1, keepdim=True), length * directions, weight))


def few_enough(sequences: Sequences, rng: np.random.Generator) -> Sequences:
    """Return the sequences, or a random sample with at most :data:`MOST_INTERACTIONS`; at least one sequence."""
    if sequences.num_interactions <= MOST_INTERACTIONS:
        return sequences
    lengths, order = sequences.ends - sequences.starts, rng.permutation(len(sequences))
    drawn = order[: max(1, int(np.searchsorted(np.cumsum(lengths[order]), MOST_INTERACTIONS, side="right")))]
    return replace(sequences, starts=sequences.starts[drawn], ends=sequences.ends[drawn])


def cooccurrence_vectors(sequences: Sequences, num_items: int, size: int, rng: np.random.Generator) -> Float32s:
    """Return a vector of length 1 for each item that co-occurs with another, and zeros for others, [V + 1, size].

    Before normalisation, their products approximate ``(S S)^(1/2)``, with S the items' :func:`similarities`: the
    similarity of the neighbours of two items. The vectors are made of the eigenvectors of S with the eigenvalues of
    largest magnitude, each multiplied by the square root of that magnitude.
    """
    similar = similarities(sequences, num_items)  # [V + 1, V + 1]
    values, vectors = largest_eigenvectors(similar, size, rng)
    scaled = np.zeros((num_items + 1, size), dtype=np.float32)
    scaled[:, : len(values)] = vectors * np.sqrt(np.abs(values))
    scaled[np.diff(similar.indptr) == 0] = 0  # these are 0 except for rounding
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    directions: Float32s = np.divide(scaled, lengths, out=np.zeros_like(scaled), where=lengths > 0)
    return directions


def similarities(sequences: Sequences, num_items: int) -> Matrix:
    """Return ``c_ij / (sqrt(c_i c_j) + h)`` of every two items, sparse [V + 1, V + 1], float32.

    ``c_ij`` sums, over the co-occurrences of i and j within :data:`WINDOW` positions, :data:`DECAY` to the power of the
    number of positions between them. ``c_i`` is the sum of row i of ``c``, and h is :data:`SHRINKAGE`. The similarity
    of an item to itself is 0.
    """
    lengths = sequences.ends - sequences.starts
    items = sequences.items[spans(sequences.starts, lengths)]
    users = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    shape = (num_items + 1, num_items + 1)
    counts = sparse.csr_array(shape, dtype=np.float32)
    for distance in range(1, WINDOW + 1):
        near = (users[distance:] == users[:-distance]) & (items[distance:] != items[:-distance])
        first, second = items[:-distance][near], items[distance:][near]
        counts += csr(np.full(len(first), DECAY ** (distance - 1), dtype=np.float32), first, second, shape)
    counts = (counts + counts.T).tocsr()
    sums = np.asarray(counts.sum(axis=1), dtype=np.float32)  # [V + 1]
    rows = rows_of(counts)
    counts.data /= np.sqrt(sums[rows] * sums[counts.indices]) + SHRINKAGE
    return counts


def largest_eigenvectors(matrix: Matrix, count: int, rng: np.random.Generator) -> tuple[Float32s, Float32s]:
    """Return a symmetric matrix's eigenvalues of largest magnitude, [k] with k <= count, and their vectors, [n, k].

    They are approximate, which is enough for an initial embedding. They are searched in a random subspace, after
    :data:`PRODUCTS` power iterations (Halko, Martinsson and Tropp, "Finding Structure with Randomness", SIAM Review
    2011).
    """
    basis = rng.standard_normal((matrix.shape[0], min(count + SPARE, matrix.shape[0])), dtype=np.float32)
    for _ in range(PRODUCTS):
        basis = torch.linalg.qr(torch.from_numpy(matrix @ basis)).Q.numpy()  # [n, b]; in PyTorch's threads
    within = torch.from_numpy(basis).T @ torch.from_numpy(matrix @ basis)  # [b, b]
    values, vectors = torch.linalg.eigh(within)
    largest = values.abs().argsort(descending=True, stable=True)[:count]
    return values[largest].numpy(), (torch.from_numpy(basis) @ vectors[:, largest]).numpy()
