"""The plan counts what a run then has: parameters, products, bytes on the disk; making it changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from adrec.config.adrec import Config
from adrec.data.dataset import Dataset
from adrec.data.split import leave_one_out
from adrec.train.loop import Trainer
from adrec.train.plan import make_plan
from conftest import adrec_trainer, same

Make = Callable[..., Config]


@pytest.fixture
def trainer(tiny: Make, dataset: Dataset, device: torch.device) -> Trainer:
    return adrec_trainer(tiny((2, 1, 3)), dataset, leave_one_out(dataset), seed=1, device=device)


def test_a_plan_counts_what_the_run_has(trainer: Trainer) -> None:
    plan = make_plan([trainer])
    network = trainer.run()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert sum(plan.parameters.values()) == parameters
    assert plan.memory["weights"] == plan.memory["gradients"] == plan.disk["finished"] == 4 * parameters
    assert plan.memory["Adam's two moments"] == 8 * parameters
    assert plan.peak_memory == sum(plan.memory.values())
    assert plan.epochs == {"pretrain": 2, "align": 1, "finetune": 3}
    assert plan.cost.total == sum(stage.total for stage in plan.cost.stages.values())
    fine = plan.cost.stages["finetune"]
    assert fine.epoch == pytest.approx(fine.step * trainer.steps(trainer.last_sequences))
    assert fine.total == pytest.approx(3 * fine.epoch + 2 * fine.validation)  # after the first and the third epoch


def test_the_products_of_stage_1_by_hand(tiny: Make, dataset: Dataset, device: torch.device) -> None:
    """Without the sink, in a single bucket: three products a linear layer, five and the loss's three beside them."""
    config = tiny((1, 0, 0), attend_padding=False, batch_size=1000)
    trainer = adrec_trainer(config, dataset, leave_one_out(dataset), seed=1, device=device)
    tokens, size, items = trainer.last_sequences.num_tokens, config.model.hidden_size, dataset.num_items
    linear = 12 * size * size * tokens * config.model.num_blocks
    loss = tokens * items * size
    least = 2 * 3 * (linear + loss)
    # Attention: at most max_length keys for each token, padded to the longest of its bucket.
    most = least + 2 * 6 * config.model.num_blocks * tokens * 2 * config.model.max_length * size
    assert least < make_plan([trainer]).flop["pretrain"] < most


def test_planning_leaves_the_trainer_as_it_is(
    trainer: Trainer, tiny: Make, dataset: Dataset, device: torch.device
) -> None:
    state = torch.random.get_rng_state()
    plan = make_plan([trainer])
    assert torch.equal(torch.random.get_rng_state(), state)
    untouched = adrec_trainer(tiny((2, 1, 3)), dataset, leave_one_out(dataset), seed=1, device=device).run()
    assert same(trainer.run(), untouched)
    assert plan.memory["activations"] > 0
