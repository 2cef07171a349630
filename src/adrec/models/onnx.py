"""Scores by ONNX Runtime, from an export of a run (:mod:`adrec.export.onnx`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from adrec.data.spans import Int64s
from adrec.models.dense import DenseScorer, groups, padded
from adrec.utils.errors import ConfigError, RunError, needs_extra


class OnnxScorer(DenseScorer):
    """Scores with ONNX Runtime, in less than half of the time for one history.

    Args:
        folder: what ``adrec export`` wrote.
        scorer: that of the run, whose weights must be those of the export.
        digest: the digest of the run's weights.
        threads: the number of CPU threads.

    Raises:
        ConfigError: without the extra ``onnx``, or if the export is of another run.
        RunError: if the folder is no export.
    """

    def __init__(self, folder: Path, scorer: DenseScorer, digest: str, threads: int = 1) -> None:
        super().__init__(scorer.network, scorer.seed)
        try:
            import onnxruntime  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError(needs_extra("--onnx", "onnx")) from error
        try:
            own = json.loads((folder / "about.json").read_text())["weights"]
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            self.session = onnxruntime.InferenceSession(folder / "scores.onnx", options)
        except Exception as error:  # ONNX Runtime has errors of many kinds
            raise RunError(f"{folder} cannot be read as an export of adrec ({error}); export the run again.") from error
        if own != digest:
            raise ConfigError(f"{folder} is an export of another run; adrec export --format onnx makes one of this.")

    def __call__(self, histories: Sequence[Int64s]) -> Tensor:
        """Return the scores of every item number, float32 [B, V + 1]."""
        scores = torch.empty(len(histories), len(self.items))
        for some in groups([min(len(each), self.dense.max_length) for each in histories]):
            items, lengths = padded([histories[at] for at in some], self.dense.max_length)
            (found,) = self.session.run(None, {"items": items, "lengths": lengths})
            scores[torch.tensor(some)] = torch.from_numpy(found)
        return scores
