"""The loop: deterministic, resumable at every epoch, undisturbed by evaluation, and it learns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adrec.config.adrec import Config, preset
from adrec.config.stage import StageConfig
from adrec.data.batch import PackedBatch, history_batch
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.split import Split, leave_one_out, no_split
from adrec.evaluate.protocol import evaluate
from adrec.models.network import NetworkScorer
from adrec.nn.pretraining import PretrainingNetwork
from adrec.runs.refit import refit_config
from adrec.train import loop
from adrec.train.callbacks import Callback
from adrec.train.checkpoint import Snapshot
from adrec.train.loop import Trainer
from adrec.train.step import learning_rate
from adrec.utils.errors import ConfigError, DataError, RunError
from conftest import OnEpoch, adrec_trainer, equal, same

Make = Callable[..., Config]
Maker = Callable[..., Trainer]


@pytest.fixture
def trainer(device: torch.device) -> Maker:
    """Return a maker of trainers on the device."""

    def make(config: Config, dataset: Dataset, split: Split | None = None, **options: Any) -> Trainer:
        split = split or leave_one_out(dataset)
        return adrec_trainer(config, dataset, split, seed=options.pop("seed", 1), device=device, **options)

    return make


def close(a: Any, b: Any, device: torch.device) -> bool:
    """Return whether rows of losses or metrics agree: as :func:`conftest.equal` has it."""

    def flat(values: Any) -> list[float]:
        if isinstance(values, list | Mapping):
            each = values.values() if isinstance(values, Mapping) else values
            return [number for value in each for number in flat(value)]
        return [math.nan if values is None else values]

    return a == b if device.type == "cpu" else np.allclose(flat(a), flat(b), rtol=0.01, atol=0.05, equal_nan=True)


def test_same_seed_same_bits_other_seed_other_bits(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    first, again, other = (trainer(tiny(), dataset, seed=seed).run() for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_global_generators_are_neither_read_nor_moved(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = trainer(tiny(), dataset).run()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert same(first, trainer(tiny(), dataset).run())


NEW = {
    "decoder": "adaptive",
    "ranks_by": "condition",
    "num_inference_steps": None,
    "unit_targets": True,
    "repeat_bias": True,
    "finetune__averaging": 0.9,
    "finetune__consistency": 2.0,
    "align__warmup_epochs": 2,
    "align__optimizer": "adamw",
    "finetune__optimizer": "adamw",
}


@pytest.mark.parametrize("changes", [{}, {"align__embedding": "decaying"}, {"guidance_scale": 2.0}, NEW], ids=str)
def test_resuming_from_any_epoch_gives_the_same_bits(
    trainer: Maker, tiny: Make, dataset: Dataset, changes: dict[str, Any], device: torch.device
) -> None:
    config = tiny(**changes)
    snapshots: list[Snapshot] = []

    def keep(_: Mapping[str, Any]) -> None:
        snapshot = whole.snapshot()
        snapshots.append(Snapshot({name: value.clone() for name, value in snapshot.tensors.items()}, snapshot.values))

    whole = trainer(config, dataset, on_epoch=keep)
    expected = whole.run()
    assert len(snapshots) == 8
    for snapshot in snapshots:
        resumed = trainer(config, dataset)
        resumed.order.manual_seed(99)
        resumed.rng.manual_seed(99)
        resumed.restore(snapshot)
        assert same(resumed.run(), expected)
        assert [stage["stage"] for stage in resumed.progress.ended] == ["pretrain", "align", "finetune"]
        assert resumed.progress.ended == whole.progress.ended or device.type != "cpu"


def test_an_epoch_that_ends_training_is_kept_and_shown(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    told: list[str] = []

    def enough(row: Mapping[str, Any]) -> None:
        raise TimeoutError

    functions = (lambda row: told.append(f"kept {row['epoch']}"), lambda row: told.append("shown"), enough)
    with pytest.raises(TimeoutError):
        trainer(tiny(), dataset, callbacks=[OnEpoch(each) for each in functions]).run()
    assert told == ["kept 1", "shown"]


def test_evaluating_does_not_change_training(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    often = tiny(
        finetune__evaluate_every=1, pretrain__evaluate_every=1, pretrain__first_evaluation=1, align__patience=0
    )
    split = leave_one_out(dataset)
    last: dict[str, list[torch.Tensor]] = {"validated": [], "not": []}
    for name, each in (("validated", split), ("not", no_split(dataset))):
        unselected = trainer(often, dataset, replace(split, validation=each.validation, test=each.test))
        unselected._select = lambda *_: False  # type: ignore[method-assign] - selection chooses what comes after
        unselected.callbacks.append(
            OnEpoch(lambda _, t=unselected, n=name: last[n].append(t.network.item_embedding.weight.clone()))
        )
        unselected.run()
    assert all(equal(a, b) for a, b in zip(last["validated"], last["not"], strict=True))


@pytest.mark.parametrize("mode", ["frozen", "decaying", "train"])
def test_the_embedding_in_the_align_stage(trainer: Maker, tiny: Make, dataset: Dataset, mode: str) -> None:
    weights = []
    made = trainer(tiny((2, 3, 0), align__embedding=mode), dataset)
    made.callbacks.append(OnEpoch(lambda _: weights.append(made.network.item_embedding.weight.detach().clone())))  # type: ignore[union-attr]
    made.run()
    pretrained, aligned = weights[1], weights[-1]
    if mode == "frozen":
        assert torch.equal(aligned, pretrained)
    elif mode == "decaying":
        steps = 3 * made.steps(made.last_sequences)
        shrunk = pretrained.abs() - aligned.abs()
        large = pretrained.abs() > 0.01 * steps
        # Adam turns the tiny decay into steps of the learning rate, 0.001 each.
        assert (shrunk[large] > 0.0009 * steps).all()
        assert (shrunk[large] < 0.0011 * steps).all()
    else:
        assert not torch.equal(aligned, pretrained)


def test_align_starts_from_the_selected_embedding_and_finetune_goes_on(
    trainer: Maker, tiny: Make, dataset: Dataset
) -> None:
    seen: list[tuple[int, float]] = []
    made = trainer(tiny((2, 2, 2)), dataset)

    def look(_: Mapping[str, Any]) -> None:
        assert made.network is not None
        assert made.optimizer is not None
        state = (
            made.optimizer.state[next(made.network.cam.parameters())]
            if not isinstance(made.network, PretrainingNetwork)
            else {"step": torch.tensor(0)}
        )
        seen.append((made.progress.schedule_epoch, float(state["step"])))

    made.callbacks.append(OnEpoch(look))
    made.run()
    steps = made.steps(made.last_sequences)
    assert [epoch for epoch, _ in seen] == [1, 2, 1, 2, 3, 4]
    assert [step for _, step in seen] == [0, 0, steps, 2 * steps, 3 * steps, 4 * steps]


def test_a_stage_of_no_epochs_is_left_out(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    made = trainer(tiny((0, 0, 2)), dataset)
    made.run()
    assert [stage["stage"] for stage in made.progress.ended] == ["finetune"]
    assert isinstance(trainer(tiny((2, 0, 0)), dataset).run(), PretrainingNetwork)


def test_early_stopping_keeps_the_best_weights(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    config = tiny((0, 0, 40), finetune__patience=2, finetune__evaluate_every=1, finetune__learning_rate=1e-12)
    made = trainer(config, dataset)
    rows: list[Mapping[str, Any]] = []
    made.callbacks.append(OnEpoch(rows.append))
    made.run()
    # Nothing is learnt at such a rate: the first validation is the best, and two more end the stage.
    (ended,) = made.progress.ended
    assert (ended["stage"], ended["epochs"], ended["chosen_epoch"]) == ("finetune", 3, 1)
    assert ended["embedding"] == rows[0]["embedding"], "the health of the embedding that is kept"
    assert [row["selected"] for row in rows] == [True, False, False]


class Stop(Callback):
    """Stops a training after its fourth epoch."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def should_stop(self) -> bool:
        return self.trainer.progress.epoch == 4


