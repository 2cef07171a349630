"""Whether a fitted model keeps the contract: what a user's own class breaks is named at once, not found out later."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adrec.contract import Model
from adrec.data.batch import history_batch
from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s
from adrec.data.split import Split
from adrec.errors import ConfigError
from adrec.models import NetworkModel

HISTORIES = 8  # that a model is tried on
ASKED_FOR = ("num_users", "device", "block", "of")  # of scores


def check_fitted(model: Model, dataset: Dataset, split: Split) -> None:
    """Try a fitted ``model`` that does not come with adrec on a few training histories.

    Raises :class:`ConfigError` with the clause of :class:`adrec.contract.Model` that it breaks. What adrec has itself
    is held to the contract by its tests.
    """
    if type(model).__module__.partition(".")[0] == "adrec":
        return
    if not (isinstance(model.num_items, int) and 1 <= model.num_items <= split.num_items):
        raise _broken(
            model,
            f"'num_items' is {model.num_items!r} after fit, and should be {split.num_items}, the items of the split.",
        )
    rows = _some_histories(model, dataset, split)
    if not len(rows):
        return
    together = _scores(model, dataset, rows)
    for place, row in enumerate(rows):
        if not _alike(_scores(model, dataset, row[None])[0], together[place]):
            raise _broken(
                model, "a history's scores must not depend on the batch that it is in, and be the same each time."
            )
    _check_state(model)
    if not _alike(_scores(_restored(model), dataset, rows), together):
        raise _broken(model, "'restore' with what 'state' gave, on a new object, must give the same scores.")


def _broken(model: Model, clause: str) -> ConfigError:
    own = type(model)
    return ConfigError(f"{own.__module__}:{own.__qualname__} breaks the contract of a model: {clause}")


def _alike(left: Tensor, right: Tensor) -> bool:
    """Return whether scores are equal but for rounding."""
    return torch.allclose(left, right, rtol=1e-3, atol=1e-4)


def _some_histories(model: Model, dataset: Dataset, split: Split) -> Int64s:
    """Return where some training histories of items that are known begin and end, [n, 2], the longest among them."""
    starts, ends = np.asarray(dataset.offsets[:-1]), np.asarray(split.train_ends)
    users = np.flatnonzero(ends > starts)
    users = users[np.argsort(ends[users] - starts[users], kind="stable")]
    users = users[np.unique(np.linspace(0, len(users) - 1, HISTORIES).astype(np.int64))] if len(users) else users
    known = [user for user in users if (dataset.items[starts[user] : ends[user]] <= model.num_items).all()]
    return np.stack([starts[known], ends[known]], axis=1).astype(np.int64).reshape(-1, 2)


def _scores(model: Model, dataset: Dataset, rows: Int64s) -> Tensor:
    """Return the scores of the items for the histories at ``rows`` [n, 2], as they should be, [n, V]."""
    scores = model(history_batch(dataset.items, rows[:, 0], rows[:, 1], model.max_length))
    lacking = [name for name in ASKED_FOR if not hasattr(scores, name)]
    if lacking or isinstance(scores, Tensor):
        raise _broken(
            model,
            f"calling it must return Scores (adrec.scoring.Table of a tensor [B, V + 1] is one); it returned a "
            f"{type(scores).__name__}.",
        )
    if scores.num_users != len(rows):
        raise _broken(model, f"it returned scores of {scores.num_users} histories for a batch of {len(rows)}.")
    block = scores.block(slice(1, model.num_items + 1))
    if tuple(block.shape) != (len(rows), model.num_items):
        raise _broken(
            model,
            f"a block of scores of {len(rows)} histories and the items 1 to {model.num_items} must be "
            f"[{len(rows)}, {model.num_items}]; it is {list(block.shape)}.",
        )
    if torch.isnan(block).any():
        raise _broken(model, "scores must be numbers; some are NaN.")
    _check_single(model, scores.of(torch.ones(len(rows), 1, dtype=torch.int64, device=scores.device)), block[:, :1])
    return block.float().cpu()


def _check_single(model: Model, own: Tensor, column: Tensor) -> None:
    if own.shape != column.shape or not _alike(own.float(), column.float()):
        raise _broken(model, "'of' its scores must give, [B, 1], what stands in 'block' for the same items.")


def _check_state(model: Model) -> None:
    state = model.state()
    wrong = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if wrong:
        raise _broken(
            model,
            f"'state' must give tensors by name; {wrong[0]!r} is a {type(state[wrong[0]]).__name__} "
            "(torch.from_numpy makes a tensor of an array).",
        )


def _restored(model: Model) -> Model:
    new = type(model)(model.config)
    try:
        if isinstance(model, NetworkModel) and isinstance(new, NetworkModel):
            new.restore(dict(model.state()), model.num_items, kind=model.kind, seed=model.seed)
        else:
            new.restore(dict(model.state()), model.num_items)
    except (KeyError, RuntimeError) as error:
        raise _broken(model, f"'restore' does not take what 'state' gives ({error!r}).") from error
    if new.num_items != model.num_items:
        raise _broken(model, f"'num_items' is {new.num_items!r} after restore, and was {model.num_items} after fit.")
    return new
