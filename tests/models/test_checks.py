"""A user's own model is tried when it is fitted: what breaks the contract is named, before a run is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from adrec import ADRec
from adrec.bench.ledger import Ledger
from adrec.config.base import Settings
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.split import Split, make_split
from adrec.models import registry as models
from adrec.models.base import Model
from adrec.models.baselines.sasrec import SASRecPlus
from adrec.models.checks import check_fitted
from adrec.models.registry import find_model, model_names, register
from adrec.nn.scores import InnerProducts, Scores, Table
from adrec.runs.fit import fit
from adrec.utils.errors import ConfigError
from command import adrec, refused
from conftest import cyclic_table
from models.contract import cyclic


class Good(Model):
    """Scores each item by how often it stands in the training part, and the last item of the history highest."""

    name, paper, Config = "good", "mine", Settings

    def fit(self, dataset: Dataset, split: Split, *, seed: int = 0, device: torch.device | None = None) -> None:
        counts = torch.bincount(torch.tensor(dataset.items[:400], dtype=torch.int64), minlength=split.num_items + 1)
        self.restore({"counts": counts.float()}, split.num_items)

    def __call__(self, batch: PackedBatch) -> Scores:
        scores = self.counts.repeat(batch.num_users, 1)
        scores[torch.arange(batch.num_users), batch.items[batch.cu_seqlens[1:] - 1]] += 100
        return Table(scores)

    def state(self) -> Mapping[str, Tensor]:
        return {"counts": self.counts}

    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        self.counts, self.num_items = state["counts"], num_items


class Stateless(Good):
    """Has learnt nothing, which is allowed."""

    def state(self) -> Mapping[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        self.counts, self.num_items = torch.ones(num_items + 1), num_items


class ATensor(Good):
    def __call__(self, batch: PackedBatch) -> Any:
        return super().__call__(batch).block(slice(0, self.num_items + 1))


class TooFewUsers(Good):
    def __call__(self, batch: PackedBatch) -> Scores:
        return Table(self.counts[None])


class TooFewItems(Good):
    def __call__(self, batch: PackedBatch) -> Scores:
        return Table(self.counts.repeat(batch.num_users, 1)[:, :-5])


class NotNumbers(Good):
    def __call__(self, batch: PackedBatch) -> Scores:
        return Table(self.counts.repeat(batch.num_users, 1) * torch.nan)


class NoItems(Good):
    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        super().restore(state, 0)


class OfTheBatch(Good):
    def __call__(self, batch: PackedBatch) -> Scores:
        return Table(self.counts.repeat(batch.num_users, 1) * batch.num_users)


class FewItems(Good):
    """Ranks what it does not know behind the three items that it knows: that would be a fine hit ratio."""

    def restore(self, state: Mapping[str, Tensor], num_items: int, device: torch.device | None = None) -> None:
        super().restore({"counts": state["counts"][:4]}, 3)


class Counts(Good):
    def __call__(self, batch: PackedBatch) -> Scores:
        return Table(self.counts.long().repeat(batch.num_users, 1))


class Gradients(Good):
    def __call__(self, batch: PackedBatch) -> Scores:
        return Table(self.counts.clone().requires_grad_().repeat(batch.num_users, 1))


class OneBlock(Good):
    def __call__(self, batch: PackedBatch) -> Scores:
        class KeptWeights(Table):
            def block(self, items: slice) -> Tensor:
                return self.scores[:, items]

        return KeptWeights(self.counts.repeat(batch.num_users, 1))


class NoStateAtAll(Good):
    def state(self) -> Any:
        return None


class SparseState(Good):
    def state(self) -> Mapping[str, Tensor]:
        return {"counts": self.counts.to_sparse()}


class SharedState(Good):
    def state(self) -> Mapping[str, Tensor]:
        return {"counts": self.counts, "again": self.counts[1:]}


class NoDevice(Good):
    def restore(self, state: Mapping[str, Tensor], num_items: int) -> None:  # type: ignore[override]
        self.counts, self.num_items = state["counts"], num_items


class AtRandom(Good):
    def __call__(self, batch: PackedBatch) -> Scores:
        return InnerProducts(torch.rand(batch.num_users, 1), self.counts[:, None])


class AnotherOf(Good):
    def __call__(self, batch: PackedBatch) -> Scores:
        class Other(Table):
            def of(self, rows: Tensor, items: Tensor) -> Tensor:
                return super().of(rows, items) + 1

        return Other(self.counts.repeat(batch.num_users, 1))


class ArrayState(Good):
    def state(self) -> Any:
        return {"counts": self.counts.numpy()}


class Forgets(Good):
    def state(self) -> Mapping[str, Tensor]:
        return {"counts": torch.zeros_like(self.counts)}


class OtherName(Good):
    def state(self) -> Mapping[str, Tensor]:
        return {"numbers": self.counts}


CLAUSES = {
    ATensor: "calling it must return Scores (adrec.models.Table of a tensor [B, V + 1] is one); it returned a Tensor.",
    TooFewUsers: "it returned scores of 1 histories for a batch of 8.",
    TooFewItems: "a block of scores of 8 histories and the items 1 to 40 must be [8, 40]; it is [8, 35].",
    NotNumbers: "scores must be numbers; some are NaN.",
    NoItems: "'num_items' is 0 after fit, and should be 40, the items of the split.",
    FewItems: "'num_items' is 3 after fit, and should be 40, the items of the split.",
    Counts: "scores must be floating-point numbers without gradients (torch.no_grad).",
    Gradients: "scores must be floating-point numbers without gradients (torch.no_grad).",
    OneBlock: "'block' of its scores must give a tensor of its own, as who asks for it overwrites it.",
    NoStateAtAll: "'state' must give tensors by name; it gave a NoneType.",
    SparseState: "'state' must give dense tensors that NumPy knows; 'counts' is none.",
    SharedState: "the tensors of 'state' must not share memory; give a clone.",
    OfTheBatch: "a history's scores must not depend on the batch that it is in, and be the same each time.",
    AtRandom: "a history's scores must not depend on the batch that it is in, and be the same each time.",
    AnotherOf: "'of' its scores must give, [n], what stands in 'block' for the same pairs.",
    ArrayState: "'state' must give tensors by name; 'counts' is a ndarray "
    "(torch.from_numpy makes a tensor of an array).",
    Forgets: "'restore' with what 'state' gave, on a new object, must give the same scores.",
    OtherName: "'restore' does not take what 'state' gives (KeyError('counts')).",
}


@pytest.mark.parametrize(("model", "clause"), CLAUSES.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_each_broken_clause_is_named(model: type[Model], clause: str) -> None:
    broken, split = model(), make_split(cyclic())
    broken.fit(cyclic(), split)
    with pytest.raises(ConfigError) as caught:
        check_fitted(broken, cyclic(), split)
    assert str(caught.value) == f"{model.__module__}:{model.__name__} breaks the contract of a model: {clause}"


def test_it_is_named_in_python_too() -> None:
    with patch.dict(models._registered, {}):
        register(TooFewItems)
        with pytest.raises(ConfigError, match="TooFewItems breaks the contract of a model: a block of scores"):
            ADRec(model="good").fit(cyclic_table(60, 20))


def test_restoring_takes_a_device() -> None:
    broken, split = NoDevice(), make_split(cyclic())
    broken.fit(cyclic(), split)
    with pytest.raises(ConfigError, match="'restore' does not take what 'state' gives .TypeError"):
        check_fitted(broken, cyclic(), split)


@pytest.mark.parametrize("model", [Good, Stateless])
def test_a_model_that_keeps_the_contract_passes(model: type[Model]) -> None:
    good, split = model(), make_split(cyclic())
    good.fit(cyclic(), split)
    check_fitted(good, cyclic(), split)


class Own(SASRecPlus):
    """A network of the user's own."""


