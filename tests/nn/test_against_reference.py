"""The packed network equals the slow left-padded restatement on random cases, forward and gradients, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from adrec.config.adrec import ModelConfig
from adrec.config.diffusion import AblationConfig, ScheduleName
from adrec.data.batch import PackedBatch, history_batch, training_batch
from adrec.nn.ablation.network import AblationNetwork
from adrec.nn.adrec import ADRecNetwork, TokenNoise
from adrec.nn.base import SequenceNetwork
from adrec.nn.diffusion import Schedule, betas
from adrec.nn.kernels import layout
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.losses import squared_error
from adrec.nn.pretraining import PretrainingNetwork
from adrec.published.weights import from_published
from conftest import paper_model

NUM_ITEMS, MAX_LENGTH, SIZE = 9, 6, 8
SCHEDULES: tuple[ScheduleName, ...] = ("trunc_lin", "linear", "cosine", "sqrt", "trunc_cos", "pw_lin", "beta")


@dataclass(frozen=True)
class Case:
    """A model, a batch of sequences of up to L + 3 items, and a seed for weights and noise."""

    config: ModelConfig
    sequences: list[list[int]]
    seed: int

    @property
    def ablation(self) -> AblationConfig:
        return self.config.ablation or AblationConfig()

    @property
    def reference_settings(self) -> dict[str, Any]:
        diffusion, ablation = self.config.diffusion, self.ablation
        assert diffusion is not None
        return {
            "diffusion_steps": diffusion.num_train_timesteps,
            "noise_schedule": diffusion.noise_schedule,
            "lambda_uncertainty": diffusion.noise_weight,
            "cfg_scale": ablation.guidance_scale,
            "geodesic": ablation.geodesic,
            "independent": ablation.noise_level == "token",
            "is_causal": ablation.causal,
            "rescale_timesteps": True,
            "dif_decoder": {"attention": "att", "mlp": "mlp"}[ablation.decoder],
            "item_num": NUM_ITEMS,
            "hidden_size": SIZE,
            "max_len": MAX_LENGTH,
        }


@st.composite
def cases(draw: st.DrawFn, min_items: int = 2) -> Case:
    steps = draw(st.integers(1, 4))
    config = paper_model(
        hidden_size=SIZE,
        max_length=MAX_LENGTH,
        num_train_timesteps=steps,
        num_inference_steps=steps,
        noise_schedule=draw(st.sampled_from(["trunc_lin", "cosine", "sqrt", "trunc_cos"])),
        noise_weight=draw(st.sampled_from([0.0, 0.001, 0.5, 2.0])),
        noise_level=draw(st.sampled_from(["token", "sequence"])),
        decoder=draw(st.sampled_from(["attention", "mlp"])),
        causal=draw(st.booleans()),
        guidance_scale=draw(st.sampled_from([1.0, 2.5])),
        geodesic=draw(st.booleans()),
        padding_class=True,
    )
    sequence = st.lists(st.integers(1, NUM_ITEMS), min_size=min_items, max_size=MAX_LENGTH + 3)
    return Case(config, draw(st.lists(sequence, min_size=1, max_size=5)), draw(st.integers(0, 2**31)))


def published_name(ours: str) -> str:
    """Return the published name of one of our weights: the inverse of ``from_published``, written by hand."""
    part, _, rest = ours.partition(".")
    if part in ("cam", "blocks", "adm") and rest[0].isdigit():
        stack = {"cam": "diffu.ag_encoder", "adm": "diffu.net.decoder", "blocks": "trm_encoder"}[part]
        inner = {
            "attention.output": "attention.w_layer",
            "expand": "feed_forward.w_1",
            "contract": "feed_forward.w_2",
            "attention_norm": "input_sublayer.norm",
            "feed_forward_norm": "output_sublayer.norm",
        }
        number, _, layer = rest.partition(".")
        layer, _, kind = layer.rpartition(".")
        return f"{stack}.transformer_blocks.{number}.{inner.get(layer, layer)}.{kind}"
    mlp = {"expand": "0", "contract": "2", "norm": "3"}
    layer, _, kind = rest.partition(".")
    if part == "adm":
        return f"diffu.net.decoder.{mlp[layer]}.{kind}"
    if part == "time_embedding":
        return f"diffu.net.time_embed.{mlp[layer]}.{kind}"
    return {"history_norm": "hist_norm", "norm": "LayerNorm"}.get(part, part) + f".{rest}"


def published_names(network: SequenceNetwork) -> dict[str, torch.Tensor]:
    """Return the network's weights under the published names, on the CPU, as the restatement is."""
    theirs = {}
    for ours, weight in network.state_dict().items():
        value = weight.cpu()
        name = published_name(ours)
        if "query_key_value" in name:
            for i, part in enumerate(value.chunk(3)):
                theirs[name.replace("query_key_value", f"linear_layers.{i}")] = part.clone()
        else:
            theirs[name] = value.clone()
    return theirs


