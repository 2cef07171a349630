"""Checks that a fitted user-defined model implements the interface, with an error that names the violation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from adrec.data.batch import history_batch
from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s
from adrec.data.split import Split
from adrec.models.base import Model
from adrec.models.network import NetworkModel
from adrec.nn.scores import Scores
from adrec.utils.errors import ConfigError

HISTORIES = 8  # the number of histories in the checks
TOLERANCE = 5e-3  # relative to the largest score: the tolerance for rounding on a GPU
ASKED_FOR = ("num_users", "device", "block", "of", "rounding")  # the attributes that scores must have


def check_fitted(model: Model, dataset: Dataset, split: Split) -> None:
    """Check a fitted ``model`` that is not part of adrec on a few training histories.

    Raises :class:`ConfigError` naming the requirement of :class:`Model` that it violates. adrec's own models are
    checked by its tests.
    """
    if type(model).__module__.partition(".")[0] == "adrec":
        return
    if model.num_items != split.num_items:
        raise _broken(
            model,
            f"'num_items' is {model.num_items!r} after fit, and should be {split.num_items}, the items of the split.",
        )
    _check_state(model, model.state())
    rows = _some_histories(dataset, split)
    if not len(rows):
        return
    together, device = _scores(model, dataset, rows)
    for index, row in enumerate(rows):
        if not _alike(_scores(model, dataset, row[None])[0][0], together[index]):
            raise _broken(
                model, "a history's scores must not depend on the batch that it is in, and be the same each time."
            )
    if not _alike(_scores(_restored(model, device), dataset, rows)[0], together):
        raise _broken(model, "'restore' with what 'state' gave, on a new object, must give the same scores.")


def _broken(model: Model, clause: str) -> ConfigError:
    own = type(model)
    return ConfigError(f"{own.__module__}:{own.__qualname__} breaks the contract of a model: {clause}")


def _alike(left: Tensor, right: Tensor) -> bool:
    """Return whether scores are equal up to rounding."""
    known = right[right.isfinite()].abs()
    return torch.allclose(left, right, rtol=0.0, atol=TOLERANCE * float(known.max()) if len(known) else 0.0)


def _some_histories(dataset: Dataset, split: Split) -> Int64s:
    """Return the start and end of some training histories of known items, [n, 2], including the longest one."""
    starts, ends = np.asarray(dataset.offsets[:-1]), np.asarray(split.train_ends)
    users = np.flatnonzero(ends > starts)
    users = users[np.argsort(ends[users] - starts[users], kind="stable")]
    users = users[np.unique(np.linspace(0, len(users) - 1, HISTORIES).astype(np.int64))] if len(users) else users
    known = [user for user in users if (dataset.items[starts[user] : ends[user]] <= split.num_items).all()]
    return np.stack([starts[known], ends[known]], axis=1).astype(np.int64).reshape(-1, 2)


def _scores(model: Model, dataset: Dataset, rows: Int64s) -> tuple[Tensor, torch.device]:
    """Return the checked scores of the items for the histories at ``rows`` [n, 2], [n, V], and their device.

    The returned scores are on the CPU, in float32.
    """
    scores = model(history_batch(dataset.items, rows[:, 0], rows[:, 1], model.max_length))
    if isinstance(scores, Tensor) or not all(hasattr(scores, name) for name in ASKED_FOR):
        raise _broken(
            model,
            "calling it must return Scores (adrec.models.Table of a tensor [B, V + 1] is one); it returned a "
            f"{type(scores).__name__}.",
        )
    if scores.num_users != len(rows):
        raise _broken(model, f"it returned scores of {scores.num_users} histories for a batch of {len(rows)}.")
    return _block(model, scores, len(rows)), scores.device


def _block(model: Model, scores: Scores, num_users: int) -> Tensor:
    """Return the checked block of all items, [n, V], on the CPU in float32."""
    every = slice(1, model.num_items + 1)
    block = scores.block(every)
    if tuple(block.shape) != (num_users, model.num_items):
        raise _broken(
            model,
            f"a block of scores of {num_users} histories and the items 1 to {model.num_items} must be "
            f"[{num_users}, {model.num_items}]; it is {list(block.shape)}.",
        )
    if not block.is_floating_point() or block.requires_grad:
        raise _broken(model, "scores must be floating-point numbers without gradients (torch.no_grad).")
    if torch.isnan(block).any():
        raise _broken(model, "scores must be numbers; some are NaN.")
    found = block.float().cpu().clone()
    block.zero_()
    if not _alike(scores.block(every).float().cpu(), found):
        raise _broken(model, "'block' of its scores must give a tensor of its own, as who asks for it overwrites it.")
    rows = torch.arange(num_users, device=scores.device)
    own, rounding = scores.of(rows, torch.ones_like(rows)), scores.rounding()
    if tuple(own.shape) != (num_users,) or not _alike(own.float().cpu(), found[:, 0]):
        raise _broken(model, "'of' its scores must give, [n], what stands in 'block' for the same pairs.")
    if tuple(rounding.shape) != (num_users, 1) or not (rounding >= 0).all():
        raise _broken(model, "'rounding' of its scores must give, [B, 1], a number that is not negative.")
    return found


def _check_state(model: Model, state: Mapping[str, Tensor]) -> None:
    if not isinstance(state, Mapping):
        raise _broken(model, f"'state' must give tensors by name; it gave a {type(state).__name__}.")
    storages: list[int] = []
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise _broken(
                model,
                f"'state' must give tensors by name; {name!r} is a {type(value).__name__} (torch.from_numpy makes a "
                "tensor of an array).",
            )
        if value.layout is not torch.strided or value.dtype == torch.bfloat16:
            raise _broken(model, f"'state' must give dense tensors that NumPy knows; {name!r} is none.")
        storages.append(value.untyped_storage().data_ptr() if value.numel() else len(storages))
    if len(set(storages)) < len(storages):
        raise _broken(model, "the tensors of 'state' must not share memory; give a clone.")


def _restored(model: Model, device: torch.device) -> Model:
    new, state = type(model)(model.config), {name: value.detach().cpu() for name, value in model.state().items()}
    try:
        if isinstance(model, NetworkModel) and isinstance(new, NetworkModel):
            new.restore(state, model.num_items, device, kind=model.kind, seed=model.seed)
        else:
            new.restore(state, model.num_items, device)
    except (KeyError, RuntimeError, TypeError) as error:
        raise _broken(model, f"'restore' does not take what 'state' gives ({error!r}).") from error
    if new.num_items != model.num_items:
        raise _broken(model, f"'num_items' is {new.num_items!r} after restore, and was {model.num_items} after fit.")
    return new
