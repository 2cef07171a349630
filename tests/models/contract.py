"""The contract of every model as tests: a mix-in that a model's test class fills in.

For example::

    class TestItemKNN(ModelContract):
        model = "itemknn"

    class TestSASRec(ModelContract):
        model = "sasrec"
        changes: ClassVar = {"train.epochs": 3, "model.hidden_size": 16}
        learning: ClassVar = {"train.epochs": 30}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from adrec.data.batch import PackedBatch, history_batch
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.split import Split, make_split
from adrec.evaluate.protocol import evaluate
from adrec.models.base import Model
from adrec.models.network import NetworkModel
from adrec.models.registry import find_model
from adrec.runs.fit import fit
from adrec.runs.weights import read_weights, write_weights
from adrec.utils.errors import ConfigError, DataError
from conftest import cyclic_table

NUM_ITEMS = 40
HISTORIES = ([3], [7], [1, 2, 3], [2, 2, 2], [5, 6, 7, 8, 9, 10], [9, 1, 4, 1, 30], list(range(11, 31)), [40, 1])


@cache
def cyclic() -> Dataset:
    """Return data with a known answer: every item is followed by the next one."""
    return prepare(cyclic_table(150, NUM_ITEMS))


@cache
def growing() -> Dataset:
    """Return data in which items appear all the time, split by time: some are new and some users too, when it tests."""
    rows = [(f"user {u}", f"item {u // 4 + step}", u + step) for u in range(80) for step in range(3 + u % 7)]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare(table, split="time:0.6,0.8")


def packed(histories: Sequence[Sequence[int]]) -> PackedBatch:
    """Return histories as a batch."""
    ends = np.cumsum([len(history) for history in histories])
    items = np.concatenate([np.array(history, dtype=np.int32) for history in histories])
    return history_batch(items, np.concatenate([[0], ends[:-1]]), ends, max_length=max(map(len, histories)))


def scores(model: Model, histories: Sequence[Sequence[int]]) -> Tensor:
    """Return the scores of the items 1 to V for each history, [B, V]; what the model does not see is cut off."""
    seen = [list(history)[-model.max_length :] for history in histories]
    return model(packed(seen)).block(slice(1, model.num_items + 1)).cpu()


def with_items(dataset: Dataset, positions: Any, items: Any) -> Dataset:
    """Return ``dataset`` with other items at some positions."""
    changed = np.array(dataset.items)
    changed[positions] = items
    return replace(dataset, items=changed)


def same(left: Tensor, right: Tensor) -> None:
    """Check that scores are equal but for rounding."""
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


class ModelContract:
    """What :mod:`adrec.models.base` promises, for one model.

    Attributes:
        model: its name.
        changes: of its configuration, so that it trains in moments.
        learning: further changes, with which it learns the known answer.
        hits: the least hit ratio@1 then, where chance has 1 / 40; None for a model that cannot learn it.
        diffuses: whether it takes denoising steps.
        preset: what its configuration starts from.
    """

    model: ClassVar[str]
    changes: ClassVar[Mapping[str, Any]] = {}
    learning: ClassVar[Mapping[str, Any]] = {}
    hits: ClassVar[float | None] = 0.5
    diffuses: ClassVar[bool] = False
    preset: ClassVar[str] = "default"

    @classmethod
    def make(cls, **more: Any) -> Model:
        """Return the model, not trained."""
        found = find_model(cls.model)
        return found(found.Config.make(cls.preset, {**cls.changes, **more}))

    @classmethod
    def fitted(cls, dataset: Dataset, split: Split | None = None, **more: Any) -> Model:
        """Return the model, trained on a data set with its own split by default."""
        model = cls.make(**more)
        fit(model, dataset, split or make_split(dataset), seed=1)
        return model

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls) -> Model:
        """Return the model of :func:`cyclic`, trained once."""
        return cls.fitted(cyclic())

    def test_says_what_it_is(self, trained: Model) -> None:
        said = trained.describe()
        assert json.loads(json.dumps(said)) == said
        assert said["model"] == self.model
        assert said["paper"]
        assert type(trained).Config.from_dict(said["config"]) == trained.config
        assert trained.num_parameters == said["parameters"] > 0

    def test_scores_every_item_for_every_history(self, trained: Model) -> None:
        assert trained.num_items == NUM_ITEMS
        found = scores(trained, HISTORIES)
        assert found.shape == (len(HISTORIES), NUM_ITEMS)
        assert torch.isfinite(found).all()

    def test_a_permutation_of_the_batch_permutes_the_scores(self, trained: Model) -> None:
        order = torch.randperm(len(HISTORIES), generator=torch.Generator().manual_seed(1)).tolist()
        same(scores(trained, [HISTORIES[each] for each in order]), scores(trained, HISTORIES)[order])

    @pytest.mark.parametrize("row", range(len(HISTORIES)))
    def test_a_history_alone_has_the_scores_that_it_has_beside_longer_ones(self, trained: Model, row: int) -> None:
        same(scores(trained, [HISTORIES[row]])[0], scores(trained, HISTORIES)[row])

    def test_blocks_and_single_scores_agree(self, trained: Model) -> None:
        seen = [history[-trained.max_length :] for history in HISTORIES]
        found = trained(packed(seen))
        assert found.num_users == len(HISTORIES)
        blocks = [found.block(slice(first, first + 7)) for first in range(1, NUM_ITEMS + 1, 7)]
        whole = torch.cat([block.clone() for block in blocks], dim=1)[:, :NUM_ITEMS]
        for block in blocks:
            block.fill_(torch.nan)  # a block is the caller's to change
        same(found.block(slice(1, NUM_ITEMS + 1)), whole)
        for item in range(1, NUM_ITEMS + 1):
            rows = torch.arange(len(HISTORIES), device=found.device)
            single = found.of(rows, torch.full_like(rows, item))
            apart = (single - whole[:, item - 1].double()).abs()
            assert (apart <= found.rounding()[:, 0]).all()

    def test_its_state_is_all_of_it(self, trained: Model, tmp_path: Path) -> None:
        restored = self.make()
        restored.restore(trained.state(), trained.num_items)
        write_weights(tmp_path / "weights.safetensors", trained)
        read = read_weights(tmp_path / "weights.safetensors", self.make(), seed=1)
        for model in (restored, read):
            assert (model.num_items, model.max_length) == (trained.num_items, trained.max_length)
            assert model.ranks_padding == trained.ranks_padding
        # The seed is the run folder's, not the state's: with noise it alone is equal.
        assert torch.equal(scores(read, HISTORIES), scores(trained, HISTORIES))
        assert self.diffuses or torch.equal(scores(restored, HISTORIES), scores(trained, HISTORIES))

    def test_a_state_that_does_not_fit_is_refused(self, trained: Model) -> None:
        for state, num_items in (({}, NUM_ITEMS), (trained.state(), NUM_ITEMS - 1)):
            with pytest.raises((KeyError, RuntimeError)):
                self.make().restore(state, num_items)

    def test_the_same_seed_gives_the_same_and_no_global_generator_is_read(self, trained: Model) -> None:
        torch.manual_seed(7)
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - it must rest
        again = self.fitted(cyclic())
        for name, value in trained.state().items():
            assert torch.equal(again.state()[name], value), name
        assert torch.equal(scores(again, HISTORIES), scores(trained, HISTORIES))
        assert torch.equal(torch.get_rng_state(), before)
        assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002

    def test_learns_from_the_training_part_alone(self, trained: Model) -> None:
        dataset, split = cyclic(), make_split(cyclic())
        positions = split.test.positions
        if not isinstance(trained, NetworkModel):  # whose weights are selected by validation
            positions = np.concatenate([positions, split.validation.positions])
        again = self.fitted(with_items(dataset, positions, 1), split)
        assert torch.equal(scores(again, HISTORIES), scores(trained, HISTORIES))

    def test_users_without_training_and_items_after_it(self) -> None:
        dataset, split = growing(), make_split(growing())
        assert split.num_items < dataset.num_items
        assert (split.train_ends == dataset.offsets[:-1]).any()
        model = self.fitted(dataset, split)
        assert model.num_items == split.num_items
        found = scores(model, [[item] for item in range(1, split.num_items + 1)])
        assert torch.isfinite(found).all()
        assert evaluate(model, dataset, split).num_new_items > 0

    def test_items_that_never_train_are_scored_and_may_be_a_history(self) -> None:
        """An older vocabulary numbers items that the training part does not have."""
        dataset, split = cyclic(), make_split(cyclic())
        model = self.fitted(with_items(dataset, dataset.items == NUM_ITEMS, 1), split)
        assert torch.isfinite(scores(model, [[NUM_ITEMS], [NUM_ITEMS, 1], [1]])).all()

    def test_nothing_to_learn_from_is_one_sentence(self) -> None:
        dataset, split = cyclic(), make_split(cyclic())
        with pytest.raises(DataError):
            self.fitted(dataset, replace(split, train_ends=np.array(dataset.offsets[:-1])))

    def test_learns_what_comes_next(self) -> None:
        dataset, split = cyclic(), make_split(cyclic())
        model = self.fitted(dataset, split, **self.learning)
        evaluation = evaluate(model, dataset, split, cutoffs=(1, 10), seen="leave-out")
        assert 0 < evaluation.metrics["hr@10"].mean <= 1
        if self.hits is not None:
            assert evaluation.metrics["hr@1"].mean >= self.hits

    def test_takes_steps_only_where_it_diffuses(self) -> None:
        model = self.fitted(growing())
        model.with_inference(None, None)
        if self.diffuses:
            model.with_inference(1, "ddim")
            return
        with pytest.raises(ConfigError, match="no denoising steps"):
            model.with_inference(1, None)

    def test_vectors_of_items_are_by_item_number(self, trained: Model) -> None:
        vectors = trained.item_vectors
        assert vectors is None or (len(vectors) == NUM_ITEMS + 1 and vectors.dtype == np.float32)
