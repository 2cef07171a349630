"""Recommendation for raw user or item ids: the shared implementation of all interfaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from adrec.config.stage import SeenOrData
from adrec.data.dataset import Dataset
from adrec.data.seen import Seen, leaves_out
from adrec.data.spans import spans
from adrec.inference.diversity import Diverse, check_diversity
from adrec.inference.notes import Ids, check_k, examples, few, missing, silent
from adrec.inference.scorer import BATCH_SIZE, Histories, Scorer, Top, top_k
from adrec.inference.scores import Masked, best_items
from adrec.nn.scores import InnerProducts
from adrec.utils.errors import ConfigError, DataError
from adrec.utils.text import counted


@dataclass(frozen=True)
class Recommendations:
    """Recommended items, best first.

    Attributes:
        table: one row per item: ``user`` (or ``history``, the index of the given history, from 0), ``item``, ``score``,
            ``rank`` (from 1), ``source`` (``model``, or ``popular`` if no item of the history is known) and
            ``confidence``: the probability that the item is the next one, given that the next one is among the items
            that may be recommended; null for popular items and without a temperature.
        notes: sentences on skipped users and items.
    """

    table: pl.DataFrame
    notes: tuple[str, ...] = field(default_factory=tuple)


class Recommender:
    """Recommends with a scorer and its training data set, which provides ids and popularity.

    Args:
        scorer: the model.
        dataset: the data set.
        temperature: of the confidence (:mod:`adrec.inference.confidence`), if one was fitted.
        seen: what is done with seen items if nothing else is asked for; by default what the data set says.
    """

    def __init__(
        self,
        scorer: Scorer,
        dataset: Dataset,
        temperature: float | None = None,
        seen: Seen | None = None,
    ) -> None:
        self.scorer, self.dataset, self.temperature = scorer, dataset, temperature
        self.seen = seen or dataset.info.seen

    def for_users(
        self,
        users: Ids | None = None,
        k: int = 10,
        *,
        seen: SeenOrData = "data",
        diversity: float = 0.0,
        items: Ids | None = None,
        exclude: Ids | None = None,
        on_unknown: Literal["error", "skip"] = "error",
        on_batch: Callable[[int], None] = lambda users: None,
    ) -> Recommendations:
        """Recommend to users of the data set, from their whole history.

        Args:
            users: their ids; all users by default.
            k: the number of items for each user; fewer if fewer may be recommended.
            seen: ``keep`` or ``leave-out`` the items of the history; by default as the data set says.
            diversity: 0..1, how much an item loses for resembling items above it (:mod:`adrec.inference.diversity`).
            items: recommend only these items.
            exclude: never recommend these items.
            on_unknown: ``error`` raises for users who are not in the data set; ``skip`` skips and notes them.
            on_batch: called after each batch with the number of finished users.

        Raises:
            DataError: for an unknown user, or lists that leave nothing to recommend.
            ConfigError: if k is below 1, for another word than these, or for diversity without item vectors.
        """
        dataset = self.dataset
        if on_unknown not in ("error", "skip"):
            raise ConfigError(f"on_unknown must be 'error' or 'skip'; it is {on_unknown!r}.")
        left_out = self._leaves_out(seen)
        candidates, notes = self._candidates(k, items, exclude)
        if users is None:
            wanted = np.flatnonzero(np.diff(dataset.offsets))  # a user of an older vocabulary may have no interaction
        else:
            wanted = dataset.users.encode(users)
            unknown = missing(users, wanted)
            if unknown and on_unknown == "error":
                raise DataError(
                    f"unknown users: {examples(unknown)}; recommend by history for people who are not in the data "
                    "set, or skip them (on_unknown='skip', --on-unknown skip)."
                )
            if unknown:
                notes.append(f"skipped {counted(len(unknown), 'unknown user')}: {examples(unknown)}.")
            wanted = wanted[wanted >= 0]
        offsets = np.asarray(dataset.offsets)
        histories = Histories(dataset.items, offsets[wanted], offsets[wanted + 1])
        notes += self._new_items(histories)
        best, popular = self._best(histories, k, left_out, diversity, candidates, on_batch)
        notes += silent(popular, ("user", "users"))
        notes += few(best.items, k, ("user", "users"))
        table = self._table(best, popular)
        users_of_rows = dataset.users.decode(wanted[table["row"].to_numpy()]).alias("user")
        return Recommendations(table.drop("row").insert_column(0, users_of_rows), tuple(notes))

    def for_histories(
        self,
        histories: Sequence[Ids],
        k: int = 10,
        *,
        seen: SeenOrData = "data",
        diversity: float = 0.0,
        items: Ids | None = None,
        exclude: Ids | None = None,
        on_batch: Callable[[int], None] = lambda users: None,
    ) -> Recommendations:
        """Recommend for new users, from histories given as lists of item ids, oldest first.

        Items that are not in the catalogue are skipped and noted. A history without known items gets the most popular
        items, with ``source`` ``popular``. Other arguments and errors are those of :meth:`for_users`.
        """
        left_out = self._leaves_out(seen)
        candidates, notes = self._candidates(k, items, exclude)
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        flat = [item for history in histories for item in history]
        numbers = self.dataset.catalogue.encode(flat) + 1
        unknown = missing(flat, numbers - 1)
        if unknown:
            distinct = dict.fromkeys(unknown)
            notes.append(f"skipped {counted(len(unknown), 'interaction')} with unknown items: {examples(distinct)}.")
        known = numbers > 0
        owner = np.repeat(np.arange(len(lengths)), lengths)[known]
        kept = np.bincount(owner, minlength=len(lengths))
        ends = np.cumsum(kept)
        spoken = Histories(numbers[known], ends - kept, ends)
        notes += self._new_items(spoken)
        best, popular = self._best(spoken, k, left_out, diversity, candidates, on_batch)
        notes += silent(popular, ("history", "histories"))
        notes += few(best.items, k, ("history", "histories"))
        return Recommendations(self._table(best, popular).rename({"row": "history"}), tuple(notes))

    def similar_items(self, embedding: NDArray[np.float32], items: Ids, k: int = 10) -> pl.DataFrame:
        """Return the k items nearest to each of ``items`` by the cosine of their embeddings [V + 1, D].

        The table has ``item``, ``similar_item``, ``score`` (the cosine) and ``rank`` (from 1). Raises
        :class:`DataError` for an item that is not in the catalogue.
        """
        check_k(k)
        catalogue = self.dataset.catalogue
        numbers = catalogue.encode(items) + 1
        unknown = missing(items, np.where(numbers < len(embedding), numbers - 1, -1))
        if unknown:
            raise DataError(f"unknown items: {examples(unknown)}; name items of the catalogue that the model knows.")
        unit = torch.nn.functional.normalize(torch.from_numpy(embedding), dim=1)
        width = min(k, len(embedding) - 2)
        tables = []
        for first in range(0, max(1, len(numbers)), BATCH_SIZE):
            own = numbers[first : first + BATCH_SIZE]
            itself = Masked.of(np.arange(len(own)), own)
            best, cosines = best_items(InnerProducts(unit[own], unit), width, len(unit) - 1, itself)  # [b, width]
            tables.append(
                pl.DataFrame(
                    {
                        "item": catalogue.decode(np.repeat(own - 1, width)),
                        "similar_item": catalogue.decode(best.flatten().numpy() - 1),
                        "score": cosines.flatten().numpy(),
                        "rank": np.tile(np.arange(1, width + 1), len(own)),
                    }
                )
            )
        return pl.concat(tables)

    def _leaves_out(self, seen: SeenOrData) -> bool:
        return leaves_out(self.seen if seen == "data" else seen, self.dataset)

    def _candidates(self, k: int, items: Ids | None, exclude: Ids | None) -> tuple[NDArray[np.bool_] | None, list[str]]:
        """Return which item numbers may be recommended (None: all), and notes on unknown ids in the lists."""
        check_k(k)
        notes: list[str] = []
        if items is None and exclude is None:
            return None, notes
        num_items = self.scorer.num_items
        allowed = np.full(num_items + 1, items is None)
        for name, ids, value in (("allowed", items, True), ("excluded", exclude, False)):
            if ids is None or len(ids) == 0:
                continue
            numbers = self.dataset.catalogue.encode(ids) + 1
            numbers[numbers > num_items] = 0
            unknown = missing(ids, numbers - 1)
            if unknown:
                notes.append(f"not in the catalogue: {counted(len(unknown), f'{name} item')}, {examples(unknown)}.")
            allowed[numbers[numbers > 0]] = value
        allowed[0] = False
        if not allowed.any():
            raise DataError(" ".join(["the lists of allowed and excluded items leave nothing to recommend.", *notes]))
        return allowed, notes

    def _new_items(self, histories: Histories) -> list[str]:
        """Return a note on the items that are unknown to the model because they were added after its training."""
        new = self.dataset.num_items - self.scorer.num_items
        if new <= 0:
            return []
        lengths = histories.ends - histories.starts
        passed = int((histories.items[spans(histories.starts, lengths)] > self.scorer.num_items).sum())
        also = f", and {counted(passed, 'interaction')} with them passed over" if passed else ""
        return [
            f"the model does not know {counted(new, 'item')} of the data yet (they came after its training): they "
            f"are not recommended{also}."
        ]

    def _best(
        self,
        histories: Histories,
        k: int,
        filter_seen: bool,
        diversity: float,
        candidates: NDArray[np.bool_] | None,
        on_batch: Callable[[int], None],
    ) -> tuple[Top, NDArray[np.bool_]]:
        """Return the best items [m, k], and which rows are the most popular items (no known history), [m]."""
        vectors = getattr(self.scorer, "item_vectors", None) if diversity else None
        check_diversity(diversity, vectors)
        k = min(k, self.scorer.num_items)
        known = histories.known(self.scorer.num_items)
        spoken = np.flatnonzero(known.ends > known.starts)
        best = self._popular(len(histories), k, candidates)
        if len(spoken):
            some = Histories(known.items, known.starts[spoken], known.ends[spoken])
            best.items[spoken], best.scores[spoken], best.confidence[spoken] = top_k(
                self.scorer,
                some,
                k,
                filter_seen=filter_seen,
                candidates=candidates,
                temperature=self.temperature,
                choice=None if vectors is None else Diverse(vectors, diversity, self.temperature),
                on_batch=on_batch,
            )
        return best, known.ends == known.starts

    def _popular(self, num_rows: int, k: int, candidates: NDArray[np.bool_] | None) -> Top:
        """Return the most popular items, the same in each of ``num_rows`` rows; the scores are their interactions."""
        counts = self.dataset.popularity[: self.scorer.num_items + 1].astype(np.float32)
        counts[0] = -np.inf
        if candidates is not None:
            counts[~candidates] = -np.inf
        order = np.argsort(-counts, kind="stable")[:k]
        numbers = np.where(np.isfinite(counts[order]), order, 0)
        items, scores = np.tile(numbers, (num_rows, 1)), np.tile(counts[order], (num_rows, 1))
        return Top(items, scores, np.full_like(scores, np.nan))

    def _table(self, best: Top, popular: NDArray[np.bool_]) -> pl.DataFrame:
        """Return the real recommendations, a row each; slots of [m, k] that were not filled are left out."""
        rows, columns = np.nonzero(best.items)
        confidence = pl.Series(best.confidence[rows, columns]).fill_nan(None)
        return pl.DataFrame(
            {
                "row": rows,
                "item": self.dataset.catalogue.decode(best.items[rows, columns] - 1),
                "score": best.scores[rows, columns],
                "rank": columns + 1,
                "source": np.where(popular, "popular", "model")[rows],
                "confidence": confidence,
            }
        )
