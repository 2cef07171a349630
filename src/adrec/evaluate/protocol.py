"""Evaluation on held-out interactions: the protocol and its result."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from adrec.config.stage import SeenOrData
from adrec.data.dataset import Dataset
from adrec.data.seen import leaves_out
from adrec.data.spans import spans
from adrec.data.split import Split, Targets
from adrec.evaluate.metrics import Estimate, batch_means, estimates, metric_names
from adrec.evaluate.ranking import Ranking, held_out, ranking, ranking_by
from adrec.inference.scorer import Scorer
from adrec.nn.ranks import Ranks
from adrec.utils.errors import DataError

DEFAULT_CUTOFFS = (5, 10, 20)


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        split: the split's name.
        part: ``validation`` or ``test``.
        filter_seen: whether the items of the history were left out of the ranking.
        metrics: each metric's mean and 95 % interval over users, in 0..1.
        batch_means: the published code's averages over batches of 512 users, if requested.
        coverage: the share of the catalogue in the first k of at least one evaluated user; k is the largest cut-off.
        popularity: mean training interactions of an item, of the ``recommended`` first k and of the ``held_out``.
        cutoff: the k of ``coverage`` and ``popularity``.
        ranks: one row per held-out item: ``user``, ``item``, ``rank`` (from 1; 1,000,001 or more if not ranked).
        num_users: number of evaluated users.
        num_new_items: number of held-out items that first appear after training; they are unknown to the model and
            rank last.
        num_repeats: number of held-out items in the user's own history, if those are left out; they rank last too.
    """

    split: str
    part: str
    filter_seen: bool
    metrics: Mapping[str, Estimate]
    batch_means: Mapping[str, float] | None
    coverage: float
    popularity: Mapping[str, float]
    cutoff: int
    ranks: pl.DataFrame
    num_users: int
    num_new_items: int = 0
    num_repeats: int = 0

    def table(self) -> pl.DataFrame:
        """Return ``metric``, ``mean``, ``low`` and ``high``: the metrics with their 95 % intervals over users."""
        rows = [(name, each.mean, each.low, each.high) for name, each in self.metrics.items()]
        return pl.DataFrame(rows, schema=["metric", "mean", "low", "high"], orient="row")

    def _repr_html_(self) -> str:
        """Return the metrics as a table, for notebooks."""
        seen = "left out" if self.filter_seen else "ranked too"
        what = f"{self.part} part of {self.split}, {self.num_users:,} users, whole catalogue, seen items {seen}"
        return f"<p>{html.escape(what)}</p>{self.table()._repr_html_()}"

    def to_dict(self) -> dict[str, Any]:
        """Return what ``adrec evaluate --json`` writes."""
        result: dict[str, Any] = {
            "split": self.split,
            "part": self.part,
            "users": self.num_users,
            "held_out": self.ranks.height,
            "held_out_new_items": self.num_new_items,
            "held_out_repeats": self.num_repeats,
            "filter_seen": self.filter_seen,
            "metrics": {name: estimate.to_dict() for name, estimate in self.metrics.items()},
            f"coverage@{self.cutoff}": self.coverage,
            "mean_interactions": dict(self.popularity),
        }
        if self.batch_means is not None:
            result["batch_means"] = dict(self.batch_means)
        return result


def evaluate(
    scorer: Scorer,
    dataset: Dataset,
    split: Split,
    part: str = "test",
    *,
    cutoffs: Sequence[int] = DEFAULT_CUTOFFS,
    seen: SeenOrData = "data",
    with_batch_means: bool = False,
    seed: int = 0,
    on_batch: Callable[[int], None] = lambda users: None,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Rank each held-out item of ``part`` against the whole catalogue.

    Args:
        scorer: the model.
        dataset: the prepared data set.
        split: its split.
        part: ``validation`` or ``test``.
        cutoffs: the k of the metrics.
        seen: ``keep`` or ``leave-out`` the history's items; by default as the data set says, and as ``recommend``
            does. The papers keep them.
        with_batch_means: add the published code's averages.
        seed: of the bootstrap.
        on_batch: called with the number of users done after each batch, of this process.
        ranks: the processes that rank together; all call it, and get the same result: that of one, but for rounding.

    Raises:
        DataError: if nothing is held out for ``part`` (:meth:`adrec.data.split.Split.nobody`).
        ConfigError: for a cut-off below 1, or another word than these.
    """
    metric_names(cutoffs)
    histories, items = held_out(dataset, held_out_targets(split, part))
    filter_seen = leaves_out(seen, dataset)
    k = min(max(cutoffs), scorer.num_items)
    rank_all = ranking if ranks is None else partial(ranking_by, ranks)
    ranked = rank_all(scorer, histories, items, filter_seen=filter_seen, top=k, on_batch=on_batch)
    return summary(
        ranked,
        dataset,
        split,
        part,
        scorer.num_items,
        cutoffs=cutoffs,
        filter_seen=filter_seen,
        with_batch_means=with_batch_means,
        seed=seed,
    )


def held_out_targets(split: Split, part: str) -> Targets:
    """Return the held-out interactions of ``part``. Raises :class:`DataError` if there are none."""
    targets = split.targets(part)
    if len(targets.users) == 0:
        instead = "evaluate another part, or prepare the data with another split"
        if split.name == "none":
            instead = "of a refit, evaluate the run that it was made of; else prepare the data with another split"
        raise DataError(f"{split.nobody(part)}; {instead}.")
    return targets


def summary(
    ranked: Ranking,
    dataset: Dataset,
    split: Split,
    part: str,
    num_items: int,
    *,
    cutoffs: Sequence[int],
    filter_seen: bool,
    with_batch_means: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Return the evaluation of the ranks of ``part``'s held-out items among ``num_items``."""
    names, targets = metric_names(cutoffs), held_out_targets(split, part)
    _, items = held_out(dataset, targets)
    trained, shown = training_popularity(dataset, split), ranked.top[ranked.top > 0]
    known = shown[shown <= num_items]  # another library's table may name items that only appear later
    ranks = pl.DataFrame(
        {
            "user": dataset.users.decode(targets.users),
            "item": dataset.catalogue.decode(items - 1),
            "rank": ranked.ranks + 1,
        }
    )
    return Evaluation(
        split=split.name,
        part=part,
        filter_seen=filter_seen,
        metrics=estimates(names, ranked.ranks, targets.users, seed=seed),
        batch_means=batch_means(names, ranked.ranks) if with_batch_means else None,
        coverage=len(np.unique(known)) / num_items,
        popularity={
            "recommended": float(trained[shown].mean()) if len(shown) else 0.0,
            "held_out": float(trained[items].mean()),
        },
        cutoff=min(max(cutoffs), num_items),
        ranks=ranks,
        num_users=len(np.unique(targets.users)),
        num_new_items=int((items > num_items).sum()),
        num_repeats=ranked.num_repeats,
    )


def training_popularity(dataset: Dataset, split: Split) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the interactions of each item in the training part, int64 [V + 1] by item number."""
    starts = np.asarray(dataset.offsets[:-1])
    in_training = spans(starts, split.train_ends - starts)
    return np.bincount(dataset.items[in_training], minlength=dataset.num_items + 1)
