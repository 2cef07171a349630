"""The networks reproduce the published code's numbers: outputs, losses, schedules, inference, gradients, Adam steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adrec.config.adrec import ModelConfig
from adrec.data.batch import PackedBatch, history_batch
from adrec.nn.adrec import ADRecNetwork, TokenNoise
from adrec.nn.kernels.cross_entropy import cross_entropy
from adrec.nn.losses import project_conflicts, squared_error
from adrec.nn.pretraining import PretrainingNetwork
from adrec.published.weights import from_published
from adrec.train.step import Step
from conftest import paper_model, paper_network

DATA = Path(__file__).parents[1] / "vectors"
ATOL = 1e-5

Vectors = dict[str, torch.Tensor]


def read(name: str) -> tuple[dict[str, Any], Vectors]:
    return json.loads((DATA / f"{name}.json").read_text()), load_file(DATA / f"{name}.safetensors")


INFERENCE, INFERENCE_VECTORS = read("adrec_vectors")
TRAINING, TRAINING_VECTORS = read("adrec_training_vectors")


def model_config(settings: dict[str, Any]) -> ModelConfig:
    steps = settings["diffusion_steps"]
    return paper_model(
        hidden_size=settings["hidden_size"],
        max_length=settings["max_len"],
        num_train_timesteps=steps,
        num_inference_steps=steps,
        noise_schedule=settings["noise_schedule"],
        noise_weight=settings["lambda_uncertainty"],
        noise_level="token" if settings.get("independent", True) else "sequence",
        causal=settings.get("is_causal", True),
        guidance_scale=settings.get("cfg_scale", 1),
        geodesic=settings.get("geodesic", False),
        decoder={"att": "attention", "mlp": "mlp"}[settings["dif_decoder"]],
        padding_class=True,
    )


def part(vectors: Vectors, prefix: str) -> Vectors:
    return {key.removeprefix(prefix): value for key, value in vectors.items() if key.startswith(prefix)}


def packed(vectors: Vectors, device: torch.device) -> tuple[PackedBatch, torch.Tensor]:
    """Return the vectors' left-padded batch, packed and on ``device``, and which padded positions are real [B, L]."""
    real = vectors["history"] > 0
    lengths = real.sum(1).numpy()
    cu_seqlens = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]))
    batch = PackedBatch(vectors["history"][real], vectors["target"][real], lengths, cu_seqlens)
    return batch.to(device), real


def network(settings: dict[str, Any], weights: Vectors, device: torch.device) -> ADRecNetwork:
    model = paper_network(model_config(settings), settings["item_num"])
    model.load_state_dict(from_published(weights))
    return model.to(device)


def draws(settings: dict[str, Any], values: Vectors, real: torch.Tensor, device: torch.device) -> TokenNoise:
    t = values["t"]
    if settings.get("independent", True):
        t = t.view(real.shape)[real]
    return TokenNoise(t.to(device), values["noise"][real].to(device))


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = ATOL) -> None:
    torch.testing.assert_close(actual.cpu(), expected, atol=atol, rtol=1e-5)


def without_keys(bias: torch.Tensor) -> torch.Tensor:
    queries, _, values = bias.chunk(3)
    return torch.cat([queries, values])


FORWARD = [(name, INFERENCE[name], INFERENCE_VECTORS) for name in INFERENCE] + [
    (name, TRAINING[name], TRAINING_VECTORS) for name in ("T32", "mlp_T32")
]


@pytest.mark.parametrize(("name", "settings", "vectors"), FORWARD, ids=[case[0] for case in FORWARD])
class TestForward:
    def test_schedule(self, name: str, settings: dict[str, Any], vectors: Vectors, device: torch.device) -> None:
        values = part(vectors, f"{name}/")
        schedule = network(settings, part(values, "weights/"), device).schedule
        of_x0, of_xt, variance = (torch.from_numpy(values) for values in schedule.posterior)
        close(torch.from_numpy(schedule.betas), values["betas"], 1e-12)
        if "posterior_variance" in values:
            close(of_x0, values["posterior_mean_coef1"], 1e-12)
            close(of_xt, values["posterior_mean_coef2"], 1e-12)
            close(variance, values["posterior_variance"], 1e-12)

    def test_training_output_and_losses(
        self, name: str, settings: dict[str, Any], vectors: Vectors, device: torch.device
    ) -> None:
        values = part(vectors, f"{name}/")
        model = network(settings, part(values, "weights/"), device)
        batch, real = packed(vectors, device)
        if "cam_output" in values:
            close(model.condition(batch, model.plan(batch))[: len(batch.items)], values["cam_output"][real])
        _, x0_hat, x0 = model(batch, draws(settings, values, real, device))
        close(x0_hat, values["train_output"][real])
        ce = cross_entropy(x0_hat, model.item_embedding.weight, batch.targets, padding_class=True)
        close(ce, values["ce_loss"])
        close(squared_error(x0_hat, x0, batch), values["mse_loss"])

    def test_last_token_inference(
        self, name: str, settings: dict[str, Any], vectors: Vectors, device: torch.device
    ) -> None:
        values = part(vectors, f"{name}/")
        model = network(settings, part(values, "weights/"), device)
        packed_batch, _ = packed(vectors, torch.device("cpu"))
        ends = packed_batch.cu_seqlens.numpy()
        batch = history_batch(packed_batch.items.numpy(), ends[:-1], ends[1:], settings["max_len"]).to(device)
        steps = settings["diffusion_steps"]
        noises = {
            steps: values["init_noise"],
            **{steps - 1 - i: n for i, n in enumerate(values["step_noise"])},
        }
        x0 = model.predict(batch, lambda i: noises[i][:, -1].to(device))
        close(x0, values["infer_output"])
        close(model.scores(x0), values["infer_scores"])


