"""The reference implementation against everything that the published vectors record."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import reference

DATA = Path(__file__).parents[1] / "vectors"
INFERENCE, TRAINING = "adrec_vectors", "adrec_training_vectors"
SETTINGS = {file: json.loads((DATA / f"{file}.json").read_text()) for file in (INFERENCE, TRAINING)}
FORWARD = [(INFERENCE, name) for name in SETTINGS[INFERENCE]] + [
    (TRAINING, name) for name in ("T32", "mlp_T32", "grad", "grad_pcgrad")
]
SAMPLED = [(INFERENCE, name) for name in SETTINGS[INFERENCE]] + [(TRAINING, "T32"), (TRAINING, "mlp_T32")]


@functools.cache
def vectors(file: str) -> dict[str, Tensor]:
    return load_file(DATA / f"{file}.safetensors")


def below(file: str, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in vectors(file).items() if key.startswith(prefix)}


def case(file: str, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Return (weights that record gradients, everything else of the setting plus the batch, settings)."""
    weights = {key: value.clone().requires_grad_() for key, value in below(file, f"{name}/weights/").items()}
    record = below(file, f"{name}/") | {key: vectors(file)[key] for key in ("history", "target")}
    return weights, record, SETTINGS[file][name]


def assert_near(actual: Tensor, expected: Tensor, *, atol: float = 1e-5, what: str = "") -> None:
    assert actual.shape == expected.shape, what
    torch.testing.assert_close(
        actual.detach(), expected, rtol=0, atol=atol, msg=lambda text: f"{what}: {text}" if what else text
    )


@pytest.mark.parametrize(("file", "name"), SAMPLED)
def test_betas_and_posterior(file: str, name: str) -> None:
    _, record, settings = case(file, name)
    beta = reference.betas(settings["noise_schedule"], settings["diffusion_steps"])
    assert_near(beta, record["betas"], atol=1e-12)
    keys = ("posterior_mean_coef1", "posterior_mean_coef2", "posterior_variance")
    for key, value in zip(keys, reference.posterior_coefficients(beta), strict=True):
        if key in record:
            assert_near(value, record[key], atol=1e-12, what=key)


@pytest.mark.parametrize(("file", "name"), FORWARD)
def test_training_forward_and_losses(file: str, name: str) -> None:
    weights, record, settings = case(file, name)
    history, target = record["history"], record["target"]
    with torch.no_grad():
        cam_output, x0_hat = reference.train_forward(weights, history, target, record["noise"], record["t"], settings)
        ce, mse = reference.losses(weights, x0_hat, target, settings)
        if "cam_output" in record:
            assert_near(cam_output, record["cam_output"], what="cam_output")
            assert_near(reference.cam(weights, history, settings), record["cam_output"], what="cam")
        if "train_output" in record:
            assert_near(x0_hat, record["train_output"], what="train_output")
    assert_near(ce, record["ce_loss"], what="ce")
    assert_near(mse, record["mse_loss"], what="mse")


@pytest.mark.parametrize(("file", "name"), SAMPLED)
def test_inference_and_scores(file: str, name: str) -> None:
    weights, record, settings = case(file, name)
    known = record["target"].clone()
    known[:, -1] = 0  # the answer must not be read
    with torch.no_grad():
        x0 = reference.infer(weights, record["history"], known, record["init_noise"], record["step_noise"], settings)
        assert_near(x0, record["infer_output"], what="infer_output")
        assert_near(reference.scores(weights, x0), record["infer_scores"], what="infer_scores")


def combined_gradient(
    weights: dict[str, Tensor], record: dict[str, Tensor], settings: dict[str, Any]
) -> tuple[Tensor, Tensor, dict[str, Tensor | None]]:
    _, x0_hat = reference.train_forward(
        weights, record["history"], record["target"], record["noise"], record["t"], settings
    )
    ce, mse = reference.losses(weights, x0_hat, record["target"], settings)
    grads = [reference.gradients(loss, weights) for loss in (ce, mse)]
    return ce, mse, reference.combine(grads[0], grads[1], pcgrad=settings["pcgrad"])


@pytest.mark.parametrize("name", ["grad", "grad_pcgrad"])
def test_gradients(name: str) -> None:
    weights, record, settings = case(TRAINING, name)
    _, _, grads = combined_gradient(weights, record, settings)
    expected = below(TRAINING, f"{name}/grad/")
    assert grads.keys() == expected.keys()
    for key, value in expected.items():
        assert_near(grads[key], value, what=key)


