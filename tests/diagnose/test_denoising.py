"""The items nearest to a sample on its way from noise to a prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adrec.config.adrec import preset
from adrec.data.batch import history_batch
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.diagnose.denoising import denoised_items
from adrec.inference.recommender import Recommender
from adrec.models.adrec import ADRecModel
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.noise import HistoryNoise
from adrec.runs.fit import fit
from adrec.utils.errors import ConfigError
from conftest import SMALL


@pytest.fixture
def trained(dataset: Dataset) -> ADRecModel:
    model = ADRecModel(
        preset("default", {**SMALL, "num_train_timesteps": 6, "noise_weight": 0.5, "finetune.epochs": 2})
    )
    fit(model, dataset, leave_one_out(dataset), seed=7)
    return model


def test_the_end_of_the_chain_is_what_all_steps_recommend(trained: ADRecModel, dataset: Dataset) -> None:
    history = dataset.history(0)
    found = denoised_items(trained, history, [6, 3, 0], 3)
    assert list(found) == [6, 3, 0]
    trained.with_inference(6, None)
    recommended = Recommender(trained, dataset).for_users([dataset.users.ids[0]], 3).table["item_id"]
    assert dataset.catalogue.decode(found[0] - 1).to_list() == recommended.to_list()


def test_the_start_of_the_chain_is_the_noise(trained: ADRecModel, dataset: Dataset) -> None:
    network, history = trained.network, dataset.history(0)
    assert isinstance(network, ADRecNetwork)
    batch = history_batch(history, np.array([0]), np.array([len(history)]), network.config.max_length)
    noise = HistoryNoise(batch, network.config.hidden_size, trained.seed, torch.device("cpu"))(6)  # [1, D]
    scores = (noise @ network.item_embedding.weight.T)[0, 1:]  # [V]
    scores[torch.from_numpy(history.astype(np.int64)) - 1] = -torch.inf
    assert denoised_items(trained, history, [6], 3)[6].tolist() == (scores.topk(3).indices + 1).tolist()


def test_a_model_that_denoises_nothing_is_refused(dataset: Dataset) -> None:
    model = ADRecModel(preset("cam", {**SMALL, "finetune.epochs": 1}))
    fit(model, dataset, leave_one_out(dataset), seed=0)
    with pytest.raises(ConfigError, match="denoises nothing"):
        denoised_items(model, dataset.history(0), [0], 3)


def test_more_steps_than_there_are_and_more_items_than_may_be_shown(trained: ADRecModel, dataset: Dataset) -> None:
    history = dataset.history(0)
    with pytest.raises(ConfigError, match="steps_left are whole numbers from 0 to 6; they are \\[7\\]"):
        denoised_items(trained, history, [7], 3)
    found = denoised_items(trained, history, [0], dataset.num_items)[0]
    assert sorted(found) == sorted(set(range(1, dataset.num_items + 1)) - set(history.tolist()))
