"""The index of nearest items: exact scores, recall that is measured, and rules that stay rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from adrec import ADRec
from adrec.inference.engine import Engine, Query
from adrec.inference.index import indexed
from adrec.inference.recommender import Recommender
from adrec.models.adrec import ADRecModel
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import make_network
from adrec.utils.errors import ConfigError
from conftest import cyclic_table, tiny_changes
from serve.server import serving

pytest.importorskip("usearch")
V = 3000


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Yield an engine of some thousand items with drawn vectors."""
    from adrec.config.adrec import preset
    from adrec.data.prepare import prepare

    dataset = prepare(cyclic_table(num_users=600, num_items=V), time_unit="s")
    model = ADRecModel(preset("default", {"model.hidden_size": 32, "model.num_heads": 2}))
    network = make_network(ADRecNetwork, model.training.network, dataset.num_items)  # type: ignore[arg-type]
    network.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.repeat_preference.fill_(-0.05)  # type: ignore[union-attr]
    model.adopt(network, 0)
    yield Recommender(model, dataset, temperature=1.0).engine


def test_answers_are_those_of_the_whole_catalogue(engine: Engine, tmp_path: Path) -> None:
    histories = [engine.dataset.history(user).astype(np.int64) for user in range(100)]
    queries = [Query(each, 10, at % 2 == 0, each[:1]) for at, each in enumerate(histories)]
    exact = engine.answer(queries)
    engine.index = indexed(engine, "usearch", cache=tmp_path / "index", threads=1)
    assert engine.index.recall >= 0.99
    found = engine.answer(queries)
    shares = []
    for own, wanted, query in zip(found, exact, queries, strict=True):
        scores = {each.item: each.score for each in wanted.items}
        shares.append(len(scores.keys() & {each.item for each in own.items}) / 10)
        assert [each.score for each in own.items] == sorted((each.score for each in own.items), reverse=True)
        for each in own.items:
            assert each.confidence is None
            if each.item in scores:
                assert each.score == pytest.approx(scores[each.item], abs=1e-5)
        blocked = {engine.item_of(int(number)) for number in (query.history if query.leaves_out else query.block)}
        assert not blocked & {each.item for each in own.items}
    assert np.mean(shares) >= 0.97
    listed = Query(histories[0], 5, False, histories[0][:0], allow=np.arange(1, 40))
    assert [each.item for each in engine.answer([listed])[0].items] and engine.answer([listed])[0].items[0].confidence


@pytest.mark.slow
def test_a_kept_index_is_taken_and_a_damaged_one_built_again(engine: Engine, tmp_path: Path) -> None:
    cache = tmp_path / "index"
    first = indexed(engine, "usearch", cache=cache, threads=1)
    content = cache.read_bytes()
    again = indexed(engine, "usearch", cache=cache, threads=1)
    assert again.recall == first.recall and cache.read_bytes() == content
    for damaged in (b"", content[:1000], bytes(len(content))):
        cache.write_bytes(damaged)
        assert indexed(engine, "usearch", cache=cache, threads=1).recall >= 0.99
        assert len(cache.read_bytes()) > 1000


def test_other_models_have_none() -> None:
    markov = ADRec(model="markov").fit(cyclic_table()).recommender().engine
    with pytest.raises(ConfigError, match="inner products"):
        indexed(markov, "usearch")


@pytest.mark.slow
def test_the_service_tells_its_recall(small_run: Path) -> None:
    with serving(small_run, "--index", "usearch") as client:
        about = client.get("/v1/model").json()
        assert about["index"]["recall"] >= 0.99
        assert len(client.post("/v1/recommend", json={"user": "user 1", "k": 3}).json()["items"]) == 3
    assert list(small_run.glob("index-*.usearch"))


def test_tiny_catalogues(tmp_path: Path) -> None:
    model = ADRec("paper", tiny_changes(0, 0, 1), seed=1, device="cpu").fit(cyclic_table(num_items=4))
    made = model.recommender().engine
    wanted = made.answer([Query(np.array([1, 2]), 10, False, np.array([], dtype=np.int64))])[0].items
    made.index = indexed(made, "usearch")
    found = made.answer([Query(np.array([1, 2]), 10, False, np.array([], dtype=np.int64))])[0].items
    assert [each.item for each in found] == [each.item for each in wanted]