@pytest.fixture(autouse=True, scope="module")
def precise_masks() -> Iterator[None]:
    """Compute the sinks' log p in float64 like all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "MASKS", np.float64)
        yield


def network(
    case: Case, kind: type[ADRecNetwork] | type[PretrainingNetwork], device: torch.device
) -> ADRecNetwork | PretrainingNetwork:
    rng = torch.Generator().manual_seed(case.seed)
    torch.set_default_dtype(torch.float64)
    try:
        made = (AblationNetwork if kind is ADRecNetwork and case.config.ablation else kind)(case.config, NUM_ITEMS)
    finally:
        torch.set_default_dtype(torch.float32)
    made.initialize(rng)
    for parameter in made.parameters():  # biases and norms too, so that nothing is 0 or 1 by chance
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    return made.to(device)


def flat(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lengths = np.array([len(sequence) for sequence in case.sequences])
    ends = np.cumsum(lengths)
    return np.concatenate(case.sequences).astype(np.int32), ends - lengths, ends


def padded(values: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Return packed values [N, ..] left-padded with zeros, [B, L, ..]."""
    values = values.cpu()
    out = values.new_zeros(batch.num_users, MAX_LENGTH, *values.shape[1:])
    for user, length in enumerate(batch.lengths.tolist()):
        begin = int(batch.cu_seqlens[user])
        out[user, MAX_LENGTH - length :] = values[begin : begin + length]
    return out


def noise(case: Case, *shape: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(case.seed + 1)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual.cpu(), expected.cpu(), atol=1e-7, rtol=1e-5)


def training_draws(case: Case, model: ADRecNetwork, batch: PackedBatch) -> TokenNoise:
    device = batch.items.device
    drawn = model.draw(batch, torch.Generator(device).manual_seed(case.seed))
    return replace(drawn, eps=noise(case, len(batch.items), SIZE).to(device))


@given(cases())
def test_training(device: torch.device, case: Case) -> None:
    model = network(case, ADRecNetwork, device)
    assert isinstance(model, ADRecNetwork)
    items, starts, ends = flat(case)
    batch = training_batch(items, starts, ends, MAX_LENGTH).to(device)
    draws = training_draws(case, model, batch)
    _, x0_hat, x0 = model(batch, draws)
    ce = cross_entropy(x0_hat, model.item_embedding.weight, batch.targets, padding_class=True)
    mse = squared_error(x0_hat, x0, batch)
    (ce + mse).backward()

    weights = {name: value.requires_grad_() for name, value in published_names(model).items()}
    target = padded(batch.targets, batch)
    t = padded(draws.t, batch) if case.ablation.noise_level == "token" else draws.t.cpu()
    cam_output, expected = reference.train_forward(
        weights,
        padded(batch.items, batch),
        target,
        padded(draws.eps, batch),
        t,
        case.reference_settings,
        None if (kept := getattr(draws, "condition_kept", None)) is None else kept.cpu(),
    )
    real = target > 0
    plan = model.plan(batch)
    close(model.condition(batch, plan)[: plan.num_tokens], cam_output[real])
    close(x0_hat, expected[real])
    their_ce, their_mse = reference.losses(weights, expected, target, case.reference_settings)
    close(ce, their_ce)
    close(mse, their_mse)
    (their_ce + their_mse).backward()
    zeros = {name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in weights.items()}
    gradients = from_published(zeros)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        close(parameter.grad, gradients[name])


