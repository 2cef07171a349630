"""Recommendation for raw user or item ids: the shared implementation of all interfaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Unpack

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from adrec.config.stage import SeenOrData
from adrec.data.dataset import Dataset
from adrec.data.seen import Seen, leaves_out
from adrec.data.spans import Int64s
from adrec.inference.categories import Chain, capped
from adrec.inference.diversity import Diverse, check_diversity
from adrec.inference.engine import Engine, Query, Recommended
from adrec.inference.notes import Ids, check_k, examples, few, missing, silent, unlearned
from adrec.inference.pairs import score
from adrec.inference.reasons import check_explain, reason_columns
from adrec.inference.rules import Limits, Rules, limits
from adrec.inference.scorer import BATCH_SIZE, Choice, Histories, Scorer, Top, best_choice, top_k
from adrec.nn.scores import Table
from adrec.utils.errors import ConfigError, DataError, RunError, did_you_mean
from adrec.utils.text import counted


@dataclass(frozen=True)
class Recommendations:
    """Recommended items, best first.

    Attributes:
        table: one row per item: ``user`` (or ``history``, the index of the given history, from 0), ``item`` (both under
            the names of these columns in the table that was prepared), ``score``,
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
        self._process = os.getpid()

    def for_users(
        self,
        users: Ids | None = None,
        k: int = 10,
        *,
        on_unknown: Literal["error", "skip"] = "error",
        explain: int = 0,
        on_batch: Callable[[int], None] = lambda users: None,
        **rules: Unpack[Rules],
    ) -> Recommendations:
        """Recommend to users of the data set, from their whole history.

        Args:
            users: their ids; all users by default. A user who is named twice is recommended to once.
            k: the number of items for each user; fewer if fewer may be recommended.
            on_unknown: ``error`` raises for users who are not in the data set; ``skip`` skips and notes them.
            explain: the number of items of the history that are named for each item, with what each adds to its
                score: columns ``because_1``, ``change_1`` and so on (:meth:`Engine.reasons`).
            on_batch: called after each batch with the number of finished users.
            **rules: what may be recommended (:class:`adrec.inference.rules.Rules`).

        Raises:
            DataError: for an unknown user, or lists that leave nothing to recommend.
            ConfigError: if k is below 1, or for an explain or a rule that does not fit this model or data set.
        """
        wanted, notes = self.numbers_of(users, on_unknown)
        found = self.for_numbers(wanted, k, explain=explain, on_batch=on_batch, **rules)
        return Recommendations(found.table, (*notes, *found.notes))

    def numbers_of(
        self, users: Ids | None = None, on_unknown: Literal["error", "skip"] = "error"
    ) -> tuple[Int64s, tuple[str, ...]]:
        """Return the distinct numbers of some ``users``, or of all, and notes; errors as :meth:`for_users`."""
        self._check_process()
        if on_unknown not in ("error", "skip"):
            raise ConfigError(f"on_unknown must be 'error' or 'skip'; it is {on_unknown!r}.")
        if users is None:  # a user of an older vocabulary may have no interaction
            return np.flatnonzero(np.diff(self.dataset.offsets)), ()
        wanted = self.dataset.users.encode(users)
        unknown = missing(users, wanted)
        if unknown and on_unknown == "error":
            raise DataError(
                f"unknown users: {examples(unknown)}; recommend by history for people who are not in the data "
                "set, or skip them (on_unknown='skip', --on-unknown skip)."
            )
        notes = (f"skipped {counted(len(unknown), 'unknown user')}: {examples(unknown)}.",) if unknown else ()
        return pl.Series(wanted[wanted >= 0]).unique(maintain_order=True).to_numpy(), notes

    def for_numbers(
        self,
        wanted: Int64s,
        k: int = 10,
        *,
        explain: int = 0,
        on_batch: Callable[[int], None] = lambda users: None,
        **rules: Unpack[Rules],
    ) -> Recommendations:
        """Recommend to users of the data set by their numbers, [m] (:meth:`numbers_of`): :meth:`for_users`."""
        self._check_process()
        check_k(k)
        check_explain(explain)
        dataset, notes = self.dataset, list[str]()
        offsets = np.asarray(dataset.offsets)
        histories = Histories(dataset.items, offsets[wanted], offsets[wanted + 1])
        people = dataset.users.decode(wanted)
        best, popular, found = self._best(histories, k, rules, people, on_batch, timed=True)
        notes += [*found, *silent(popular, ("user", "users")), *few(best.items, k, ("user", "users"))]
        table = self._table(best, popular).with_columns(self._reasons(histories, best, popular, explain))
        users_of_rows = people.gather(table["row"]).alias(dataset.info.named("user"))
        return Recommendations(table.drop("row").insert_column(0, users_of_rows), tuple(notes))

    def for_histories(
        self,
        histories: Sequence[Ids],
        k: int = 10,
        *,
        people: pl.Series | None = None,
        explain: int = 0,
        on_batch: Callable[[int], None] = lambda users: None,
        **rules: Unpack[Rules],
    ) -> Recommendations:
        """Recommend for new users, from histories given as lists of item ids, oldest first.

        Items that are not in the catalogue are skipped and noted. A history without known items gets the most popular
        items, with ``source`` ``popular``. ``people`` are the ids of the users, one for each history, for rules that
        name users. Other arguments and errors are those of :meth:`for_users`.
        """
        self._check_process()
        check_k(k)
        check_explain(explain)
        notes: list[str] = []
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
        best, popular, found = self._best(spoken, k, rules, people, on_batch, timed=False)
        notes += [*found, *silent(popular, ("history", "histories")), *few(best.items, k, ("history", "histories"))]
        table = self._table(best, popular).with_columns(self._reasons(spoken, best, popular, explain))
        return Recommendations(table.rename({"row": "history"}), tuple(notes))

    @cached_property
    def engine(self) -> Engine:
        """Answers queries without tables, in any thread and after a fork."""
        return Engine(self)

    def one(self, history: Sequence[Any], k: int = 10, *, seen: SeenOrData = "data") -> list[Recommended]:
        """Recommend for one history of item ids, oldest first: (item, score, confidence) of each, best first.

        It is :meth:`for_histories` without a table and without notes, for a service: it works in any thread, and after
        a fork. Items that are not in the catalogue are passed over. A history without known items gets the most popular
        items, whose confidence is None.

        >>> recommender.one(["tt0111161", "tt0068646"], k=2)
        [Recommended(item='tt0108052', score=7.1, confidence=0.08), Recommended(item='tt0137523', ..)]
        """
        check_k(k)
        numbers = self.engine.numbers(history)
        query = Query(numbers, k, self._leaves_out(seen), numbers[:0])
        return self.engine.answer([query])[0].items

    def _reasons(
        self, histories: Histories, best: Top, popular: NDArray[np.bool_], explain: int
    ) -> Sequence[pl.Series]:
        return reason_columns(self.engine, histories, best, popular, explain) if explain else ()

    def _check_process(self) -> None:
        """Raise :class:`RunError` in a fork of the process that loaded the model, where Polars would wait for ever."""
        if os.getpid() != self._process:
            raise RunError(
                "tables cannot be made in a fork of the process that loaded the model, as Polars' threads are lost; "
                "load it in this process (start method 'spawn' or 'forkserver'), or call recommender().one(history, k)."
            )

    def score(self, pairs: pl.DataFrame) -> Recommendations:
        """Return the score of each pair of a table with ``user`` and ``item`` (:func:`adrec.inference.pairs.score`)."""
        self._check_process()
        table, unscored = score(self.scorer, self.dataset, pairs)
        notes = [f"{counted(unscored, 'pair')} without a score: the user or the item is unknown."] if unscored else []
        return Recommendations(table, tuple(notes))

    def _leaves_out(self, seen: SeenOrData) -> bool:
        return leaves_out(self.seen if seen == "data" else seen, self.dataset)

    def _best(
        self,
        histories: Histories,
        k: int,
        rules: Rules,
        people: pl.Series | None,
        on_batch: Callable[[int], None],
        *,
        timed: bool,
    ) -> tuple[Top, NDArray[np.bool_], list[str]]:
        """Return the best items [m, k], which rows are the most popular items (no known history), [m], and notes."""
        unknown = next((name for name in rules if name not in Rules.__annotations__), None)
        if unknown is not None:
            raise ConfigError(f"there is no rule {unknown!r}{did_you_mean(unknown, Rules.__annotations__)}.")
        scorer = self.scorer
        filter_seen = self._leaves_out("keep" if rules.get("seen_within") is not None else rules.get("seen", "data"))
        choice = self._choice(rules)
        limited, notes = limits(self.dataset, scorer.num_items, rules, people, histories, timed=timed)
        notes = [*notes, *unlearned(self.dataset, self.scorer.num_items, histories)]
        k = min(k, scorer.num_items)
        known = histories.known(scorer.num_items)
        popular = known.ends == known.starts
        spoken, silent_rows = np.flatnonzero(~popular), np.flatnonzero(popular)
        best = Top(
            np.zeros((len(histories), k), dtype=np.int64),
            np.full((len(histories), k), -np.inf, dtype=np.float32),
            np.full((len(histories), k), np.nan, dtype=np.float32),
        )
        if len(spoken):
            found = top_k(
                scorer,
                Histories(known.items, known.starts[spoken], known.ends[spoken]),
                k,
                filter_seen=filter_seen,
                limits=limited.rows(spoken),
                temperature=self.temperature,
                choice=choice,
                on_batch=on_batch,
            )
            _fill(best, spoken, found)
        for first in range(0, len(silent_rows), BATCH_SIZE):
            rows = silent_rows[first : first + BATCH_SIZE]
            _fill(best, rows, self.popular(limited.rows(rows), len(rows), k, choice))
        return best, popular, notes

    def _choice(self, rules: Rules) -> Choice | None:
        """Return how items are chosen among the best ones, if the rules say more than the order of the scores."""
        diversity = rules.get("diversity", 0.0)
        vectors = getattr(self.scorer, "item_vectors", None) if diversity else None
        check_diversity(diversity, vectors)
        caps = capped(self.dataset.catalogue, rules.get("per_category"), rules.get("categories"))
        choices: list[Choice] = [] if caps is None else [caps]
        if vectors is not None:
            choices.append(Diverse(vectors, diversity, self.temperature))
        return Chain(choices) if choices else None

    @cached_property
    def popularity(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The interactions of each item number, [V + 1], and numbers in the same order, all distinct.

        With distinct numbers the lists are the same everywhere.
        """
        counts = self.dataset.popularity[: self.scorer.num_items + 1].astype(np.float32)
        order = np.argsort(-counts[1:], kind="stable") + 1
        places = np.zeros(len(counts), dtype=np.float32)
        places[order] = np.arange(len(order), 0, -1)
        return counts, places

    def popular(self, limited: Limits, num_rows: int, k: int, choice: Choice | None = None) -> Top:
        """Return the most popular items that may be recommended in each row; the scores are their interactions."""
        num_items, (counts, places) = self.scorer.num_items, self.popularity
        table = Table(torch.from_numpy(places).expand(num_rows, -1))
        top = best_choice(table, k, num_items, limited.masked(None), None, choice)
        scores = np.where(top.items > 0, counts[top.items], -np.inf)
        return Top(top.items, scores, np.full_like(scores, np.nan))

    def _table(self, best: Top, popular: NDArray[np.bool_]) -> pl.DataFrame:
        """Return the real recommendations, a row each; slots of [m, k] that were not filled are left out."""
        rows, columns = np.nonzero(best.items)
        confidence = pl.Series(best.confidence[rows, columns]).fill_nan(None)
        return pl.DataFrame(
            {
                "row": rows,
                self.dataset.info.named("item"): self.dataset.catalogue.decode(best.items[rows, columns] - 1),
                "score": best.scores[rows, columns],
                "rank": columns + 1,
                "source": np.where(popular, "popular", "model")[rows],
                "confidence": confidence,
            }
        )


def _fill(best: Top, rows: Int64s, found: Top) -> None:
    """Write the lists of some rows."""
    best.items[rows], best.scores[rows], best.confidence[rows] = found