def test_the_last_epoch_is_validated_where_there_is_another_to_choose(
    trainer: Maker, tiny: Make, dataset: Dataset
) -> None:
    stage = {"finetune__first_evaluation": 2, "finetune__evaluate_every": 3}
    for epochs, validated in ((1, []), (2, [2]), (4, [2, 4]), (5, [2, 5])):
        made = trainer(tiny((0, 0, epochs), **stage), dataset)
        rows: list[Mapping[str, Any]] = []
        made.callbacks.append(OnEpoch(rows.append))
        made.run()
        assert [row["epoch"] for row in rows if "validation" in row] == validated
    stopped = trainer(tiny((0, 0, 9), **stage), dataset)
    rows = []
    stopped.callbacks.append(OnEpoch(rows.append))
    stopped.callbacks.append(Stop(stopped))
    stopped.run()
    assert [row["epoch"] for row in rows if "validation" in row] == [2, 4], "as is the one with which time is up"


class StopWithin(Callback):
    """Asks to stop from the n-th step on."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_step_end(self) -> None:
        self.left -= 1

    def should_stop(self) -> bool:
        return self.left <= 0


def test_an_epoch_is_cut_where_it_is_asked_to_stop_but_not_the_first(
    trainer: Maker, tiny: Make, dataset: Dataset
) -> None:
    for epochs_before in (0, 2):
        made = trainer(replace(tiny((0, 0, 9)), batch_size=4), dataset)
        steps = made.steps(made.last_sequences)
        assert steps > 2
        stop = StopWithin(epochs_before * steps + 2)
        rows: list[Mapping[str, Any]] = []
        made.callbacks += [stop, OnEpoch(rows.append)]
        made.run()
        # The first epoch goes on to its end, steps - 2 after it was asked; a later one ends at once.
        assert -stop.left == (0 if epochs_before else steps - 2)
        assert [row["epoch"] for row in rows] == list(range(1, epochs_before + 2))
        assert "validation" in rows[-1]
        assert all(0 < loss < 100 for loss in rows[-1]["loss"].values())


def test_a_refit_gives_a_stage_that_is_continued_all_its_epochs(tiny: Make) -> None:
    ended = [
        {"stage": name, "epochs": epochs, "chosen_epoch": chosen}
        for name, epochs, chosen in (("pretrain", 9, 5), ("align", 5, 2), ("finetune", 8, 4))
    ]
    refitted = refit_config(tiny((9, 5, 8), finetune__start="continue"), ended)
    assert {name: stage.epochs for name, stage in refitted.stages.items()} == {
        "pretrain": 5,  # whose chosen embedding the next stage takes over
        "align": 5,  # whose last weights, moments and place in the schedule the next stage goes on from
        "finetune": 4,
    }
    with pytest.raises(ConfigError, match="no numbers of epochs were chosen"):  # of weights that were imported
        refit_config(tiny((9, 5, 8)), ())


def test_the_selected_weights_are_those_of_the_chosen_epoch(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    made = trainer(tiny((0, 0, 12), finetune__evaluate_every=1, finetune__learning_rate=0.05), dataset)
    weights: list[torch.Tensor] = []
    made.callbacks.append(OnEpoch(lambda _: weights.append(made.network.item_embedding.weight.detach().clone())))  # type: ignore[union-attr]
    final = made.run().item_embedding.weight
    chosen = made.progress.ended[0]["chosen_epoch"]
    assert chosen < len(weights), "the best epoch must not be the last for this test to show anything"
    assert torch.equal(final, weights[chosen - 1])
    assert not torch.equal(final, weights[-1])


def with_other_items(dataset: Dataset, from_end: int) -> Dataset:
    """Return the data set with each user's item at a place from the end (1 is the last) replaced by another."""
    items = np.array(dataset.items)
    places = np.asarray(dataset.offsets[1:]) - from_end
    items[places] = items[places] % dataset.num_items + 1
    return replace(dataset, items=items)


