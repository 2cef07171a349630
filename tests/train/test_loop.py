"""The loop: deterministic, resumable at every epoch, undisturbed by evaluation, and it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adrec.config import Config, StageConfig
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out, no_split
from adrec.errors import DataError, RunError
from adrec.evaluate.protocol import evaluate
from adrec.nn.networks import SASRecNetwork
from adrec.recommend import NetworkScorer
from adrec.train.checkpoint import Snapshot
from adrec.train.loop import Trainer, cosine

Make = Callable[..., Config]


def trainer(config: Config, dataset: Dataset, **options: Any) -> Trainer:
    return Trainer(config, dataset, leave_one_out(dataset), seed=options.pop("seed", 1), **options)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_same_seed_same_bits_other_seed_other_bits(tiny: Make, dataset: Dataset) -> None:
    first, again, other = (trainer(tiny(), dataset, seed=seed).run() for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_global_generators_are_neither_read_nor_moved(tiny: Make, dataset: Dataset) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = trainer(tiny(), dataset).run()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert same(first, trainer(tiny(), dataset).run())


@pytest.mark.parametrize("changes", [{}, {"align__embedding": "decaying"}, {"guidance_scale": 2.0}])
def test_resuming_from_any_epoch_gives_the_same_bits(tiny: Make, dataset: Dataset, changes: dict[str, Any]) -> None:
    config = tiny(**changes)
    snapshots: list[Snapshot] = []

    def keep(_: Mapping[str, Any]) -> None:
        snapshot = whole.snapshot()
        snapshots.append(Snapshot({name: value.clone() for name, value in snapshot.tensors.items()}, snapshot.values))

    whole = trainer(config, dataset, on_epoch=keep)
    expected = whole.run()
    assert len(snapshots) == 8
    for snapshot in snapshots:
        resumed = trainer(config, dataset, seed=99)  # the seed's generators are replaced by the snapshot's
        resumed.restore(snapshot)
        assert same(resumed.run(), expected)
        assert resumed.place.ended == whole.place.ended


def test_evaluating_does_not_change_training(tiny: Make, dataset: Dataset) -> None:
    often = tiny(
        finetune__evaluate_every=1, pretrain__evaluate_every=1, pretrain__first_evaluation=1, align__patience=0
    )
    split = leave_one_out(dataset)
    last: dict[str, list[torch.Tensor]] = {"validated": [], "not": []}
    for name, each in (("validated", split), ("not", no_split(dataset))):
        unselected = Trainer(often, dataset, type(split)("s", split.train_ends, each.validation, each.test), seed=1)
        unselected._select = lambda *_: False  # type: ignore[method-assign] - selection chooses what comes after
        unselected.on_epoch = lambda _, t=unselected, n=name: last[n].append(t.network.item_embedding.weight.clone())
        unselected.run()
    assert all(torch.equal(a, b) for a, b in zip(last["validated"], last["not"], strict=True))


@pytest.mark.parametrize("mode", ["frozen", "decaying", "train"])
def test_the_embedding_in_the_align_stage(tiny: Make, dataset: Dataset, mode: str) -> None:
    weights = []
    made = trainer(tiny((2, 3, 0), align__embedding=mode), dataset)
    made.on_epoch = lambda _: weights.append(made.network.item_embedding.weight.detach().clone())  # type: ignore[union-attr]
    made.run()
    pretrained, aligned = weights[1], weights[-1]
    if mode == "frozen":
        assert torch.equal(aligned, pretrained)
    elif mode == "decaying":
        steps = 3 * made.steps_per_epoch
        shrunk = pretrained.abs() - aligned.abs()
        large = pretrained.abs() > 0.01 * steps
        # Adam turns the tiny decay into steps of the learning rate, 0.001 each.
        assert (shrunk[large] > 0.0009 * steps).all()
        assert (shrunk[large] < 0.0011 * steps).all()
    else:
        assert not torch.equal(aligned, pretrained)


def test_align_starts_from_the_selected_embedding_and_finetune_goes_on(tiny: Make, dataset: Dataset) -> None:
    seen: list[tuple[int, float]] = []
    made = trainer(tiny((2, 2, 2)), dataset)

    def look(_: Mapping[str, Any]) -> None:
        assert made.network is not None
        assert made.optimizer is not None
        state = (
            made.optimizer.state[next(made.network.cam.parameters())]
            if not isinstance(made.network, SASRecNetwork)
            else {"step": torch.tensor(0)}
        )
        seen.append((made.place.schedule_epoch, float(state["step"])))

    made.on_epoch = look
    made.run()
    steps = made.steps_per_epoch
    assert [epoch for epoch, _ in seen] == [1, 2, 1, 2, 3, 4]
    assert [step for _, step in seen] == [0, 0, steps, 2 * steps, 3 * steps, 4 * steps]


def test_a_stage_of_no_epochs_is_left_out(tiny: Make, dataset: Dataset) -> None:
    made = trainer(tiny((0, 0, 2)), dataset)
    made.run()
    assert [stage["stage"] for stage in made.place.ended] == ["finetune"]
    assert isinstance(trainer(tiny((2, 0, 0)), dataset).run(), SASRecNetwork)


def test_early_stopping_keeps_the_best_weights(tiny: Make, dataset: Dataset) -> None:
    config = tiny((0, 0, 40), finetune__patience=2, finetune__evaluate_every=1, finetune__learning_rate=1e-12)
    made = trainer(config, dataset)
    rows: list[Mapping[str, Any]] = []
    made.on_epoch = rows.append
    made.run()
    # Nothing is learnt at such a rate: the first validation is the best, and two more end the stage.
    assert made.place.ended == [{"stage": "finetune", "epochs": 3, "chosen_epoch": 1}]
    assert [row["selected"] for row in rows] == [True, False, False]


def test_any_selecting_metric_keeps_the_weights(tiny: Make, dataset: Dataset) -> None:
    made = trainer(tiny(), dataset)
    made.network = made._new_network(made.stages[0][1])
    stage: StageConfig = tiny(finetune__select_by=["hr@5", "ndcg@5"]).finetune
    assert made._select(stage, {"hr@5": 0.5, "ndcg@5": 0.5})
    assert made._select(stage, {"hr@5": 0.4, "ndcg@5": 0.6})
    assert not made._select(stage, {"hr@5": 0.5, "ndcg@5": 0.6})
    assert made.place.best == {"hr@5": 0.5, "ndcg@5": 0.6}


def test_it_learns_what_follows_what(tiny: Make, dataset: Dataset) -> None:
    network = trainer(tiny((40, 5, 40)), dataset).run()
    result = evaluate(NetworkScorer(network), dataset, leave_one_out(dataset), cutoffs=(1,))
    assert result.metrics["hr@1"].mean > 0.8  # a guess gets 1 in 12


def test_users_too_short_to_split_still_train(tiny: Make) -> None:
    table = pl.DataFrame({"user": [1, 1, 2, 2], "item": ["a", "b", "a", "b"], "time": [1, 2, 1, 2]})
    made = trainer(tiny((1, 1, 1)), prepare(table))
    assert made.num_tokens == 2
    made.run()


def test_nothing_to_learn_is_said_before_training(tiny: Make) -> None:
    table = pl.DataFrame({"user": [1, 2, 3], "item": ["a", "b", "c"], "time": [1, 2, 3]})
    with pytest.raises(DataError, match="no user has two interactions"):
        trainer(tiny(), prepare(table))


def test_divergence_is_said(tiny: Make, dataset: Dataset) -> None:
    config = tiny((0, 0, 3), finetune__learning_rate=1e30)
    with pytest.raises(RunError, match="diverged"):
        trainer(config, dataset).run()


def test_cosine_schedule() -> None:
    stage = StageConfig(network="adrec", epochs=10, start="scratch", learning_rate=2.0, schedule_epochs=10)
    rates = [cosine(stage, epoch) for epoch in (0, 5, 10, 20)]
    np.testing.assert_allclose(rates, [2.0, 1.0, 0.0, 0.0], atol=1e-12)
