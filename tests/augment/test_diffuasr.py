"""The loss and the sampling against slow restatements of their formulas; the U-Net as a function of all it is given."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from adrec.augment.diffuasr import DiffuASRNetwork, GenerationNoise
from adrec.augment.unet import SUNet, image_shape
from adrec.config.augmentation import SUNetConfig
from adrec.data.sequences import Sequences
from adrec.nn.base import make_network
from adrec.nn.losses import Objective
from adrec.nn.noise import HistoryNoise
from adrec.train.step import Step

V, D, M, T, S = 30, 12, 3, 40, 4
SEQUENCES = [[1, 2, 3, 4, 5], [9, 9, 2, 30, 17, 6, 1, 8], [7, 6, 5, 4, 3, 2, 1], [11, 12, 13, 14, 15, 16]]


def made() -> DiffuASRNetwork:
    config = SUNetConfig(D, M + 4, num_items=M, num_train_timesteps=T, num_inference_steps=S, channels=4, dropout=0.0)
    network = make_network(DiffuASRNetwork, config, V)
    network.initialize(torch.Generator().manual_seed(3))
    return network


def sequences(max_length: int, lists: list[list[int]] = SEQUENCES) -> Sequences:
    ends = np.cumsum([len(each) for each in lists])
    items = np.concatenate(lists).astype(np.int32)
    return Sequences(items, ends - [len(each) for each in lists], ends, max_length)


def direction(network: DiffuASRNetwork, item: int) -> list[float]:
    row = network.item_embedding.weight[item].tolist()
    length = math.sqrt(sum(value * value for value in row))
    return [value / length * math.sqrt(D) for value in row]


def alpha_bar(t: int) -> float:
    """DDPM's linear schedule, scaled to T steps."""
    product = 1.0
    for step in range(t + 1):
        scale = 1000 / T
        product *= 1 - (scale * 1e-4 + (scale * 0.02 - scale * 1e-4) * step / (T - 1))
    return product


def slow_guide(network: DiffuASRNetwork, items: list[int]) -> list[float]:
    return [sum(direction(network, item)[place] for item in items) for place in range(D)]


def slow_loss(network: DiffuASRNetwork, lists: list[list[int]], draws: GenerationNoise) -> float:
    """The mean squared error of the noise, one number at a time."""
    total = 0.0
    for user, items in enumerate(lists):
        window = items[-(M + 5) :]  # M + L, with L = 5
        abar = alpha_bar(int(draws.t[user]))
        x_t = torch.tensor(
            [
                [
                    math.sqrt(abar) * direction(network, item)[place]
                    + math.sqrt(1 - abar) * float(draws.eps[user, row, place])
                    for place in range(D)
                ]
                for row, item in enumerate(window[:M])
            ]
        )
        guide = torch.tensor(slow_guide(network, window[M:]))
        with torch.no_grad():
            v = network.unet(x_t[None], draws.t[user : user + 1], guide[None])[0]
        predicted = math.sqrt(abar) * v + math.sqrt(1 - abar) * x_t
        for row in range(M):
            for place in range(D):
                total += float(predicted[row, place] - draws.eps[user, row, place]) ** 2 / (M * D * len(lists))
    return total


def test_the_loss_is_the_error_of_the_noise() -> None:
    network = made()
    batch = sequences(network.config.max_length).batch(np.arange(4))
    draws = network.draw(batch, torch.Generator().manual_seed(1))
    loss = Step(embedding="frozen").losses(network, batch, draws)["mse"]
    assert float(loss.detach()) == pytest.approx(slow_loss(network, SEQUENCES, draws), rel=1e-4)


def test_the_parts_of_a_batch_add_up_and_the_embedding_stays() -> None:
    network = made()
    batch = sequences(network.config.max_length).batch(np.arange(4))
    draws = network.draw(batch, torch.Generator().manual_seed(1))
    whole, parts = Step(embedding="frozen"), Step(embedding="frozen")
    losses = whole.gradients(network, batch, draws)
    expected = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    in_parts = parts.gradients(network, batch, draws, max_tokens=8)
    torch.testing.assert_close(in_parts["mse"], losses["mse"])
    found = [p.grad for p in network.parameters() if p.grad is not None]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert network.item_embedding.weight.grad is None
    assert all(p.grad is not None for p in network.unet.parameters())


def test_windows_are_the_last_interactions() -> None:
    """A longer sequence trains as its last M + L interactions do."""
    network, long = made(), list(range(1, 25))
    losses = []
    for items in (long, long[-(M + 5) :]):
        batch = sequences(network.config.max_length, [items]).batch(np.arange(1))
        draws = network.draw(batch, torch.Generator().manual_seed(1))
        losses.append(network.losses(network(batch, draws), batch, draws, Objective(batch))["mse"])
    assert torch.equal(losses[0], losses[1])