def test_nothing_held_out_leaks_into_training_or_selection(
    trainer: Maker, tiny: Make, dataset: Dataset, device: torch.device
) -> None:
    rows: list[list[Mapping[str, Any]]] = []
    networks = []
    for data in (dataset, with_other_items(dataset, 1), with_other_items(dataset, 2)):
        own: list[Mapping[str, Any]] = []
        networks.append(trainer(tiny(), data, on_epoch=own.append).run())
        rows.append(own)
    losses = [[row["loss"] for row in each] for each in rows]
    metrics = [[row.get("validation") for row in each] for each in rows]
    assert close(losses[0], losses[1], device)
    assert close(metrics[0], metrics[1], device)
    assert same(networks[0], networks[1])
    assert close([row for row in losses[2] if row], losses[0], device)  # validation items do not train
    assert metrics[2] != metrics[0]  # but they are what validates


def test_training_without_a_split_uses_every_interaction(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    whole = trainer(tiny(), dataset, no_split(dataset))
    lengths = np.diff(dataset.offsets)
    assert whole.last_sequences.num_tokens == np.minimum(lengths - 1, 8).sum()
    other = trainer(tiny(), with_other_items(dataset, 1), no_split(dataset))
    assert not same(whole.run(), other.run())


@pytest.mark.parametrize(
    "changes",
    [
        {"finetune__mse_weight": 0.0},
        {"finetune__loss": "ce"},
        {"finetune__pcgrad": True, "noise_weight": 1.0},
        {"finetune__weight_decay": 0.1},
        {"finetune__schedule_epochs": 6},
        {"dropout": 0.0},
        {"embedding_dropout": 0.0},
        {"noise_weight": 1.0},
        {"noise_level": "sequence", "noise_weight": 1.0},
        {"noise_schedule": "cosine", "noise_weight": 1.0},
        {"decoder": "mlp"},
        {"causal": False},
        {"geodesic": True},
        {"attend_padding": False},
        {"padding_class": True},
        {"guidance_scale": 2.0},
        {"repeat_bias": True},
        {"ranks_by": "condition", "num_inference_steps": None},
        {"decoder": "adaptive"},
        {"unit_targets": True},
        {"drops_normalized": True},
        {"finetune__averaging": 0.9},
        {"align__optimizer": "adamw", "finetune__optimizer": "adamw"},
        {"finetune__schedule": "constant"},
        {"pretrain__warmup_epochs": 5},
        {"pretrain__initial_embedding": "cooccurrence"},
        {"batch_size": 20},
        {"tokens_per_step": 40},
        {"feed_forward_ratio": 1},
        {"align__beta2": 0.9, "finetune__beta2": 0.9},
    ],
    ids=str,
)
def test_every_setting_changes_the_weights(
    trainer: Maker, tiny: Make, dataset: Dataset, changes: dict[str, Any]
) -> None:
    baseline = {"noise_weight": 1.0} if "noise_weight" in changes and len(changes) > 1 else {}
    first, second = (trainer(tiny((1, 1, 2), **each), dataset).run() for each in (baseline, changes))
    ours, theirs = first.state_dict(), second.state_dict()
    both = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    assert any(not torch.equal(ours[name], theirs[name]) for name in both)


def test_condition_dropout_changes_the_weights_of_a_guided_model(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    first, second = (
        trainer(tiny((1, 1, 1), guidance_scale=2.0, condition_dropout=share), dataset).run() for share in (0.0, 0.9)
    )
    assert not same(first, second)


def test_where_histories_are_long_a_step_has_fewer_users(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    made = trainer(tiny((1, 0, 0), tokens_per_step=40), dataset)
    mean = made.last_sequences.num_tokens / 60
    users = int(40 / mean)
    assert 1 < users < 60
    sizes: list[int] = []
    step = made._step
    made._step = lambda how, some, *more: (sizes.append(some.num_users), step(how, some, *more))[1]  # type: ignore[method-assign]
    made.run()
    assert sizes[:-1] == [users] * (len(sizes) - 1)
    assert len(sizes) == made.steps(made.last_sequences)
    assert sum(sizes) == 60
    assert trainer(tiny((1, 0, 0), tokens_per_step=1), dataset).users_per_step(made.last_sequences) == 1
    assert trainer(tiny((1, 0, 0), tokens_per_step=10**9), dataset).users_per_step(made.last_sequences) == min(
        60, made.config.batch_size
    )


def test_adam_keeps_of_the_squared_gradients_what_its_stage_says(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    """The second step's means of squares, against the gradients themselves."""
    made = trainer(tiny((1, 0, 0), pretrain__beta2=0.6, pretrain__weight_decay=0.0), dataset)
    squares: list[torch.Tensor] = []
    step = made._step

    def watched(*given: Any) -> Any:
        losses = step(*given)
        assert made.network is not None and made.optimizer is not None
        weight = made.network.get_parameter("norm.weight")
        assert weight.grad is not None
        if len(squares) < 2:
            squares.append(weight.grad.square().double())
            if len(squares) == 2:
                kept = made.optimizer.state[weight]["exp_avg_sq"].double()
                torch.testing.assert_close(kept, 0.4 * (0.6 * squares[0] + squares[1]), rtol=1e-4, atol=0)
        return losses

    made._step = watched  # type: ignore[method-assign]
    made.run()
    assert len(squares) == 2


def test_users_are_shuffled(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    """Another order of users in each epoch: with shuffling off, the first batch would be the same users every time."""
    made = trainer(tiny((2, 0, 0)), dataset)
    seen: list[list[tuple[int, ...]]] = []
    step = made._step

    def watched(how: Any, batch: PackedBatch, *more: Any) -> Mapping[str, torch.Tensor]:
        histories = np.split(batch.items.numpy(), np.cumsum(batch.lengths)[:-1])
        seen.append([tuple(each.tolist()) for each in histories])
        return step(how, batch, *more)

    made._step = watched  # type: ignore[method-assign]
    made.run()
    steps = made.steps(made.last_sequences)
    first, second = seen[:steps], seen[steps:]
    assert first != second
    assert sorted(chain(*first)) == sorted(chain(*second))
    assert sum(map(len, first)) == 60


def test_steps_of_inference_and_the_padding_row(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    network = trainer(tiny((1, 1, 1), noise_weight=1.0, num_inference_steps=2), dataset).run()
    batch = history_batch(np.asarray(dataset.items), dataset.offsets[:-1], dataset.offsets[1:], 8)
    whole, default, fewer = (NetworkScorer(network, num_steps=steps)(batch).query for steps in (4, None, 2))
    assert equal(fewer, default)
    assert not torch.equal(whole, fewer)
    assert not NetworkScorer(network).ranks_padding
    ranked = trainer(tiny((1, 1, 1), padding_class=True), dataset).run()
    assert NetworkScorer(ranked).ranks_padding


def test_any_selecting_metric_keeps_the_weights(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    made = trainer(tiny(), dataset)
    made.network = made.new_network(made.stages[0][1])
    stage: StageConfig = tiny(finetune__select_by=["hr@5", "ndcg@5"]).finetune
    assert made._select(stage, {"hr@5": 0.5, "ndcg@5": 0.5})
    assert made._select(stage, {"hr@5": 0.4, "ndcg@5": 0.6})
    assert not made._select(stage, {"hr@5": 0.5, "ndcg@5": 0.6})
    assert made.progress.best == {"hr@5": 0.5, "ndcg@5": 0.6}


def test_it_learns_what_follows_what(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    network = trainer(tiny((40, 5, 40)), dataset).run()
    result = evaluate(NetworkScorer(network), dataset, leave_one_out(dataset), cutoffs=(1,))
    assert result.metrics["hr@1"].mean > 0.8  # a guess gets 1 in 12


def test_users_too_short_to_split_still_train(trainer: Maker, tiny: Make) -> None:
    table = pl.DataFrame({"user": [1, 1, 2, 2], "item": ["a", "b", "a", "b"], "time": [1, 2, 1, 2]})
    made = trainer(tiny((1, 1, 1)), prepare(table))
    assert made.last_sequences.num_tokens == 2
    made.run()


def test_nothing_to_learn_is_said_before_training(trainer: Maker, tiny: Make) -> None:
    table = pl.DataFrame({"user": [1, 2, 3], "item": ["a", "b", "c"], "time": [1, 2, 3]})
    with pytest.raises(DataError, match="no user has two interactions"):
        trainer(tiny(), prepare(table))


def test_divergence_is_said(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    config = tiny((0, 0, 3), finetune__learning_rate=1e30)
    with pytest.raises(RunError, match="diverged"):
        trainer(config, dataset).run()


def test_divergence_is_noticed_within_twenty_steps(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    class Count(Callback):
        steps = 0

        def on_step_end(self) -> None:
            self.steps += 1

    count = Count()
    made = trainer(tiny((0, 0, 3), finetune__learning_rate=1e30, batch_size=1), dataset, callbacks=[count])
    assert made.steps(made.last_sequences) > 40
    with pytest.raises(RunError, match="diverged"):
        made.run()
    assert count.steps < 20


def test_cosine_schedule() -> None:
    stage = StageConfig(epochs=10, learning_rate=2.0, schedule_epochs=10)
    rates = [learning_rate(stage, epoch) for epoch in (0, 5, 10, 20)]
    np.testing.assert_allclose(rates, [2.0, 1.0, 0.0, 0.0], atol=1e-12)


def test_warm_up_rises_step_by_step_under_any_schedule() -> None:
    stage = StageConfig(epochs=10, learning_rate=2.0, warmup_epochs=2)
    constant = replace(stage, schedule="constant")
    rates = [
        learning_rate(constant, epoch, share) for epoch, share in ((0, 0.25), (0, 1.0), (1, 0.5), (1, 1.0), (9, 1))
    ]
    np.testing.assert_allclose(rates, [0.25, 1.0, 1.5, 2.0, 2.0])
    assert learning_rate(stage, 1, 0.5) == pytest.approx(0.75 * learning_rate(replace(stage, warmup_epochs=0), 1))


def test_the_average_of_the_weights_is_what_is_kept(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    """Against a slow average of every step's weights; training itself goes on without it."""
    changes = {"finetune__start": "scratch", "finetune__first_evaluation": 100}
    plain = trainer(tiny((0, 0, 2), **changes), dataset)
    seen = []
    plain_step = plain._step

    def watched(*given: Any) -> Any:
        losses = plain_step(*given)
        assert plain.network is not None
        seen.append({name: value.double().clone() for name, value in plain.network.state_dict().items()})
        return losses

    before: dict[str, torch.Tensor] = {}
    start = plain._start

    def starting(name: str, stage: Any) -> None:
        start(name, stage)
        assert plain.network is not None
        before.update({name: value.double().clone() for name, value in plain.network.state_dict().items()})

    plain._step, plain._start = watched, starting  # type: ignore[method-assign]
    plain.run()
    average = before
    for count, weights in enumerate(seen, start=1):
        kept = min(0.6, (1 + count) / (10 + count))
        average = {name: kept * value + (1 - kept) * weights[name] for name, value in average.items()}
    found = trainer(tiny((0, 0, 2), **changes, finetune__averaging=0.6), dataset).run().state_dict()
    for name, value in found.items():
        torch.testing.assert_close(value.double().cpu(), average[name].cpu(), atol=1e-5, rtol=1e-4)


def test_what_is_validated_is_the_average_too(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    changes = {"finetune__start": "scratch", "finetune__first_evaluation": 1, "finetune__evaluate_every": 1}
    made, plain = (trainer(tiny((0, 0, 3), **changes | more), dataset) for more in ({"finetune__averaging": 0.9}, {}))
    rows: list[dict[str, Any]] = []
    made.callbacks.append(OnEpoch(rows.append))
    made.run()
    kept = [row for row in rows if row["selected"]][-1]
    assert (
        made.validate(made.network, made.stages[0][1]) == kept["validation"]
    )  # of the network with the weights that are kept
    unaveraged: list[dict[str, Any]] = []
    plain.callbacks.append(OnEpoch(unaveraged.append))
    plain.run()
    assert [row["loss"] for row in rows] == [row["loss"] for row in unaveraged]
    assert [row["validation"] for row in rows] != [row["validation"] for row in unaveraged]


@pytest.mark.parametrize("name", ["default", "cam", "fast"])
def test_the_presets_learn_what_follows_what(name: str, trainer: Maker, dataset: Dataset) -> None:
    small = {"hidden_size": 16, "num_heads": 2, "max_length": 8, "batch_size": 16, "finetune.learning_rate": 0.01}
    config = preset(name, {**small, "finetune.epochs": 30, "finetune.averaging": 0.5})
    network = trainer(config, dataset).run()
    result = evaluate(NetworkScorer(network), dataset, leave_one_out(dataset), cutoffs=(1,))
    assert result.metrics["hr@1"].mean > 0.8


class Told(Callback):
    """Keeps how stages began and why they ended."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def on_message(self, sentence: str, *, warning: bool = False) -> None:
        if not warning:
            self.sentences.append(sentence.strip())


def test_an_embedding_start_the_training_part_and_nothing_held_out(
    trainer: Maker, tiny: Make, dataset: Dataset
) -> None:
    """Other held-out items give the very same beginning; other training items do not."""
    changes = {"finetune__start": "scratch", "finetune__initial_embedding": "cooccurrence"}
    split = leave_one_out(dataset)

    def beginning(items: Any, told: Told | None = None) -> torch.Tensor:
        made = trainer(
            tiny((0, 0, 1), **changes), replace(dataset, items=items), split, callbacks=[told] if told else []
        )
        made._start(*made.stages[0])
        assert made.network is not None
        return made.network.item_embedding.weight.detach().clone()

    told, items = Told(), np.array(dataset.items)
    first = beginning(items, told)
    number = int((split.train_ends - np.asarray(dataset.offsets[:-1])).sum())
    assert told.sentences == [f"finetune  starts from the items' co-occurrences in {number} interactions."]
    held_out = items.copy()
    held_out[split.validation.positions] = held_out[split.test.positions] = 1
    assert torch.equal(beginning(held_out), first)
    trained = items.copy()
    trained[: split.train_ends[0]] = trained[0]
    assert not torch.equal(beginning(trained), first)


def test_the_time_of_a_beginning_is_that_of_the_first_epoch(
    trainer: Maker, tiny: Make, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = loop.start_from_cooccurrences
    monkeypatch.setattr(loop, "start_from_cooccurrences", lambda *given: (time.sleep(1.0), begin(*given))[1])
    rows: list[Mapping[str, Any]] = []
    changes = {"finetune__start": "scratch", "finetune__initial_embedding": "cooccurrence"}
    trainer(tiny((0, 0, 2), **changes), dataset, on_epoch=rows.append).run()
    assert rows[0]["seconds"] > 1.0 > rows[1]["seconds"]


def test_patience_that_ends_a_stage_within_few_steps_is_told(trainer: Maker, tiny: Make, dataset: Dataset) -> None:
    """With one batch an epoch, patience in epochs may end what has hardly begun: it looks like a model that is bad."""
    changes = {"batch_size": 512, "finetune.patience": 1, "finetune.evaluate_every": 1, "finetune.first_evaluation": 1}
    told = Told()
    trainer(
        tiny(**changes, **{"finetune.epochs": 50, "finetune.learning_rate": 1e-12}), dataset, callbacks=[told]
    ).run()
    assert told.sentences[-2].startswith("finetune  ended after 2 epochs (validation stopped improving)")
    assert told.sentences[-1] == "That is only 2 steps: set a batch_size below 60 for more."
    told = Told()
    trainer(tiny(batch_size=512), dataset, callbacks=[told]).run()
    assert not any("only" in each for each in told.sentences), "all its epochs are what was asked for"
