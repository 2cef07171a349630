"""Export to ONNX: a history to the scores of the whole catalogue, and one denoising step.

The graph contains everything between item numbers and scores: the noise of a history, every denoising step and the
repeat logits. So a program in any language gives the scores of ``adrec recommend``.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adrec.api.model import ADRec
from adrec.models.dense import DenseScorer
from adrec.nn.noise import history_words, mixed_keys, unit_noise
from adrec.runs.folder import Run
from adrec.utils.errors import ConfigError, RunError, needs_extra
from adrec.utils.files import write_json
from adrec.utils.folders import atomic_folder, check_folder

OPSET = 18
CHECKED, AGREE = 16, 1e-4  # histories on which the graph is checked; difference relative to the largest score
EXAMPLE = '''"""Recommends with ONNX Runtime alone: python example.py ITEM ITEM .. (a history, oldest first)."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

here = Path(__file__).parent
about = json.loads((here / "about.json").read_text())
ids = json.loads((here / "items.json").read_text())  # the id of item number 1, 2, ..
number = {str(each): at for at, each in enumerate(ids, start=1)}
seen = [number[each] for each in sys.argv[1:] if each in number]
history = seen[-about["max_length"] :]
if not history:
    sys.exit("the model knows none of these items")
session = onnxruntime.InferenceSession(here / "scores.onnx")
inputs = {"items": np.array([history], dtype=np.int64), "lengths": np.array([len(history)], dtype=np.int64)}
(scores,) = session.run(None, inputs)  # [1, V + 1]; number 0 is no item
if about["leaves_out_seen"]:
    scores[0, seen] = -np.inf
for at in np.argsort(-scores[0, 1:], kind="stable")[:10] + 1:
    print(ids[at - 1], scores[0, at])
'''


class _Scores(nn.Module):
    """Scores of histories: ``items`` [B, n] and ``lengths`` [B] to [B, V + 1]."""

    def __init__(self, scorer: DenseScorer) -> None:
        super().__init__()
        self.scorer = scorer
        network = scorer.network
        self.steps = network.config.num_inference_steps if network.uses_noise else 0

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        scorer = self.scorer
        noise = None
        if self.steps:
            keys = mixed_keys(history_words(items, lengths), scorer.seed)
            noise = unit_noise(keys, scorer.network.config.hidden_size, 1, self.steps + 1)
        query = scorer.dense(items, lengths, noise)  # [B, D]
        scores: Tensor = query @ scorer.items.T  # [B, V + 1]
        if scorer.bias is None:
            return scores
        met = torch.zeros_like(scores).scatter(1, items, 1.0)
        met = met * (torch.arange(scores.shape[1]) > 0)
        bias: Any = scorer.bias
        if scorer.projection is not None:
            bias = bias + (query @ scorer.projection) @ scorer.items.T
        biased: Tensor = scores + met * bias
        return biased


class _Step(nn.Module):
    """One denoising step: the sample ``x`` [B, D] of the last token at timestep ``t`` [] to ``x0_hat`` [B, D]."""

    def __init__(self, scorer: DenseScorer) -> None:
        super().__init__()
        self.dense = scorer.dense

    def forward(self, items: Tensor, lengths: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.dense.denoise(self.dense.history(items, lengths), x, self.dense.temb[t])


def export_onnx(run: Path, out: Path, *, data: Path | None = None) -> float:
    """Write a run as ``scores.onnx``, ``step.onnx``, ``items.json``, ``about.json`` and ``example.py``.

    Returns the largest difference between the scores of ONNX Runtime and ours, relative to the largest score.

    Raises:
        ConfigError: for another model than ADRec's without ablations, or without the extra ``onnx``.
        RunError: if ONNX Runtime gives other scores.
        UserError: if ``out`` exists.
    """
    recommender = ADRec.load(run, data=data, device="cpu").recommender()
    engine = recommender.engine
    if engine.dense is None:
        raise ConfigError("only adrec without model.ablation is exported to ONNX; serve other models with adrec serve.")
    try:
        import onnx  # noqa: F401, PLC0415 - an extra
        import onnxruntime  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(needs_extra("--format onnx", "onnx")) from error
    check_folder(out)
    scorer = engine.dense
    network = scorer.network
    if network.config.max_length < 2:
        raise ConfigError(
            "a model that sees one item (model.max_length=1) is not exported to ONNX; serve it with adrec serve."
        )
    example = _histories(engine.num_items, network.config.max_length, 3)
    with atomic_folder(out) as folder:
        _write(_Scores(scorer), example, folder / "scores.onnx", "scores")
        if network.uses_noise:
            x = torch.randn(3, network.config.hidden_size, generator=torch.Generator().manual_seed(0))
            _write(_Step(scorer), (*example, x, torch.tensor(1)), folder / "step.onnx", "x0_hat")
        (folder / "items.json").write_text(json.dumps([engine.item_of(at + 1) for at in range(engine.num_items)]))
        about = {
            "model": Run.open(run).info.model, "items": engine.num_items, "max_length": network.config.max_length,
            "leaves_out_seen": engine.seen == "leave-out", "temperature": recommender.temperature,
            "hidden_size": network.config.hidden_size, "timesteps": network.config.num_train_timesteps,
            "data": recommender.dataset.fingerprint, "weights": Run.open(run).info.weights_digest,
        }  # fmt: skip
        write_json(folder / "about.json", about)
        (folder / "example.py").write_text(EXAMPLE)
        return _checked(folder, scorer)


def _histories(num_items: int, max_length: int, number: int) -> tuple[Tensor, Tensor]:
    """Return some histories of different lengths, ``items`` [number, n] and ``lengths`` [number]."""
    rng = np.random.default_rng(0)
    longest = max(2, min(max_length, 30))
    lengths = np.array([1, *rng.integers(1, longest + 1, number - 2), longest])
    items = rng.integers(1, num_items + 1, (number, longest))
    items[np.arange(longest) >= lengths[:, None]] = 0
    return torch.from_numpy(items), torch.from_numpy(lengths)


def _write(module: nn.Module, arguments: tuple[Tensor, ...], path: Path, output: str) -> None:
    names = ["items", "lengths", "x", "t"][: len(arguments)]
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1)
    shapes: list[Any] = [{0: batch, 1: length}, {0: batch}, {0: batch}, {}][: len(arguments)]
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # torchvision is absent
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, arguments, path, input_names=names, output_names=[output], opset_version=OPSET, dynamo=True,
            dynamic_shapes=tuple(shapes), external_data=False,
            verbose=False,
        )  # fmt: skip


def _checked(folder: Path, scorer: DenseScorer) -> float:
    """Return the largest relative difference of the scores; raise :class:`RunError` if it is too large."""
    import onnxruntime  # noqa: PLC0415 - an extra

    session = onnxruntime.InferenceSession(folder / "scores.onnx")
    items, lengths = _histories(scorer.network.num_items, scorer.dense.max_length, CHECKED)
    (found,) = session.run(None, {"items": items.numpy(), "lengths": lengths.numpy()})
    expected = scorer([each[:length].numpy() for each, length in zip(items, lengths.tolist(), strict=True)]).numpy()
    worst = float(np.abs(found[:, 1:] - expected[:, 1:]).max() / max(1e-30, np.abs(expected[:, 1:]).max()))
    if not worst <= AGREE:
        raise RunError(f"ONNX Runtime gives other scores (by {worst:.1e} of the largest), so nothing is exported.")
    return worst
