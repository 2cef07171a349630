"""The sequential baselines equal their papers' formulas on padded batches, and learn what can be known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import restatements as paper
import torch
from torch import Tensor

from adrec.data.batch import PackedBatch, history_batch, training_batch
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.split import make_split
from adrec.evaluate.ranking import held_out, ranking
from adrec.models.baselines.bert4rec import BERT4RecNetwork, Masks
from adrec.models.baselines.gsasrec import beta_of
from adrec.models.baselines.negatives import Negatives, draw_others, draw_unseen, target_and_negatives
from adrec.models.network import NetworkModel
from adrec.models.registry import find_model
from adrec.nn.base import SequenceNetwork, make_network
from adrec.nn.kernels import sampled
from adrec.nn.losses import Objective
from adrec.runs.fit import fit
from adrec.train.step import Step
from conftest import cyclic_table

NAMES = ("gru4rec", "sasrec", "sasrec+", "gsasrec", "bert4rec", "esasrec")
CAUSAL = tuple(name for name in NAMES if name != "bert4rec")
NUM_ITEMS, MAX_LENGTH = 30, 6
SMALL: dict[str, Any] = {"hidden_size": 8, "max_length": MAX_LENGTH}
OWN: dict[str, dict[str, Any]] = {
    "gru4rec": {"num_layers": 2},
    "sasrec": {"num_heads": 2},
    "sasrec+": {"num_heads": 2},
    "gsasrec": {"num_heads": 2, "num_negatives": 5},
    "bert4rec": {"mask_share": 0.4, "last_share": 0.3},
    "esasrec": {"num_heads": 2, "num_negatives": 5, "num_blocks": 2},
}


def network(name: str, num_items: int = NUM_ITEMS, **changes: Any) -> SequenceNetwork:
    """Return a small network with weights that are all of one size, so that nothing is 0 or 1 by chance."""
    model = find_model(name)
    assert issubclass(model, NetworkModel)
    config = model.Config.make(changes=SMALL | OWN[name] | changes)
    made = make_network(model.networks["network"], config.network, num_items)  # type: ignore[attr-defined]
    rng = torch.Generator().manual_seed(3)
    made.initialize(rng)
    for parameter in made.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return made


def batch_of(num_users: int = 12, num_items: int = NUM_ITEMS, seed: int = 0) -> PackedBatch:
    """Return sequences of up to L + 4 items, so that some are cut and some are short."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, MAX_LENGTH + 5, size=num_users)
    items = rng.integers(1, num_items + 1, size=int(lengths.sum())).astype(np.int32)
    ends = np.cumsum(lengths)
    return training_batch(items, ends - lengths, ends, MAX_LENGTH)


def padded(values: Tensor, batch: PackedBatch) -> Tensor:
    """Return packed values [N, ..] left-padded with zeros, [B, L, ..]."""
    out = values.new_zeros(batch.num_users, MAX_LENGTH, *values.shape[1:])
    for user, length in enumerate(batch.lengths.tolist()):
        begin = int(batch.cu_seqlens[user])
        out[user, MAX_LENGTH - length :] = values[begin : begin + length]
    return out


