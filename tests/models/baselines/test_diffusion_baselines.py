"""DiffuRec, DreamRec and DiffRec equal their slow padded restatements, and keep the contract of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusion_reference as slow
import numpy as np
import pytest
import torch
from torch import Tensor

from adrec.data.batch import PackedBatch, history_batch, training_batch
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.evaluate.protocol import evaluate
from adrec.models.baselines import dreamrec
from adrec.models.baselines.prefixes import draw_prefixes, prefixes_of
from adrec.models.network import NetworkModel, NetworkScorer
from adrec.models.registry import find_model
from adrec.nn.base import SequenceNetwork, make_network
from adrec.nn.diffusion import Schedule
from adrec.runs.fit import fit
from adrec.train.step import Step
from adrec.utils.errors import ConfigError

V, L, D, T, HEADS = 9, 6, 8, 5, 2
SEQUENCES = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5, 8, 9, 7, 9], [3, 2, 3]]  # the third is longer than L + 1
SMALL: dict[str, Any] = {
    "hidden_size": D,
    "max_length": L,
    "num_blocks": 2,
    "num_heads": HEADS,
    "num_train_timesteps": T,
    "num_inference_steps": T,
    "embedding_dropout": 0.0,
    "dropout": 0.0,
}
OWN: dict[str, dict[str, Any]] = {
    "diffurec": {"noise_weight": 0.5, "noise_schedule": "cosine", "prefixes": 3},
    "dreamrec": {"condition_dropout": 0.4},
    "diffrec": {"num_starts": 3, "noise_schedule": "cosine", "prefixes": 3},
}
NAMES = tuple(OWN)


def network(name: str, seed: int = 0, **changes: Any) -> SequenceNetwork:
    model = find_model(name)
    assert issubclass(model, NetworkModel)
    config = model.Config.make(changes={**SMALL, **OWN[name], **changes})
    made = make_network(model.networks["network"], config.network, V)  # type: ignore[attr-defined]
    rng = torch.Generator().manual_seed(seed)
    made.initialize(rng)
    for parameter in made.parameters():  # biases and norms too, so that nothing is 0 or 1 by chance
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return made


def flat(sequences: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum([len(sequence) for sequence in sequences])
    return np.concatenate(sequences).astype(np.int32), np.concatenate([[0], ends[:-1]]), ends


def batch_of(sequences: list[list[int]] = SEQUENCES) -> PackedBatch:
    return training_batch(*flat(sequences), L)


def weights_of(model: SequenceNetwork) -> slow.Weights:
    return {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}


def betas_of(model: Any) -> Tensor:
    return torch.from_numpy(model.schedule.betas)


def noise_table(num_users: int, steps: int = 40) -> Callable[[int], Tensor]:
    table = torch.randn(steps, num_users, D, generator=torch.Generator().manual_seed(7))
    return lambda i: table[i]


def examples_of(batch: PackedBatch, draws: Any) -> list[slow.Example]:
    """Return what each drawn prefix of each user trains, user after user."""
    found = []
    for user, start in enumerate(batch.cu_seqlens[:-1].tolist()):
        for column, length in enumerate(draws.prefixes[user].tolist()):
            if length:
                rows = slice(start, start + length)
                diffurec = hasattr(draws, "scale")
                scale = draws.scale[rows, column] if diffurec else None
                padding = draws.sink_scale[user, column] if diffurec else None
                history, target = batch.items[rows].tolist(), int(batch.targets[start + length - 1])
                t, eps = int(draws.t[user, column]), draws.eps[user, column]
                found.append(slow.Example(history, target, t, eps, scale, padding))
    return found


def token_examples(batch: PackedBatch, draws: dreamrec.DreamRecNoise) -> list[slow.Example]:
    """Return what each token trains: its sequence up to it."""
    found = []
    for start, end in zip(batch.cu_seqlens[:-1].tolist(), batch.cu_seqlens[1:].tolist(), strict=True):
        for i in range(start, end):
            history, target = batch.items[start : i + 1].tolist(), int(batch.targets[i])
            kept = bool(draws.condition_kept[i])
            found.append(slow.Example(history, target, int(draws.t[i]), draws.eps[i], condition_kept=kept))
    return found


def expected_training(name: str, model: Any, batch: PackedBatch, draws: Any, weights: slow.Weights) -> tuple[Any, Any]:
    """Return the restatement's x0_hat and losses."""
    if name == "diffurec":
        x0_hat, ce = slow.diffurec_training(weights, examples_of(batch, draws), betas_of(model), 0.5, HEADS, L)
        return x0_hat, {"ce": ce}
    if name == "dreamrec":
        examples = token_examples(batch, draws)
        assert len({example.condition_kept for example in examples}) == 2
        x0_hat, _, mse = slow.dreamrec_training(weights, examples, betas_of(model), HEADS)
        return x0_hat, {"mse": mse}
    x0_hat, ce, mse = slow.diffrec_training(weights, examples_of(batch, draws), betas_of(model), HEADS)
    return x0_hat, {"ce": ce, "mse": mse}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_equals_the_padded_restatement(name: str, seed: int) -> None:
    model, batch = network(name, seed), batch_of()
    draws = model.draw(batch, torch.Generator().manual_seed(seed))
    weights = weights_of(model)
    x0_hat, expected = expected_training(name, model, batch, draws, weights)
    torch.testing.assert_close(model(batch, draws)[0], x0_hat, atol=1e-5, rtol=1e-5)
    losses = Step().gradients(model, batch, draws)
    assert losses.keys() == expected.keys()
    for loss, value in expected.items():
        torch.testing.assert_close(losses[loss], value, atol=1e-5, rtol=1e-5)
    torch.stack(list(expected.values())).mean().backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None, parameter
        theirs = weights[parameter].grad
        torch.testing.assert_close(
            value.grad, torch.zeros_like(value) if theirs is None else theirs, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("name", NAMES)
def test_inference_equals_the_slow_loop(name: str) -> None:
    model = network(name)
    histories = [sequence[-L:] for sequence in [*SEQUENCES, [4]]]
    batch, noise, weights = history_batch(*flat(histories), L), noise_table(len(histories)), weights_of(model)
    betas = betas_of(model)
    query = model.predict(batch, noise)
    scores = model.scored(query, batch).block(slice(1, V + 1))
    E = weights["item_embedding.weight"]
    if name == "diffurec":
        logits = slow.diffurec_inference(weights, histories, betas, noise, 0.5, HEADS, L) @ E.T
    elif name == "dreamrec":
        logits = slow.dreamrec_inference(weights, histories, betas, noise, 2.0, HEADS) @ E.T
    else:
        logits = slow.diffrec_inference(weights, histories, betas, noise, 3, HEADS)
    torch.testing.assert_close(scores, logits[:, 1:].detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("max_tokens", [1, 8, 100_000])
def test_the_parts_of_a_batch_add_up_to_it(name: str, max_tokens: int) -> None:
    model, batch = network(name), batch_of(SEQUENCES * 3)
    draws = model.draw(batch, torch.Generator().manual_seed(4))

    def computed(limit: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        losses = Step().gradients(model, batch, draws, max_tokens=limit)
        return dict(losses), {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}

    (losses, gradients), (in_parts, of_parts) = computed(None), computed(max_tokens)
    for key, loss in losses.items():
        torch.testing.assert_close(in_parts[key], loss, atol=1e-6, rtol=1e-5)
    assert gradients.keys() == of_parts.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(of_parts[key], gradient, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_steps", [1, 3, T])
def test_a_recommendation_does_not_depend_on_the_batch(name: str, num_steps: int) -> None:
    scorer = NetworkScorer(network(name), seed=3, num_steps=num_steps)
    together = scorer(history_batch(*flat(SEQUENCES), L)).block(slice(1, V + 1))
    for user, sequence in reversed(list(enumerate(SEQUENCES))):
        alone = scorer(history_batch(*flat([sequence]), L)).block(slice(1, V + 1))
        torch.testing.assert_close(alone[0], together[user], atol=1e-4, rtol=1e-4)
    other = NetworkScorer(scorer.network, seed=4, num_steps=num_steps)(history_batch(*flat(SEQUENCES), L))
    assert not torch.allclose(other.block(slice(1, V + 1)), together)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_on_where_a_generator_is_passed(name: str) -> None:
    model, batch = network(name, embedding_dropout=0.3, dropout=0.3), batch_of()
    draws = model.draw(batch, torch.Generator().manual_seed(4))
    off, again = model(batch, draws)[0], model(batch, draws)[0]
    on = [model(batch, draws, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(off, again)
    assert torch.equal(on[0], on[1])
    assert not torch.allclose(on[0], on[2])
    assert not torch.allclose(on[0], off)


@pytest.mark.parametrize(("count", "expected"), [(1, [1, 1, 1, 1]), (3, [3, 1, 3, 2]), (99, [4, 1, 6, 2])])
def test_prefixes_are_different_and_all_where_there_are_few(count: int, expected: list[int]) -> None:
    batch = batch_of()
    draws = draw_prefixes(batch, count, T, D, torch.Generator().manual_seed(1))
    assert draws.number == sum(expected)
    for lengths, number, own in zip(draws.prefixes.tolist(), expected, batch.lengths.tolist(), strict=True):
        real = [length for length in lengths if length]
        assert len(real) == len(set(real)) == number
        assert all(1 <= length <= own for length in real)
    packed, tokens, columns = prefixes_of(batch, draws.prefixes)
    assert packed.num_users == draws.number
    assert torch.equal(packed.items, batch.items[tokens])
    assert (draws.prefixes.max(1) >= packed.lengths[np.cumsum(expected) - 1]).all()
    assert columns.max() < draws.prefixes.shape[1]


def test_diffurec_is_validated_as_seldom_as_its_authors_do() -> None:
    stage = find_model("diffurec").Config.make().train
    assert (stage.first_evaluation, stage.evaluate_every, stage.patience) == (20, 20, 5)


def test_every_prefix_is_drawn_in_time() -> None:
    batch, rng = batch_of(), torch.Generator().manual_seed(1)
    seen = {int(draw_prefixes(batch, 1, T, D, rng).prefixes[2, 0]) for _ in range(100)}
    assert seen == {1, 2, 3, 4, 5, 6}


def test_dreamrecs_schedule_is_the_authors() -> None:
    x = torch.linspace(1, 2 * 500 + 1, 500, dtype=torch.float64)
    expected = 1 - torch.exp(-0.1 / 500 - x * 0.5 * (10 - 0.1) / 500**2)
    np.testing.assert_allclose(Schedule.create("exp", 500).betas, expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("diffurec", {"noise_weight": -0.1}),
        ("diffurec", {"prefixes": 0}),
        ("diffurec", {"num_inference_steps": 33}),
        ("dreamrec", {"guidance_strength": -1.0}),
        ("dreamrec", {"condition_dropout": 1.0}),
        ("diffrec", {"num_starts": 0}),
        ("diffrec", {"num_train_timesteps": 0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        find_model(name).Config.make(changes=change)


# --- whole models, on data whose answer is known --------------------------------------------------

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_heads": 2,
    "max_length": 8,
    "batch_size": 16,
    "train.first_evaluation": 5,
    "train.evaluate_every": 5,
    "train.patience": 0,
}


def trained(name: str, dataset: Dataset, epochs: int, seed: int = 1, **changes: Any) -> NetworkModel:
    model = find_model(name)
    assert issubclass(model, NetworkModel)
    made = model(model.Config.make(changes={**TINY, "train.epochs": epochs, **changes}))
    fit(made, dataset, leave_one_out(dataset), seed=seed)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_model_other_seed_another(name: str, dataset: Dataset) -> None:
    first, again, other = (trained(name, dataset, 2, seed).state() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "epochs", "changes"),
    [
        ("diffurec", 30, {"num_train_timesteps": 4, "num_inference_steps": 4}),
        ("diffrec", 30, {"num_train_timesteps": 50}),
    ],
)
def test_it_learns_what_follows_what(name: str, epochs: int, changes: dict[str, Any], dataset: Dataset) -> None:
    model = trained(name, dataset, epochs, num_blocks=1, **{"train.learning_rate": 0.01}, **changes)
    result = evaluate(model, dataset, leave_one_out(dataset), "test", cutoffs=(1,))
    assert result.metrics["hr@1"].mean > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_steps_and_sampler_are_settings_of_inference(name: str, dataset: Dataset) -> None:
    model = trained(name, dataset, 1, noise_schedule="cosine", num_train_timesteps=6, num_inference_steps=1)
    batch = history_batch(dataset.items, np.array([0]), np.array([4]), 8)
    model.with_inference(6, None)
    ancestral = model(batch).block(slice(1, None))
    model.with_inference(None, "ddim")
    assert model.training.network.num_inference_steps == 6  # type: ignore[attr-defined]
    assert not torch.allclose(model(batch).block(slice(1, None)), ancestral)
    with pytest.raises(ConfigError):
        model.with_inference(7, None)
