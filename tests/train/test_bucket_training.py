"""Training by the scalable cross-entropy: it learns, resumes to the same bits, and refuses what does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from adrec.config.adrec import Config, preset
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.nn.adrec import ADRecNetwork
from adrec.train.ranked import check_ranked
from adrec.utils.errors import ConfigError
from conftest import SMALL, OnEpoch, adrec_trainer, same, trained_and_resumed

FITS = {"finetune.consistency": 0.0, "finetune.future_items": 1}
BUCKETS = {**FITS, "finetune.buckets": True, "finetune.buckets.items": 4, "max_tokens": 60}


def config(**changes: Any) -> Config:
    return preset("cam", {**SMALL, **BUCKETS, "finetune.epochs": 4, **changes})


def test_resuming_after_any_epoch_gives_the_same_bits(dataset: Dataset) -> None:
    expected, resumed = trained_and_resumed(config(), dataset)
    assert len(resumed) >= 3 and all(same(each, expected) for each in resumed)


def test_it_learns(dataset: Dataset) -> None:
    """Cyclic sequences are predicted after some epochs, from four items a bucket."""
    settings = config(**{"finetune.epochs": 40, "finetune.averaging": 0.0, "finetune.patience": 39})
    rows: list[Any] = []
    adrec_trainer(settings, dataset, leave_one_out(dataset), seed=1, callbacks=[OnEpoch(rows.append)]).run()
    assert rows[-1]["validation"]["ndcg@20"] > 0.9, "a random order of 12 items has 0.42"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finetune.consistency": 1.0}, "finetune.consistency=0 and finetune.future_items=1"),
        ({"finetune.future_items": 2}, "finetune.consistency=0 and finetune.future_items=1"),
        ({"finetune.rows": True}, "leave one of them out"),
        ({"finetune.negatives": 5}, "buckets have the negatives"),
        ({"finetune.buckets.items": 1}, "buckets.items must be at least 2"),
        ({"finetune.buckets.cover": 0.0}, "buckets.cover must be above 0"),
        ({"finetune.buckets.cover": 1e308}, "at most 100"),
        ({"model.diffusion": True, "finetune.loss": "mse"}, "buckets are the cross-entropy's"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**changes)


def test_several_processes_refuse_them() -> None:
    with pytest.raises(ConfigError, match="finetune.buckets need one process"):
        check_ranked(config(), {"adrec": ADRecNetwork})


def test_the_default_of_the_preset_is_written_as_before() -> None:
    assert "buckets" not in preset("default").to_dict()["finetune"]
    assert Config.from_dict(config().to_dict()) == config()