def drawn(model: SequenceNetwork, batch: PackedBatch, seed: int = 4) -> Any:
    return model.draw(batch, torch.Generator(batch.items.device).manual_seed(seed))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def restated(name: str, w: paper.Weights, batch: PackedBatch, draws: Any) -> tuple[Tensor, Tensor]:
    """Return the outputs that the paper has where ours are [rows, D or V + 1], and the loss."""
    items, targets = padded(batch.items, batch), padded(batch.targets, batch)
    if name == "bert4rec":
        whole = torch.cat([items, targets[:, -1:]], 1)  # [B, L + 1]
        masked = torch.cat([padded(draws.items, batch), draws.last[:, None]], 1)
        logits = paper.bert(w, torch.where(masked, NUM_ITEMS + 1, whole), OWN[name].get("num_heads", 2))[masked]
        return logits, torch.nn.functional.cross_entropy(logits[:, 1:], whole[masked] - 1)
    if name == "gru4rec":
        outputs = paper.gru(w, items)
    else:
        outputs = paper.causal_transformer(w, items, 2, ligr=name == "esasrec")
    if name in ("gru4rec", "sasrec+"):
        return outputs[items > 0], paper.full_cross_entropy(w, outputs, targets)
    negatives = padded(draws.items, batch)
    if name == "gsasrec":
        return outputs[items > 0], paper.gsasrec_loss(w, outputs, targets, negatives, t=0.75)
    loss = paper.sasrec_loss if name == "sasrec" else paper.esasrec_loss
    return outputs[items > 0], loss(w, outputs, targets, negatives)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_its_paper(name: str, dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "DENSE", 1000 if dense else 0)
    model, batch = network(name), batch_of()
    draws = drawn(model, batch)
    outputs = model(batch, draws)
    (loss,) = model.losses(outputs, batch, draws, Objective(batch, draws)).values()
    loss.backward()

    w = {key: value.detach().clone().requires_grad_() for key, value in model.named_parameters()}
    expected, expected_loss = restated(name, w, batch, draws)
    close(
        model.scored(outputs.detach(), batch).block(slice(0, NUM_ITEMS + 1)) if name == "bert4rec" else outputs,
        expected,
    )
    close(loss, expected_loss)
    expected_loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        close(parameter.grad, torch.zeros_like(parameter) if w[key].grad is None else w[key].grad)


@pytest.mark.parametrize("name", NAMES)
def test_prediction_is_the_papers(name: str) -> None:
    """It is the last output; BERT4Rec's is that of a mask behind the history."""
    model, batch = network(name), batch_of()
    w, items = dict(model.named_parameters()), padded(batch.items, batch)
    scores = model.scored(model.predict(batch), batch).block(slice(1, NUM_ITEMS + 1))
    with torch.no_grad():
        if name == "bert4rec":
            asked = torch.cat([items, torch.full((len(items), 1), NUM_ITEMS + 1)], 1)
            expected = paper.bert(w, asked, 2)[:, -1, 1:]
        else:
            outputs = paper.gru(w, items) if name == "gru4rec" else None
            outputs = paper.causal_transformer(w, items, 2, ligr=name == "esasrec") if outputs is None else outputs
            expected = outputs[:, -1] @ w["item_embedding.weight"][1:].T
    close(scores, expected)