class OfItsWeightsAndMore(SASRecPlus):
    """Scores with a number that is in no state."""

    more: ClassVar[list[float]] = [0.0]

    def __call__(self, batch: PackedBatch) -> Scores:
        self.more[0] += 1
        scores = super().__call__(batch)
        assert isinstance(scores, InnerProducts)
        return InnerProducts(scores.query * self.more[0], scores.items)


def test_networks_of_the_users_own_are_tried_too() -> None:
    split, changes = make_split(cyclic()), {"train.epochs": 1, "model.hidden_size": 8}
    for model, passes in ((Own, True), (OfItsWeightsAndMore, False)):
        own = model(model.Config.make("default", changes))
        if passes:
            fit(own, cyclic(), split, seed=1)
            assert isinstance(own.network, nn.Module)
        else:
            with pytest.raises(ConfigError, match="be the same each time"):
                fit(own, cyclic(), split, seed=1)


@pytest.mark.parametrize("name", ["popular", "markov", "itemknn", "vsknn", "ease", "recent"])
def test_the_models_of_adrec_would_pass(name: str) -> None:
    assert name in model_names()
    found = find_model(name)
    outside = type(found.__name__, (found,), {"__module__": "elsewhere"})
    model, split = outside(found.Config.make()), make_split(cyclic())
    fit(model, cyclic(), split)
    check_fitted(model, cyclic(), split)


BROKEN = """
import torch
from adrec.nn.scores import Table
from adrec.models.base import Model
from adrec.config.base import Settings


class Short(Model):
    name, paper, Config = "short", "mine", Settings

    def fit(self, dataset, split, *, seed=0, device=None):
        self.num_items = split.num_items

    def __call__(self, batch):
        return Table(torch.ones(batch.num_users, self.num_items))

    def state(self):
        return {}

    def restore(self, state, num_items, device=None):
        self.num_items = num_items
"""
SAID = (
    "own:Short breaks the contract of a model: a block of scores of 8 histories and the items 1 to 12 must be [8, 12]; "
    "it is [8, 11]."
)


def test_no_run_is_left_and_a_benchmark_reports_it(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(BROKEN)
    cyclic_table(20, 12).write_csv(tmp_path / "table.csv")
    assert adrec("prepare", "table.csv", "--out", "data", cwd=tmp_path).returncode == 0
    assert refused("train", "data", "--model", "own:Short", "--out", "run", "--quiet", cwd=tmp_path) == SAID
    assert not (tmp_path / "run").exists(), "the next attempt has the place to itself"
    done = adrec("benchmark", "data", "--models", "popular,own:Short", "--out", "ledger", cwd=tmp_path)
    assert SAID.removesuffix(".") in " ".join(done.stderr.split()), done.stderr
    failed = [each for each in Ledger.open(tmp_path / "ledger").finished() if each.error]
    assert [each.job.model for each in failed] == ["own:Short"]