def slow_ddim(network: DiffuASRNetwork, items: list[int], start: Tensor) -> Tensor:
    """Song et al. 2021, eq. 12, with sigma = 0; an estimate of x0 that is too long is cut to the length of an x0."""
    guide, x = torch.tensor(slow_guide(network, items)), start.clone()
    steps = [round(place * (T - 1) / (S - 1)) for place in range(S)]
    for place in reversed(range(S)):
        abar, before = alpha_bar(steps[place]), alpha_bar(steps[place - 1]) if place else 1.0
        with torch.no_grad():
            v = network.unet(x[None], torch.tensor([steps[place]]), guide[None])[0]
        eps = math.sqrt(abar) * v + math.sqrt(1 - abar) * x
        x0 = (x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
        for row in range(M):
            length = float(x0[row].norm())
            x0[row] *= min(1.0, math.sqrt(D) / length)
        eps = (x - math.sqrt(abar) * x0) / math.sqrt(1 - abar)
        x = math.sqrt(before) * x0 + math.sqrt(1 - before) * eps
    return x


def test_sampling_is_ddim() -> None:
    network = made()
    batch = sequences(5).history_batch(np.arange(4))
    noise = HistoryNoise(batch, M * D, 7, torch.device("cpu"))
    found = network.predict(batch, noise)
    for user, items in enumerate(SEQUENCES):
        expected = slow_ddim(network, items[-5:], noise(S)[user].view(M, D))
        torch.testing.assert_close(found[user], expected, rtol=1e-3, atol=1e-3)


def test_rounding_takes_the_highest_cosine_and_never_the_padding() -> None:
    network = made()
    with torch.no_grad():
        network.item_embedding.weight[1:] *= torch.linspace(0.1, 9, V)[:, None]  # lengths do not matter
        network.item_embedding.weight[0] = network.item_embedding.weight[5]
    weight = network.item_embedding.weight.detach()
    vectors = torch.randn(6, M, D, generator=torch.Generator().manual_seed(0))
    found = network.rounded(vectors)
    for user in range(6):
        for row in range(M):
            cosines = [
                float(torch.cosine_similarity(vectors[user, row], weight[item], dim=0)) for item in range(1, V + 1)
            ]
            assert int(found[user, row]) == 1 + int(np.argmax(cosines))
    assert torch.equal(network.rounded(network.directions(torch.arange(1, V + 1))), torch.arange(1, V + 1))


def test_a_prefix_depends_on_its_own_history_and_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    lists = [rng.integers(1, V + 1, rng.integers(1, 12)).tolist() for _ in range(40)]
    network, histories = made(), sequences(5, lists)
    whole = network.prefixes(histories, seed=1)
    assert whole.shape == (40, M)
    assert 1 <= int(whole.min()) <= int(whole.max()) <= V
    monkeypatch.setattr("adrec.augment.diffuasr.AT_ONCE", 7)
    order = rng.permutation(40)
    mixed = sequences(5, [lists[user] for user in order])
    assert torch.equal(network.prefixes(mixed, seed=1), whole[order])
    assert not torch.equal(network.prefixes(histories, seed=2), whole)
    earlier = sequences(5, [[3, *items] if len(items) >= 5 else items for items in lists])
    assert torch.equal(network.prefixes(earlier, seed=1), whole)  # only the last L items guide


@pytest.mark.parametrize(
    ("size", "shape"), [(128, (8, 16)), (64, (8, 8)), (16, (4, 4)), (12, (3, 4)), (2, (1, 2)), (7, (1, 7))]
)
def test_the_images_of_any_width(size: int, shape: tuple[int, int]) -> None:
    assert image_shape(size) == shape
    unet = SUNet(num_items=3, size=size, num_timesteps=5, channels=4, dropout=0.0)
    x, t, guide = torch.randn(2, 3, size), torch.tensor([0, 4]), torch.randn(2, size)
    assert unet(x, t, guide).shape == x.shape


def other(change: str, rng: torch.Generator) -> Callable[[Tensor], Tensor]:
    return lambda value: (value + 1) % 5 if change == "t" else torch.randn(value.shape, generator=rng)


@pytest.mark.parametrize("change", ["x", "t", "guide"])
def test_everything_that_the_unet_is_given_matters_to_its_own_sequence_alone(change: str) -> None:
    rng = torch.Generator().manual_seed(0)
    unet = SUNet(num_items=3, size=12, num_timesteps=5, channels=4, dropout=0.5)
    unet.initialize(rng)
    given = {"x": torch.randn(2, 3, 12, generator=rng), "t": torch.tensor([0, 3])}
    given["guide"] = torch.randn(2, 12, generator=rng)
    before = unet(**given)
    assert torch.equal(unet(**given), before)  # without a generator nothing is dropped
    assert not torch.equal(unet(**given, rng=rng), before)
    given[change] = torch.cat([given[change][:1], other(change, rng)(given[change][1:])])
    after = unet(**given)
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1], atol=1e-4)


def test_initial_weights_come_from_the_generator() -> None:
    first, again = made(), made()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
