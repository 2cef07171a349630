"""Half precision that is slower than float32 is reported, with the measured ratio."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from adrec.config.adrec import Config
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.train import precision
from adrec.train.callbacks import Callback
from conftest import adrec_trainer


class Warnings(Callback):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def on_message(self, sentence: str, *, warning: bool = False) -> None:
        if warning:
            self.sentences.append(sentence)


@pytest.mark.parametrize(("ratio", "warns"), [(15.0, True), (0.5, False)])
def test_slow_bfloat16_is_reported_when_training_starts(
    tiny: Callable[..., Config], dataset: Dataset, monkeypatch: pytest.MonkeyPatch, ratio: float, warns: bool
) -> None:
    monkeypatch.setattr(precision, "_seconds", lambda dtype: ratio if dtype == torch.bfloat16 else 1.0)
    for name in ("float32", "bfloat16"):
        told = Warnings()
        adrec_trainer(tiny((0, 0, 1), precision=name), dataset, leave_one_out(dataset), seed=1, callbacks=[told]).run()
        found = [each for each in told.sentences if "15.0 times as long" in each]
        assert bool(found) is (warns and name == "bfloat16")


def test_a_gpu_is_not_measured() -> None:
    assert precision.slow_bfloat16(torch.device("cuda")) is None


def test_the_measurement_takes_moments_and_gives_a_time() -> None:
    assert 0 < precision._seconds(torch.float32) < 1