def test_frozen_then_free() -> None:
    """Two Adam steps with the embedding's gradient zeroed, then two with it; one optimizer for all four."""
    weights, record, settings = case(TRAINING, "frozen")
    state: dict[str, tuple[int, Tensor, Tensor]] = {}
    for step in range(4):
        batch = {key: record[key] for key in ("history", "target")} | below(TRAINING, f"frozen/step{step}/")
        ce, mse, grads = combined_gradient(weights, batch, settings)
        assert_near(ce, batch["ce_loss"], what=f"ce of step {step}")
        assert_near(mse, batch["mse_loss"], what=f"mse of step {step}")
        if step < 2:
            grads["item_embedding.weight"] = torch.zeros_like(weights["item_embedding.weight"])
        weights = reference.adam_step(weights, grads, state)
        for value in weights.values():
            value.requires_grad_()
        if step in (1, 3):
            for key, value in below(TRAINING, f"frozen/after{step + 1}/").items():
                # A key's bias shifts all logits of a query alike, so its true gradient is 0. Adam divides
                # what is left, L2 and rounding, by its own size: only that rounding differs here.
                atol = 1e-4 if key.endswith("attention.linear_layers.1.bias") else 1e-5
                assert_near(weights[key], value, atol=atol, what=f"{key} after step {step}")


def test_stage1() -> None:
    weights, record, _ = case(TRAINING, "stage1")
    output = reference.stage1_forward(weights, record["history"])
    assert_near(output, record["train_output"], what="output")
    assert_near(reference.scores(weights, output[:, -1]), record["scores"], what="scores")
    ce = reference.stage1_loss(weights, output, record["target"])
    assert_near(ce, record["ce_loss"], what="ce")
    grads = reference.gradients(ce, weights)
    expected = below(TRAINING, "stage1/grad/")
    assert {key for key, grad in grads.items() if grad is None} == {"position_embedding.weight"}
    assert grads.keys() - expected.keys() == {"position_embedding.weight"}
    for key, value in expected.items():
        assert_near(grads[key], value, what=key)


# What the vectors do not cover: the other schedules, guidance's dropped conditions.


@pytest.mark.parametrize("schedule", ["trunc_lin", "linear", "cosine", "sqrt", "trunc_cos", "pw_lin", "beta"])
@pytest.mark.parametrize("T", [20, 32, 200])
def test_schedules_are_variances(schedule: str, T: int) -> None:
    beta = reference.betas(schedule, T)
    assert beta.shape == (T,)
    assert beta.dtype == torch.float64
    assert ((beta > 0) & (beta <= 1)).all()


def test_schedules_at_known_points() -> None:
    pw_lin = reference.betas("pw_lin", 40)  # 1000 / 40 = 25
    assert_near(pw_lin[[0, 9, 10, 39]], torch.tensor([0.0125, 0.0025, 0.0025, 0.5], dtype=torch.float64))
    trunc_cos = reference.alpha_bars(reference.betas("trunc_cos", 40))
    assert float(trunc_cos[0]) == pytest.approx(math.cos(0.1 / 1.1 * math.pi / 2) ** 2)
    assert float(trunc_cos[20]) == pytest.approx(  # so the cosine at 20/40 comes after 21 steps
        math.cos(0.6 / 1.1 * math.pi / 2) ** 2
    )
    sqrt = reference.alpha_bars(reference.betas("sqrt", 40))
    assert float(sqrt[9]) == pytest.approx((1 - math.sqrt(0.2501)) / 0.99)
    uniform = reference.alpha_bars(reference.betas("beta", 40, a=1, b=1))  # Beta(1, 1): the quantile is itself
    assert_near(uniform, 1 - torch.arange(1, 41, dtype=torch.float64) / 40, atol=1e-12)
    last = reference.betas("beta", 2, a=3, b=3)  # symmetric, so its median is a half
    assert_near(last, torch.tensor([0.5, 1.0], dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(("schedule", "T"), [("linear", 19), ("pw_lin", 10), ("pw_lin", 19)])
def test_impossible_schedules_are_refused(schedule: str, T: int) -> None:
    with pytest.raises(ValueError, match=schedule):
        reference.betas(schedule, T)


def test_dropped_condition_forgets_the_history() -> None:
    weights, record, settings = case(INFERENCE, "lambda1")
    history, target = record["history"], record["target"]
    kept = torch.tensor([True, False, True, False])
    other = torch.where(history > 0, history % 40 + 1, 0)
    with torch.no_grad():
        _, whole = reference.train_forward(weights, history, target, record["noise"], record["t"], settings)
        cam_output, some = reference.train_forward(
            weights, history, target, record["noise"], record["t"], settings, kept
        )
        _, changed = reference.train_forward(weights, other, target, record["noise"], record["t"], settings, kept)
    assert_near(cam_output, record["cam_output"])
    assert_near(some[kept], whole[kept])
    assert_near(some[~kept], changed[~kept])
    assert (some[~kept] - whole[~kept]).abs().max() > 0.01
    assert (some[kept] - changed[kept]).abs().max() > 0.01