@pytest.mark.parametrize("max_tokens", [1, 20])
@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_a_batch_add_up_to_it(name: str, max_tokens: int, device: torch.device) -> None:
    def computed(max_tokens: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        model, batch = network(name).to(device), batch_of(20).to(device)
        losses = Step().gradients(model, batch, drawn(model, batch), None, max_tokens)
        gradients = {key: value.grad.cpu() for key, value in model.named_parameters() if value.grad is not None}
        return {key: value.cpu() for key, value in losses.items()}, gradients

    (losses, gradients), (in_parts, gradients_of_parts) = computed(None), computed(max_tokens)
    torch.testing.assert_close(in_parts, losses, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients_of_parts, gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_near(name: str) -> None:
    model, batch = network(name), batch_of()
    draws = drawn(model, batch)
    exact = Step().gradients(model, batch, draws)
    low = Step(precision="bfloat16").gradients(model, batch, draws)
    for key, loss in exact.items():
        assert low[key].dtype == torch.float32
        torch.testing.assert_close(low[key], loss, atol=0, rtol=0.03)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_later_item_changes_no_earlier_output(name: str) -> None:
    model, batch = network(name), batch_of()
    items = batch.items.clone()
    last = batch.cu_seqlens[1:] - 1
    items[last] = items[last] % NUM_ITEMS + 1
    with torch.no_grad():
        before, after = model(batch), model(replace(batch, items=items))
    earlier = torch.ones(len(items), dtype=torch.bool).index_fill(0, last, False)
    assert torch.equal(before[earlier], after[earlier])
    assert not torch.isclose(before[last], after[last]).all(1).any()


def test_bert4rec_sees_both_sides() -> None:
    model, batch = network("bert4rec"), history_batch(np.array([1, 2, 3, 4]), np.array([0]), np.array([4]), 6)
    masks = Masks(torch.tensor([False, True, False, False]), torch.tensor([False]))
    with torch.no_grad():
        before = model(replace(batch, targets=torch.tensor([2, 3, 4, 5])), masks)
        for place, changed in ((0, [9, 2, 3, 4]), (2, [1, 2, 9, 4]), (1, [1, 9, 3, 4])):
            items = torch.tensor(changed)
            after = model(replace(batch, items=items, targets=torch.tensor([*changed[1:], 5])), masks)
            assert torch.allclose(before, after) == (place == 1), "all but what is masked is seen"


def test_bert4rec_masks_the_share_that_it_is_told_to() -> None:
    model, batch = network("bert4rec", mask_share=0.5, last_share=0.25), batch_of(2000)
    assert isinstance(model, BERT4RecNetwork)
    masks = drawn(model, batch)
    users = torch.arange(2000).repeat_interleave(torch.from_numpy(batch.lengths))
    inner = torch.zeros(2000, dtype=torch.long).index_add_(0, users, masks.items.long())
    count = inner + masks.last
    share = (0.5 * torch.from_numpy(batch.lengths + 1)).round().clamp(min=1).long()
    as_told, last_alone = count == share, masks.last & (inner == 0)
    assert (as_told | last_alone).all()
    assert masks.count == int(count.sum())
    assert 0.2 < float((last_alone & ~as_told).sum() / (share > 1).sum()) < 0.3
    free = as_told & ~last_alone
    assert float(masks.last[free].float().mean()) == pytest.approx(
        float((share / torch.from_numpy(batch.lengths + 1))[free].mean()), abs=0.1
    )


def test_unseen_items_are_uniform_and_unseen() -> None:
    batch = batch_of(40, num_items=12)
    rng = torch.Generator().manual_seed(0)
    users = np.repeat(np.arange(40), batch.lengths)
    sequences = [set() for _ in range(40)]  # type: list[set[int]]
    for user, item, target in zip(users, batch.items.tolist(), batch.targets.tolist(), strict=True):
        sequences[user] |= {item, target}
    counts = np.zeros((40, 13))
    for _ in range(400):
        items = draw_unseen(batch, 12, rng).items[:, 0].numpy()
        np.add.at(counts, (users, items), 1)
    for user, seen in enumerate(sequences):
        unseen = [item for item in range(1, 13) if item not in seen]
        assert counts[user, unseen].sum() == counts[user].sum()
        mean = counts[user].sum() / len(unseen)
        assert (abs(counts[user, unseen] - mean) < 6 * np.sqrt(mean)).all()


def test_a_user_with_the_whole_catalogue_has_some_negative() -> None:
    batch = training_batch(np.array([1, 2, 3, 1, 1], dtype=np.int32), np.array([0, 3]), np.array([3, 5]), 6)
    negatives = draw_unseen(batch, 3, torch.Generator().manual_seed(0)).items
    assert negatives[:2].tolist() == [[3], [3]]
    assert negatives[2, 0] in (2, 3)


@pytest.mark.parametrize("num_items", [1, 2, 30])
def test_other_items_are_uniform_and_other(num_items: int) -> None:
    targets = torch.arange(1, num_items + 1)
    items = draw_others(targets, 3000, num_items, torch.Generator().manual_seed(0)).items
    for target, row in zip(targets.tolist(), items, strict=True):
        counts = torch.bincount(row, minlength=num_items + 1)
        assert counts[0] == 0
        assert (counts[target] == 0) == (num_items > 1)
        others = torch.cat([counts[1:target], counts[target + 1 :]])
        mean = 3000 / max(num_items - 1, 1)
        assert ((others - mean).abs() < 6 * mean**0.5).all()


def test_scores_are_products() -> None:
    rng = torch.Generator().manual_seed(0)
    x, E = torch.randn(50, 8, generator=rng), torch.randn(31, 8, generator=rng)
    targets = torch.randint(1, 31, (50,), generator=rng)
    negatives = Negatives(torch.randint(1, 31, (50, 4), generator=rng))
    scores = target_and_negatives(x, E, targets, negatives)
    close(scores, (x @ E.T).gather(1, torch.cat([targets[:, None], negatives.items], 1)))


def test_calibration() -> None:
    """With t = 0 it is binary cross-entropy; with t = 1 beta is the sampling rate."""
    assert beta_of(0, 10, 101) == pytest.approx(1)
    assert beta_of(1, 10, 101) == pytest.approx(0.1)
    assert beta_of(0.75, 256, 12) == pytest.approx(1), "more negatives than items: nothing to correct"


@pytest.mark.parametrize(("name", "key"), [("gsasrec", "num_negatives"), ("esasrec", "num_negatives")])
def test_absurd_settings_are_refused(name: str, key: str) -> None:
    with pytest.raises(Exception, match=key):
        find_model(name).Config.make(changes={key: 0})


@pytest.mark.parametrize("changes", [{"mask_share": 1.5}, {"last_share": -0.1}])
def test_absurd_masks_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(Exception, match="must be in"):
        find_model("bert4rec").Config.make(changes=changes)


# What it takes to learn that each item follows the one before: epochs, and how many items may stand above the next.
# SASRec's negatives are never items of the user's own sequence, so it cannot tell the next one from those behind it.
LEARNING = {"gru4rec": (30, 0), "sasrec": (20, 2), "gsasrec": (60, 0), "bert4rec": (60, 2)}
LEARNER: dict[str, dict[str, Any]] = {
    "bert4rec": {"mask_share": 0.15, "last_share": 0.5, "learning_rate": 0.003},
    "gsasrec": {"num_negatives": 8},
}


@pytest.fixture(scope="module")
def cycle() -> Dataset:
    return prepare(cyclic_table(num_users=150, num_items=40))


def trained(name: str, dataset: Dataset, epochs: int, seed: int = 0) -> NetworkModel:
    model = find_model(name)
    changes = {"hidden_size": 16, "max_length": 12, "batch_size": 16, "embedding_dropout": 0.0, "dropout": 0.0}
    changes |= {"train.epochs": epochs, "learning_rate": 0.01, "patience": 0} | LEARNER.get(name, {})
    made = model(model.Config.make(changes=changes))
    assert isinstance(made, NetworkModel)
    fit(made, dataset, make_split(dataset), seed=seed)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_what_follows_what(name: str, cycle: Dataset) -> None:
    epochs, above = LEARNING.get(name, (15, 0))
    model = trained(name, cycle, epochs)
    histories, items = held_out(cycle, make_split(cycle).test)
    assert (ranking(model, histories, items).ranks <= above).mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_model(name: str, cycle: Dataset) -> None:
    one, again, other = (trained(name, cycle, 2, seed).state() for seed in (5, 5, 6))
    for key, value in one.items():
        assert torch.equal(value, again[key]), key
    assert not torch.equal(one["item_embedding.weight"], other["item_embedding.weight"])


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_on_exactly_with_a_generator(name: str) -> None:
    model, batch = network(name, embedding_dropout=0.5, dropout=0.5), batch_of()
    draws = drawn(model, batch)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        outputs = [model(batch, draws, rng and torch.Generator().manual_seed(rng)) for rng in (None, None, 1, 1, 2)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[2], outputs[3])
    assert not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[2], outputs[4])
    assert torch.equal(torch.random.get_rng_state(), state), "no global generator is read"
