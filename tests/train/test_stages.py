"""The stages of the default: what each does to the item embedding, and what is told and recorded of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from adrec.config.adrec import Config, preset
from adrec.config.stage import StageConfig
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.models.adrec import ADRecModel
from adrec.runs.fit import fit
from adrec.train import loop
from adrec.train.callbacks import Callback
from adrec.train.checkpoint import Progress
from adrec.train.cooccurrence import cooccurrence_vectors
from adrec.train.cost import COUNTED, estimate
from adrec.train.health import health_of
from adrec.train.stages import ended_stage, how_it_ended
from conftest import SMALL, adrec_trainer


class Watch(Callback):
    """Keeps the sentences, and the selected item embedding after each stage."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.embeddings: dict[str, torch.Tensor] = {}
        self.trainer: Any = None

    def on_message(self, sentence: str, *, warning: bool = False) -> None:
        self.sentences.append(sentence)

    def on_stage_end(self, name: str) -> None:
        self.embeddings[name] = self.trainer.weights.selected["item_embedding.weight"].clone()


def default(**changes: Any) -> Config:
    return preset(changes={**SMALL, "align.epochs": 1, "finetune.epochs": 2, **changes})


def test_stage_1_is_the_co_occurrences_stage_2_keeps_them_and_stage_3_moves_them(dataset: Dataset) -> None:
    watch, config = Watch(), default()
    trainer = adrec_trainer(config, dataset, leave_one_out(dataset), seed=4, device=torch.device("cpu"))
    watch.trainer, trainer.callbacks = trainer, [watch]
    trainer.run()
    first = watch.embeddings["pretrain"]
    vectors = cooccurrence_vectors(
        trainer.sequences["pretrain"], dataset.num_items, config.model.hidden_size, np.random.default_rng(4)
    )
    known = np.flatnonzero(vectors.any(1))
    directions = torch.nn.functional.normalize(first[known], dim=1)
    assert torch.allclose(directions, torch.from_numpy(vectors[known]), atol=1e-6)
    assert torch.equal(watch.embeddings["align"], first)
    assert not torch.equal(watch.embeddings["finetune"], first)
    assert watch.sentences[:3] == [
        "pretrain  stage 1 of 3: takes the item embedding from co-occurrences.",
        f"pretrain  starts from the items' co-occurrences in {trainer.sequences['pretrain'].num_interactions:,} "
        "interactions.",
        "pretrain  ended: the factorised co-occurrences are the item embedding.",
    ]
    assert "   align  stage 2 of 3: trains all weights but the item embedding." in watch.sentences
    assert "finetune  stage 3 of 3: trains all weights." in watch.sentences
    for record in trainer.progress.ended:
        assert record["embedding"] == health_of(watch.embeddings[record["stage"]], dataset.num_items)
    assert [record["epochs"] for record in trainer.progress.ended][:2] == [0, 1]


def test_stage_1_can_be_a_network_that_starts_from_co_occurrences(dataset: Dataset) -> None:
    model = ADRecModel(default(**{"pretrain.epochs": 1}))
    stages = fit(model, dataset, leave_one_out(dataset), seed=4)
    assert [stage["epochs"] for stage in stages][:2] == [1, 1]


def test_the_estimate_counts_the_co_occurrences(dataset: Dataset) -> None:
    trainer = adrec_trainer(default(), dataset, leave_one_out(dataset), seed=4, device=torch.device("cpu"))
    cost = estimate([trainer])
    assert list(cost.stages) == ["pretrain", "align", "finetune"]
    pretrain = cost.stages["pretrain"]
    assert pretrain.epochs == 0
    assert pretrain.total == pytest.approx(trainer.sequences["pretrain"].num_interactions / COUNTED)
    assert "pretrain under 0.1 s, align 1 x " in cost.sentence()


def test_the_time_of_stage_1_counts_in_the_first_row(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = loop.start_from_cooccurrences
    monkeypatch.setattr(loop, "start_from_cooccurrences", lambda *given: (time.sleep(1.0), begin(*given))[1])
    rows: list[Mapping[str, Any]] = []
    trainer = adrec_trainer(
        default(), dataset, leave_one_out(dataset), seed=4, device=torch.device("cpu"), on_epoch=rows.append
    )
    trainer.run()
    assert rows[0]["stage"] == "align"
    assert rows[0]["seconds"] > 1.0 > rows[1]["seconds"]


def test_only_what_was_trained_can_look_collapsed(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "collapse", lambda *_: "as if")
    watch = Watch()
    trainer = adrec_trainer(default(), dataset, leave_one_out(dataset), seed=4, device=torch.device("cpu"))
    watch.trainer, trainer.callbacks = trainer, [watch]
    trainer.run()
    assert [each.split(" the embedding")[0] for each in watch.sentences if "looks collapsed" in each] == [
        "after finetune"
    ]


def test_how_a_stage_ended() -> None:
    stage = StageConfig(epochs=9, patience=2)
    progress = Progress(epoch=5, best_epoch=3, stale=2)
    record = ended_stage("finetune", stage, progress, {})
    assert record == {"stage": "finetune", "epochs": 5, "chosen_epoch": 3, "embedding": {}}
    assert list(how_it_ended(record, stage, progress, 10, 64)) == [
        "finetune  ended after 5 epochs (validation stopped improving); epoch 3 is kept.",
        "          That is only 10 steps: set a batch_size below 64 for more.",
    ]
    progress = Progress(epoch=5, best_epoch=0, stale=0)
    record = ended_stage("finetune", stage, progress, {})
    assert record["cut"] and record["chosen_epoch"] == 5
    assert list(how_it_ended(record, stage, progress, 1000, 64)) == [
        "finetune  ended after 5 epochs (time is up); the last one is kept, as none was validated."
    ]
