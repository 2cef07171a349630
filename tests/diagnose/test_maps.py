"""Maps of an embedding: the same with the same seed, PCA as a plain SVD has it, the same items in every space."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import gaussian_kde

from adrec.diagnose import maps
from adrec.diagnose.density import CELLS, LEVELS, box, density, outlines
from adrec.diagnose.diagnosis import Space
from adrec.diagnose.maps import PCA, TSNE, draw_maps, pca, sample, tsne
from adrec.utils.errors import UserError
from diagnose.spaces import space


def test_pca_is_that_of_a_plain_svd() -> None:
    own = space(n=30, size=5).embedding
    rows = np.array([3, 7, 20])
    found, shares = pca(own, rows)
    left, singular, _ = np.linalg.svd(own.astype(float) - own.astype(float).mean(0), full_matrices=False)
    expected = (left * singular)[rows, :2]
    assert np.abs(found) == pytest.approx(np.abs(expected), abs=1e-5)
    assert shares == pytest.approx(singular[:2] ** 2 / (singular**2).sum(), rel=1e-5)
    mirrored, _ = pca(-own, rows)
    assert mirrored == pytest.approx(found, abs=1e-5)  # a component's sign says nothing


def test_maps_repeat_and_end_with_the_gaussian() -> None:
    spaces = [space("one"), space("other", n=30, seed=1)]
    first, again, another = (draw_maps(spaces, seed=seed, most=25) for seed in (0, 0, 1))
    assert [each.name for each in first] == ["one", "other", "gaussian"]
    assert [each.space for each in first] == [0, 1, None]
    for one, same, differs in zip(first, again, another, strict=True):
        assert one.rows.tolist() == same.rows.tolist() == sorted(set(one.rows.tolist()))
        assert len(one.rows) == 25
        assert one.rows.tolist() != differs.rows.tolist()
        for method in (PCA, TSNE):
            assert one.coordinates[method].shape == (25, 2)
            assert (one.coordinates[method] == same.coordinates[method]).all()


def test_tsne_keeps_clouds_apart() -> None:
    own = space(n=60, size=4).embedding
    own[:30] += 8
    found = tsne(own, 0)
    distances = np.linalg.norm(found[:, None] - found[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert ((distances.argmin(1) < 30) == (np.arange(60) < 30)).all()


def test_spaces_of_the_same_items_show_the_same_ones() -> None:
    ids = pl.Series([f"i{k}" for k in range(40)])
    order = np.random.default_rng(5).permutation(40)
    one = space("one", ids=ids)
    other = Space("other", one.embedding[order], ids=ids[order])
    unknown = space("unknown")
    fewer = Space("fewer", one.embedding[:39], ids=ids[:39])
    strange = Space("strange", one.embedding, ids=pl.Series([f"j{k}" for k in range(40)]))
    rows = sample([one, other, unknown, fewer, strange], 0, most=10)
    assert ids[rows[0]].to_list() == ids[order][rows[1]].to_list()
    assert rows[2].tolist() == rows[0].tolist()
    assert [len(each) for each in rows] == [10] * 5
    assert rows[3].max() < 39
    numbers = Space("numbers", one.embedding, ids=pl.Series(range(40)))
    texts = Space("texts", one.embedding[::-1], ids=pl.Series([str(k) for k in range(39, -1, -1)]))
    drawn = sample([numbers, texts], 0, most=10)
    assert (39 - drawn[1]).tolist() == drawn[0].tolist()


@pytest.mark.parametrize(("n", "size"), [(2, 3), (3, 1), (5, 9), (12, 1), (4, 2)])
def test_few_rows_or_columns(n: int, size: int) -> None:
    for each in draw_maps([space(n=n, size=size)]):
        assert all(points.shape == (n, 2) and np.isfinite(points).all() for points in each.coordinates.values())


def test_columns_and_rows_that_are_alike() -> None:
    own = space(n=20).embedding
    own[:, 2:] = 1
    found = draw_maps([Space("constant columns", own)])
    own = np.ones((20, 4), np.float32)
    found += draw_maps([Space("all the same", own)])
    for each in found:
        assert all(np.isfinite(points).all() for points in each.coordinates.values())


def test_missing_libraries_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install '\.\[diagnose\]'"):
        draw_maps([space()])


def test_density_is_that_of_a_kernel_estimate() -> None:
    points = np.random.default_rng(0).standard_normal((2000, 2)) * (1, 3)
    frame = box(points)
    found = density(points, frame)
    assert found.values.sum() == pytest.approx(2000, rel=0.01)
    centres = frame.side * (np.arange(CELLS) + 0.5) / CELLS
    x, y = np.meshgrid(frame.x + centres, frame.y + centres)
    expected = gaussian_kde(points.T)(np.stack([x.ravel(), y.ravel()])).reshape(CELLS, CELLS)
    assert np.corrcoef(found.values.ravel(), expected.ravel())[0, 1] > 0.99


def test_contours_hold_their_share() -> None:
    points = np.random.default_rng(0).standard_normal((5000, 2))
    frame = box(points)
    found = density(points, frame)
    cells = np.minimum((frame.within(points) * CELLS).astype(int), CELLS - 1)
    at = found.values[cells[:, 1], cells[:, 0]]
    for level, share in zip(found.levels, LEVELS, strict=True):
        assert (at >= level).mean() == pytest.approx(share, abs=0.05)
    for lines in outlines(found):
        assert lines
        assert all((line[0] == line[-1]).all() for line in lines)  # closed
    alone = np.zeros((3, 2))
    assert outlines(density(alone, box(alone)))