@pytest.mark.parametrize("name", ["grad", "grad_pcgrad"])
def test_gradients(name: str, device: torch.device) -> None:
    values = part(TRAINING_VECTORS, f"{name}/")
    model = network(TRAINING[name], part(values, "weights/"), device)
    batch, real = packed(TRAINING_VECTORS, device)
    step = Step({"ce": 1.0, "mse": 1.0}, pcgrad=TRAINING[name]["pcgrad"], embedding="train")
    losses = step.gradients(model, batch, draws(TRAINING[name], values, real, device))
    close(losses["ce"], values["ce_loss"])
    close(losses["mse"], values["mse_loss"])
    expected = from_published(part(values, "grad/"))
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        close(parameter.grad, expected[parameter_name])


def test_projection_matters_in_the_conflicting_vectors(device: torch.device) -> None:
    """The vectors' two losses do conflict, so the test above exercises the projection."""
    values = part(TRAINING_VECTORS, "grad_pcgrad/")
    model = network(TRAINING["grad_pcgrad"], part(values, "weights/"), device)
    batch, real = packed(TRAINING_VECTORS, device)
    _, x0_hat, x0 = model(batch, draws(TRAINING["grad_pcgrad"], values, real, device))
    parameters = list(model.parameters())
    ce = cross_entropy(x0_hat, model.item_embedding.weight, batch.targets, padding_class=True)
    tasks = [
        torch.autograd.grad(loss, parameters, retain_graph=True) for loss in (ce, squared_error(x0_hat, x0, batch))
    ]
    plain = [(a + b) / 2 for a, b in zip(*tasks, strict=True)]
    projected = project_conflicts(tasks)
    assert max((a - b).abs().max() for a, b in zip(plain, projected, strict=True)) > 100 * ATOL


def test_adam_steps_with_a_decaying_then_free_embedding(device: torch.device) -> None:
    values, settings = part(TRAINING_VECTORS, "frozen/"), TRAINING["frozen"]
    model = network(settings, part(values, "weights/"), device)
    batch, real = packed(TRAINING_VECTORS, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    for number in range(4):
        step = Step({"ce": 1.0, "mse": 1.0}, pcgrad=False, embedding="decaying" if number < 2 else "train")
        noise = draws(settings, part(values, f"step{number}/"), real, device)
        losses = step.gradients(model, batch, noise)
        close(losses["ce"], values[f"step{number}/ce_loss"])
        close(losses["mse"], values[f"step{number}/mse_loss"])
        optimizer.step()
        if number % 2:
            expected = from_published(part(values, f"after{number + 1}/"))
            for name, parameter in model.named_parameters():
                actual = parameter.data.cpu()
                if name.endswith("query_key_value.bias"):
                    # A bias of the keys shifts all logits of a row alike: its gradient is 0 but for rounding, which
                    # Adam scales up to a whole step.
                    actual, expected[name] = without_keys(actual), without_keys(expected[name])
                close(actual, expected[name])


def test_stage_1(device: torch.device) -> None:
    values, settings = part(TRAINING_VECTORS, "stage1/"), TRAINING["stage1"]
    model = PretrainingNetwork(model_config(settings), settings["item_num"])
    model.load_state_dict(from_published(part(values, "weights/")))
    model.to(device)
    batch, real = packed(TRAINING_VECTORS, device)
    close(model(batch), values["train_output"][real])
    losses = Step({"ce": 1.0}).gradients(model, batch)
    close(losses["ce"], values["ce_loss"])
    expected = from_published(part(values, "grad/"))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        close(parameter.grad, expected[name])
    close(model.scores(model.predict(batch)), values["scores"])
