"""Weights of an earlier network on a grown catalogue: old rows stay, new ones are means of what they stand beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adrec.data.prepare import prepare
from adrec.data.split import no_split
from adrec.models.factory import make_model
from adrec.nn.base import make_network
from adrec.runs.fit import make_trainers
from adrec.train.cooccurrence import similarities
from adrec.train.warm import start_from_features, start_from_weights
from adrec.utils.errors import ConfigError
from conftest import cyclic_table


def networks(name: str, preset: str = "default", **changes: Any) -> tuple[Any, Any, Any]:
    """Return a network for the items of a table, one for the same and three new items, and the new sequences."""
    table = cyclic_table(30)
    new = pl.DataFrame(
        {
            "user_id": ["user 1", "user 2", "user 2", "alone", "alone"],
            "item_id": ["new a", "new a", "new b", "new b", "nobody's"],
            "timestamp": [100, 100, 101, 102, 200],
        }
    )
    older = prepare(table)
    newer = prepare(pl.concat([new[:4], new[4:].with_columns(user_id=pl.lit("one")), table]), vocabulary=older)
    small = {"model.hidden_size": 8, "model.num_heads": 2, **changes} if name != "gru4rec" else {"model.hidden_size": 8}
    made = []
    for dataset in (older, newer):
        model = make_model(name, preset, small)
        trainer = make_trainers(model, dataset, no_split(dataset), seed=1)[-1]
        kind = trainer.stages[-1][1].network
        network = make_network(trainer.networks[kind], trainer.config.network_of(kind), dataset.num_items)
        network.initialize(torch.Generator().manual_seed(dataset.num_items))
        made.append((network, trainer.last_sequences))
    return made[0][0], made[1][0], made[1][1]


@pytest.mark.parametrize("name", ["adrec", "sasrec", "bert4rec", "gru4rec"])
def test_old_rows_stay_and_new_ones_are_means_of_their_neighbours(name: str) -> None:
    older, newer, sequences = networks(name)
    before, drawn = older.num_items, newer.item_embedding.weight.detach().clone()
    start_from_weights(newer, older.state_dict(), before, sequences, seed=0)
    old, new = older.item_embedding.weight, newer.item_embedding.weight
    assert torch.equal(new[: before + 1], old[: before + 1])
    assert torch.equal(new[newer.num_items + 1 :], old[before + 1 :])  # a mask's row, if there is one
    near = similarities(sequences, newer.num_items).toarray()[:, : before + 1]
    for item in range(before + 1, newer.num_items + 1):
        weights = torch.from_numpy(np.ascontiguousarray(near[item])).float()
        expected = drawn[item] if weights.sum() == 0 else (weights / weights.sum()) @ old[: before + 1]
        assert torch.allclose(new[item], expected, atol=1e-6)
    assert sum(near[item].any() for item in range(before + 1, newer.num_items + 1)) == 2
    others = {key: value for key, value in older.state_dict().items() if value.shape == newer.state_dict()[key].shape}
    assert all(torch.equal(newer.state_dict()[key], value) for key, value in others.items())


def test_new_items_beside_none_start_where_their_features_say() -> None:
    """An item that stands beside no older one gets the vector of its twin; training goes on from there."""
    older, newer, sequences = networks("adrec")
    before, weight = older.num_items, older.item_embedding.weight.detach()
    features = np.full((newer.num_items + 1, 8), np.nan, dtype=np.float32)
    features[1 : before + 1] = weight[1 : before + 1]  # what they are says all of their vectors
    features[newer.num_items] = weight[3]
    alone = start_from_weights(newer, older.state_dict(), before, sequences, seed=0)
    assert alone.tolist() == [newer.num_items]
    vectors = newer.item_embedding.weight.data
    others = vectors[: newer.num_items].clone()
    start_from_features(newer, features, before, sequences, alone)
    assert torch.allclose(vectors[newer.num_items], weight[3], atol=0.05 * float(weight[3].norm()))
    assert torch.equal(vectors[: newer.num_items], others)


def test_networks_that_differ_are_refused() -> None:
    older, _, sequences = networks("sasrec")
    _, wider, _ = networks("sasrec", **{"model.num_blocks": 3})
    with pytest.raises(ConfigError, match="does not fit the weights that it is to start from: they differ in"):
        start_from_weights(wider, older.state_dict(), older.num_items, sequences, seed=0)
    with pytest.raises(ConfigError, match="fewer items than the earlier one"):
        start_from_weights(older, older.state_dict(), older.num_items + 1, sequences, seed=0)
