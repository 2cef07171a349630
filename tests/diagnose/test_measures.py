"""Measures of an embedding against slow, obvious restatements, and on spaces whose answer is known."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adrec.diagnose import pairs as pairs_module
from adrec.diagnose.diagnosis import Space, diagnose
from adrec.diagnose.measures import DEFINITIONS, Measures, measure
from adrec.diagnose.pairs import alignment, hubness, pairs
from adrec.diagnose.samples import Samples
from adrec.diagnose.structure import dependence, histogram_entropy, marginal_divergence
from adrec.diagnose.verdict import verdict
from adrec.nn.spectrum import effective_rank, entropy, isotropy, moments, parallel_analysis, participation_ratio
from adrec.train.bounds import COMMON, RANK, STRUCTURE
from adrec.utils.errors import DataError
from embeddings import Matrix, clusters, gaussian


@pytest.mark.parametrize("embedding", [gaussian(40), clusters(40) + 1])
def test_pairs_are_those_of_two_loops(embedding: Matrix) -> None:
    rows = embedding.astype(np.float64)
    cosines, distances, potentials = [], [], []
    for a, b in itertools.combinations(rows, 2):
        cosines.append(a @ b / math.sqrt((a @ a) * (b @ b)))
        distances.append(math.sqrt(((a - b) ** 2).sum()))
        u, v = a / math.sqrt(a @ a), b / math.sqrt(b @ b)
        potentials.append(math.exp(-2 * ((u - v) ** 2).sum()))
    found = pairs(embedding, seed=0)
    assert found.cosine == pytest.approx(np.mean(cosines), abs=1e-9)
    assert found.cosine_deviation == pytest.approx(np.std(cosines), abs=1e-7)
    assert found.cosine_quantiles[2] == pytest.approx(np.median(cosines))
    assert found.distance.value == pytest.approx(np.mean(distances)) and found.distance.error == 0
    assert found.uniformity.value == pytest.approx(math.log(np.mean(potentials)))


def test_drawn_pairs_are_near_all_of_them_and_say_how_near(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = clusters(200)
    every = pairs(embedding, seed=0)
    monkeypatch.setattr(pairs_module, "MOST_PAIRS", 4_000)
    some = pairs(embedding, seed=3)
    assert some.cosine == every.cosine, "sums over all rows are exact at any size"
    for name in ("distance", "uniformity"):
        drawn, exact = getattr(some, name), getattr(every, name)
        assert drawn.error > 0
        assert abs(drawn.value - exact.value) < 4 * drawn.error


def test_the_published_means_have_each_item_with_itself() -> None:
    embedding = gaussian(30).astype(np.float64)
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    distances = np.linalg.norm(embedding[:, None] - embedding[None], axis=-1)
    found = measure(embedding.astype(np.float32)).values
    assert found["mean_cosine"].published == pytest.approx((unit @ unit.T).mean(), abs=1e-6)
    assert found["mean_distance"].published == pytest.approx(distances.mean(), rel=1e-5)
    assert found["mean_distance"].value == pytest.approx(distances.sum() / (30 * 29), rel=1e-5)


def test_the_spectrum_by_hand() -> None:
    """Two orthogonal directions of variance 4 and 1: shares 2/3 and 1/3 of the singular values."""
    rows = np.array([[2, 1], [-2, 1], [2, -1], [-2, -1]], dtype=np.float32) + 5
    own = moments(rows)
    assert own.mean.tolist() == [5, 5]
    assert own.eigenvalues.tolist() == pytest.approx([4, 1])
    expected = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    assert entropy(np.sqrt(own.eigenvalues)) == pytest.approx(expected)
    assert effective_rank(np.sqrt(own.eigenvalues)) == pytest.approx(math.exp(expected))
    assert participation_ratio(own.eigenvalues) == pytest.approx(25 / 17)
    assert isotropy(own.eigenvalues) == pytest.approx(1 / 4)
    assert dependence(own) == pytest.approx(0, abs=1e-12), "uncorrelated columns add nothing"


def test_moments_do_not_depend_on_the_blocks() -> None:
    embedding = gaussian(1000)
    expected = np.cov(embedding.astype(np.float64).T, bias=True)
    np.testing.assert_allclose(moments(embedding).covariance, expected, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 9999))
def test_ranks_lie_between_one_and_the_dimensions(n: int, size: int, seed: int) -> None:
    own = moments(gaussian(n, size, seed))
    assert 1 - 1e-9 <= effective_rank(np.sqrt(own.eigenvalues)) <= size + 1e-9
    assert 1 - 1e-9 <= participation_ratio(own.eigenvalues) <= size + 1e-9
    assert 0 <= isotropy(own.eigenvalues) <= 1


def test_parallel_analysis_sees_structure_and_only_structure() -> None:
    noise = parallel_analysis(gaussian(500, 20), seed=0)
    assert noise.dimensions <= 1 and noise.noise_share > 0.99
    found = parallel_analysis(clusters(500, 20), seed=0)
    assert 3 <= found.dimensions <= 5, "five centres span at most four dimensions of their mean"
    assert found.noise_share < 0.3


def test_neither_axes_nor_lengths_of_rows_are_structure() -> None:
    """A rotation changes nothing that is told; noise whose rows have many lengths is noise."""
    alive, rng = clusters(600, 24), np.random.default_rng(7)
    _, axes = np.linalg.eigh(np.cov(alive.T))
    turned = (alive - alive.mean(0)) @ axes
    before, after = parallel_analysis(alive, seed=0), parallel_analysis(turned.astype(np.float32), seed=0)
    assert after.noise_share == pytest.approx(before.noise_share, abs=0.02)
    assert diagnose(Space("x", turned.astype(np.float32))).verdict.state == "alive"
    for sigma in (0.5, 1.0):
        tailed = gaussian(1500, 32) * rng.lognormal(sigma=sigma, size=(1500, 1))
        assert parallel_analysis(tailed.astype(np.float32), seed=0).noise_share > 0.98


def test_rows_of_zeros_and_copies_are_no_structure() -> None:
    noise = gaussian(400, 16)
    noise[::3] = 0
    found = diagnose(Space("x", noise))
    assert found.verdict.signs == ("noise",)
    assert found.measures["distinct"] == pytest.approx((noise[:, 0] != 0).mean())
    assert any("rows of zeros" in note for note in found.measures.notes)
    few = diagnose(Space("x", clusters(20, 16)[np.random.default_rng(0).integers(20, size=400)]))
    assert "copies" in few.verdict.signs and "5% of the items have a row of their own" in few.verdict.sentences[0]
    alike = diagnose(Space("x", np.ones((60, 8), dtype=np.float32)))
    assert {"noise", "cone", "copies"} <= set(alike.verdict.signs)


def test_a_mapped_matrix_is_never_copied_whole(tmp_path: Path) -> None:
    rows = clusters(3000, 8)
    rows[0] = 0
    np.save(tmp_path / "e.npy", rows)
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
    largest = 0

    class Watched(np.ndarray):  # type: ignore[type-arg]
        def __getitem__(self, key: object) -> object:
            nonlocal largest
            found = super().__getitem__(key)  # type: ignore[index]
            if not isinstance(key, slice):
                largest = max(largest, getattr(found, "nbytes", 0))
            return found

    whole = measure(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adrec.nn.spectrum.BLOCK", 8 * 8 * 100)
        patch.setattr("adrec.diagnose.pairs.AT_ONCE", 100)
        original = Samples.mean
        patch.setattr(Samples, "mean", lambda self, of, size: original(self, of, min(size, 200)))
        some = measure(mapped.view(Watched))
    assert largest < rows.nbytes / 4
    assert some["mean_cosine"] == pytest.approx(whole["mean_cosine"])


@pytest.mark.parametrize("n", [2, 3, 4, 5, 9])
def test_few_items(n: int) -> None:
    found = diagnose(Space("x", gaussian(n, 4)))
    json.dumps(found.to_dict(), allow_nan=False, default=str)
    assert found.verdict.state in ("alive", "collapsed")


def test_extreme_scales() -> None:
    for scale in (1e60, 1e-60):
        found = diagnose(Space("x", clusters(200, 8).astype(np.float64) * scale))  # type: ignore[arg-type]
        assert found.verdict.state == "alive"


def test_a_matrix_on_its_side_is_asked_about() -> None:
    with pytest.raises(DataError, match="is it transposed"):
        measure(np.ones((4, 20_000), dtype=np.float32))


def test_alignment_by_hand() -> None:
    rows = np.array([[2, 0], [0, 3], [-1, 0], [0, 0]], dtype=np.float32)
    one, other = np.array([0, 0, 0]), np.array([1, 2, 3])
    found = alignment(rows, one, other, every=True)
    assert found is not None and found.error == 0
    assert found.value == pytest.approx((2 + 4) / 2), "a row without direction does not count"
    drawn = alignment(rows, one, other, every=False)
    assert drawn is not None and drawn.error > 0
    assert alignment(rows, other[2:], one[2:], every=True) is None


def test_hubness_sees_a_hub() -> None:
    rng = np.random.default_rng(0)
    hub = rng.standard_normal((1, 30))
    around = hub + rng.standard_normal((60, 30))
    without = hubness(around.astype(np.float32), k=1)
    assert hubness(np.concatenate([hub, around]).astype(np.float32), k=1) > without + 2


def test_divergences_of_known_columns() -> None:
    """A Gaussian has none; a uniform column log(2 pi e) / 2 - log(12) / 2 = 0.176 nats."""
    rng = np.random.default_rng(0)
    uniform = rng.uniform(size=(20_000, 2)).astype(np.float32)
    assert marginal_divergence(uniform, moments(uniform)) == pytest.approx(0.1765, abs=0.01)
    normal = rng.standard_normal((20_000, 2)).astype(np.float32)
    assert marginal_divergence(normal, moments(normal)) == pytest.approx(0, abs=0.01)
    correlated = (normal @ np.array([[1, 0.6], [0, 0.8]])).astype(np.float32)
    assert dependence(moments(correlated)) == pytest.approx(-math.log(1 - 0.36) / 4, abs=0.01)


def test_the_published_mutual_information_is_an_entropy() -> None:
    coordinates = np.linspace(0, 1, 1000)[:, None]
    assert histogram_entropy(coordinates) == pytest.approx(math.log(10), abs=1e-3)


def test_every_measure_has_a_definition_and_a_value() -> None:
    found = measure(clusters(), popularity=np.arange(300), followers=(np.arange(299), np.arange(1, 300)), seed=0)
    assert found.values.keys() == DEFINITIONS.keys()
    assert all(each.value is not None and math.isfinite(each.value) for each in found.values.values())
    assert found.values.keys() == measure(clusters(), seed=0).values.keys()
    assert all(each.source and each.meaning.endswith(".") for each in DEFINITIONS.values())


def test_samples_are_near_the_whole_and_say_how_near(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = clusters(2000)
    whole = measure(embedding, seed=0)
    original = Samples.mean
    monkeypatch.setattr(Samples, "mean", lambda self, of, size: original(self, of, min(size, 400)))
    some = measure(embedding, seed=0)
    for name in ("noise_share", "silhouette"):
        exact, drawn = whole.values[name].value, some.values[name]
        assert exact is not None and drawn.value is not None
        assert drawn.error > 0
        assert abs(drawn.value - exact) < max(6 * drawn.error, 0.06), "of fewer rows less is beyond chance"
    assert any("sampl" in note for note in some.notes)


def shares(found: Measures) -> tuple[float, float]:
    noise, cosine = found["noise_share"], found["mean_cosine"]
    assert noise is not None and cosine is not None
    return noise, cosine


@pytest.mark.parametrize(
    ("embedding", "state", "sign"),
    [
        (clusters(400, 16), "alive", ()),
        (gaussian(400, 16), "collapsed", ("noise",)),
        (clusters(400, 16) + 40, "collapsed", ("cone",)),
        (np.abs(clusters(400, 16)), "alive", ()),
        (gaussian(400, 1) @ gaussian(1, 40, 5), "collapsed", ("subspace",)),
    ],
)
def test_verdicts_of_spaces_that_are_known(embedding: Matrix, state: str, sign: tuple[str, ...]) -> None:
    found = diagnose(Space("x", embedding))
    assert found.verdict.state == state
    assert found.verdict.signs == sign
    noise, cosine = shares(found.measures)
    assert (1 - noise < STRUCTURE) == ("noise" in sign)
    assert (cosine > COMMON) == ("cone" in sign)
    assert found.verdict.sentences[0].startswith(("Alive", "Collapsed"))


def test_what_stage_1_had_and_is_gone_is_fading() -> None:
    before = clusters(400, 16)
    after = (0.25 * before + gaussian(400, 16)).astype(np.float32)
    found = diagnose(Space("x", after, stage_1=before))
    assert found.verdict.state == "fading"
    assert "Of the structure beyond noise that stage 1 had" in found.verdict.sentences[-1]
    assert diagnose(Space("x", before, stage_1=before)).verdict.sentences[-1].endswith("100% is there.")


def test_a_verdict_reads_nothing_but_the_measures() -> None:
    found = diagnose(Space("x", clusters(400, 16)))
    assert verdict(found.measures, found.references) == found.verdict
    assert 0 < RANK < 1


@pytest.mark.parametrize(
    ("embedding", "sentence"),
    [
        (np.array([[1.0, np.nan], [0, 1]]), "the embedding has nan in row 0, column 1 .from 0."),
        (np.array([[1.0, 2.0], [np.inf, 1]]), "has inf in row 1, column 0"),
        (np.ones((1, 3)), "has 1 item, so there is nothing to compare"),
        (np.ones(3), "has the shape .3,."),
        (np.zeros((5, 3)), "all rows of the embedding but one at most are 0"),
    ],
)
def test_what_cannot_be_measured(embedding: NDArray[np.float64], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        measure(embedding.astype(np.float32))


def test_odd_shapes_are_measured_and_noted() -> None:
    wide = measure(gaussian(20, 40))
    assert wide["dependence"] is None and any("has not full rank" in note for note in wide.notes)
    constant = gaussian(60, 6)
    constant[:, 2] = 0.5
    constant[3] = 0
    found = measure(constant)
    assert any("1 of 6 columns are constant" in note for note in found.notes) or any(
        "rows are 0" in note for note in found.notes
    )
    narrow = measure(gaussian(60, 1))
    assert narrow["mutual_information"] is None
    alike = measure(np.ones((30, 4), dtype=np.float32))
    assert alike["variance"] == 0 and alike["noise_share"] == 1 and alike["marginal_divergence"] is None
    json.dumps(alike.to_dict(), allow_nan=False)
    json.dumps(measure(np.round(gaussian(60, 6))).to_dict(), allow_nan=False)


def test_the_page_has_every_definition() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "diagnosis.md").read_text(encoding="utf-8")
    for each in DEFINITIONS.values():
        assert f"| {each.title} | {each.meaning} | {each.source} |" in page