@given(cases(min_items=1))
def test_inference(device: torch.device, case: Case) -> None:
    model = network(case, ADRecNetwork, device)
    assert isinstance(model, ADRecNetwork)
    items, starts, ends = flat(case)
    batch = history_batch(items, starts, ends, MAX_LENGTH).to(device)
    steps = case.config.num_train_timesteps
    drawn = noise(case, steps + 1, batch.num_users, SIZE)
    with torch.no_grad():
        x0 = model.predict(batch, lambda i: drawn[i].to(device))
    spread = drawn[:, :, None].expand(-1, -1, MAX_LENGTH, -1)  # [T + 1, B, L, D]
    weights = published_names(model)
    history = padded(batch.items, batch)
    shifted = torch.where(history[:, :-1] > 0, history[:, 1:], 0)  # what follows a real item
    shifted = torch.cat([shifted, torch.zeros_like(history[:, :1])], dim=1)
    step_noise = spread[:steps].flip(0)
    expected = reference.infer(weights, history, shifted, spread[steps], step_noise, case.reference_settings)
    close(x0, expected)
    close(model.scores(x0), reference.scores(weights, expected))


@given(cases())
def test_stage_1(device: torch.device, case: Case) -> None:
    model = network(case, PretrainingNetwork, device)
    items, starts, ends = flat(case)
    batch = training_batch(items, starts, ends, MAX_LENGTH).to(device)
    loss = cross_entropy(model(batch), model.item_embedding.weight, batch.targets, padding_class=True)
    loss.backward()
    weights = {name: value.requires_grad_() for name, value in published_names(model).items()}
    output = reference.stage1_forward(weights, padded(batch.items, batch))
    their_loss = reference.stage1_loss(weights, output, padded(batch.targets, batch))
    close(loss, their_loss)
    their_loss.backward()
    gradients = from_published({name: value.grad for name, value in weights.items() if value.grad is not None})
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        close(parameter.grad, gradients[name])


@given(cases(min_items=1), st.randoms())
def test_other_users_do_not_matter(device: torch.device, case: Case, random: Any) -> None:
    """A user's output is the same alone, among others, and in any order."""
    model = network(case, ADRecNetwork, device)
    items, starts, ends = flat(case)
    order = list(range(len(starts)))
    random.shuffle(order)
    together = history_batch(items, starts[order], ends[order], MAX_LENGTH).to(device)
    drawn = noise(case, case.config.num_train_timesteps + 1, SIZE)
    with torch.no_grad():
        outputs = model.predict(together, lambda i: drawn[i].expand(len(order), SIZE).to(device))
        for row, user in enumerate(order):
            alone = history_batch(items, starts[[user]], ends[[user]], MAX_LENGTH).to(device)
            close(model.predict(alone, lambda i: drawn[i].expand(1, SIZE).to(device))[0], outputs[row])


@given(cases(min_items=1))
def test_without_padding_no_sink_is_seen(device: torch.device, case: Case) -> None:
    """Where padding is not attended, the padding row of E changes nothing but its own score."""
    case = replace(case, config=replace(case.config, attend_padding=False))
    model = network(case, ADRecNetwork, device)
    items, starts, ends = flat(case)
    batch = history_batch(items, starts, ends, MAX_LENGTH).to(device)
    drawn = noise(case, case.config.num_train_timesteps + 1, len(starts), SIZE)
    with torch.no_grad():
        before = model.predict(batch, lambda i: drawn[i].to(device))
        model.item_embedding.weight[0] += 1
        close(model.predict(batch, lambda i: drawn[i].to(device)), before)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 2, 5, 11, 20, 32, pytest.param(1000, marks=pytest.mark.slow)])
def test_schedules(name: ScheduleName, num_steps: int) -> None:
    try:
        expected = reference.betas(name, num_steps)
    except ValueError:
        expected = None
    if expected is None or float(expected.max()) > 1:
        with pytest.raises(Exception, match="num_train_timesteps"):
            betas(name, num_steps)
        return
    schedule = Schedule.create(name, num_steps)
    np.testing.assert_allclose(schedule.betas, expected, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(schedule.posterior, reference.posterior_coefficients(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 31, 32])
def test_respaced_chains_keep_the_marginals(num_steps: int) -> None:
    whole = Schedule.create("trunc_lin", 32)
    chain = whole.respaced(num_steps)
    assert len(chain.timesteps) == num_steps
    assert chain.timesteps[-1] == 31
    assert (np.diff(chain.timesteps) > 0).all()
    np.testing.assert_allclose(chain.alpha_bars, whole.alpha_bars[chain.timesteps], rtol=1e-9)
    of_x0, of_xt, variance = chain.posterior
    np.testing.assert_allclose((of_x0[0], of_xt[0], variance[0]), (1, 0, 0), atol=1e-12)
