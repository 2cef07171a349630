"""Evaluation of other programs' recommendations: a table of user, item, and rank or score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from adrec.data.dataset import Dataset
from adrec.data.lists import read_recommendations
from adrec.data.spans import Int64s, spans
from adrec.data.split import Split, Targets
from adrec.evaluate.metrics import behind
from adrec.evaluate.protocol import DEFAULT_CUTOFFS, Evaluation, held_out_targets, summary
from adrec.evaluate.ranking import Ranking
from adrec.utils.errors import DataError
from adrec.utils.text import counted

KNEW, FEWEST_SUSPECT = 0.95, 20  # HR@1 of so many held-out items at least that no recommender reaches


def evaluate_table(
    path: Path, dataset: Dataset, split: Split, part: str = "test", *, cutoffs: Sequence[int] = DEFAULT_CUTOFFS
) -> tuple[Evaluation, tuple[str, ...]]:
    """Evaluate recommendations of another program, and return notes on them.

    A held-out item has the rank at which the table recommends it to its user, and ranks last if the table does not.
    Ties count against the recommender, as for adrec's models. The table decides whether seen items are left out; the
    evaluation records it, and the notes give the number of seen items.

    Args:
        path: a table with a user column, an item column, and ``rank`` (from 1) or ``score`` (higher is better).
        dataset: the prepared data set.
        split: what was held out of it.
        part: ``validation`` or ``test``.
        cutoffs: the k of the metrics.

    Raises:
        DataError: for users who are not in the data set, a pair or a rank of a user that occurs twice, a rank or score
            that is missing or is no number, and lists that are shorter than the largest k; the sentence names the row.
    """
    table = read_recommendations(path, dataset.info.columns)
    users, items = dataset.users.encode(table["user"]), dataset.catalogue.encode(table["item"]) + 1
    unknown = np.flatnonzero(users < 0)
    if len(unknown):
        raise DataError(
            f"{path.name} recommends to {counted(table['user'].gather(unknown).n_unique(), 'unknown user')} such as "
            f"{table['user'][int(unknown[0])]!r}; give it for the users of {dataset.info.name}."
        )
    if not (items > 0).any():
        raise DataError(
            f"no item of {path.name}, such as {table['item'][0]!r}, is in the catalogue of {dataset.info.name}; give "
            "its items under their own ids."
        )
    positions = _positions(table, users)
    targets = held_out_targets(split, part)
    if not np.isin(targets.users, users).any():
        raise DataError(f"{path.name} recommends nothing to any {part} user of {dataset.info.name}.")
    k = max(cutoffs)
    longest = int(np.bincount(users).max())
    if longest < min(k, split.num_items):
        raise DataError(
            f"{path.name} has at most {counted(longest, 'item')} for a user, so metrics at {k} cannot be measured; "
            f"recommend {k} or give a smaller --k."
        )
    wanted = dataset.items[targets.positions].astype(np.int64)
    ranks = _ranks(users, items, positions, targets.users, wanted, last=behind(split.num_items))
    top = items[(positions < k) & np.isin(users, targets.users)]
    seen = _seen_rows(dataset, targets, users, items)
    evaluation = summary(
        Ranking(ranks, top), dataset, split, part, split.num_items, cutoffs=cutoffs, filter_seen=seen == 0
    )
    missed = bool((ranks == behind(split.num_items)).all())
    notes: tuple[str, ...] = ()
    if len(ranks) >= FEWEST_SUSPECT and (first := float((ranks == 0).mean())) >= KNEW:
        notes += (
            f"HR@1 is {first:.2f}: such a table can only have been made with the answers; make it from the histories "
            "that adrec interactions --part history writes.",
        )
    notes += _notes(table, users, items, positions, targets, part, min(k, split.num_items), seen, missed)
    return evaluation, notes


def _positions(table: pl.DataFrame, users: Int64s) -> Int64s:
    """Return each row's position in its user's list, from 0, by rank or by score; ties share the last position.

    Gaps in the ranks are kept: no item moves up.
    """
    if "rank" in table.columns:
        return table["rank"].to_numpy().astype(np.int64) - 1
    ranked = table.with_columns(position=(-pl.col("score")).rank("max").over(pl.Series(users)))
    return ranked["position"].to_numpy().astype(np.int64) - 1


def _ranks(users: Int64s, items: Int64s, positions: Int64s, owners: Int64s, wanted: Int64s, last: int) -> Int64s:
    """Return the position of each wanted (owner, item) pair, ``last`` if it is not in the table, [m]."""
    table = pl.DataFrame({"user": users, "item": items, "position": positions})
    asked = pl.DataFrame({"user": owners, "item": wanted})
    found = asked.join(table, on=["user", "item"], how="left", maintain_order="left")
    ranks: Int64s = found["position"].fill_null(last).to_numpy()
    return ranks


def _seen_rows(dataset: Dataset, targets: Targets, users: Int64s, items: Int64s) -> int:
    """Return how many rows recommend a held-out user an item of the history before the first held-out item."""
    users_once, first = np.unique(targets.users, return_index=True)  # one list serves all of a user's held-out items
    starts = np.asarray(dataset.offsets)[users_once]
    lengths = targets.ends[first] - starts
    past = {
        "user": np.repeat(users_once, lengths),
        "item": dataset.items[spans(starts, lengths)].astype(np.int64),
    }
    shown = pl.DataFrame({"user": users, "item": items})
    return shown.join(pl.DataFrame(past), on=["user", "item"], how="semi").height


def _notes(
    table: pl.DataFrame,
    users: Int64s,
    items: Int64s,
    positions: Int64s,
    targets: Targets,
    part: str,
    k: int,
    seen: int,
    missed: bool,
) -> tuple[str, ...]:
    notes, owners = [], targets.users
    served, sizes = np.unique(users[np.isin(users, owners)], return_counts=True)
    missing, short = len(np.unique(owners)) - len(served), int((sizes < k).sum())
    if missing:
        notes.append(f"{counted(missing, f'{part} user')} without a recommendation in the table: missed.")
    if short:
        notes.append(f"{counted(short, f'{part} user')} with fewer than {k} items: what is not there is missed.")
    gaps = len(np.unique(users[(positions >= np.bincount(users)[users]) & np.isin(users, owners)]))
    if gaps:
        notes.append(f"{counted(gaps, f'{part} user')} with ranks left out: nothing moves up to them.")
    tied = 0.0 if "rank" in table.columns else float(table.select("user", "score").is_duplicated().to_numpy().mean())
    if tied:
        notes.append(f"{tied:.1%} of the rows have the score of another item of their user: ties count against it.")
    unknown = table["item"].filter(pl.Series(items == 0)).n_unique() if (items == 0).any() else 0
    if unknown:
        notes.append(f"{counted(unknown, 'item')} of the table not in the catalogue: they take their positions.")
    several = len(owners) - len(np.unique(owners))
    if several and targets.first is None:
        notes.append(
            f"{counted(several, 'held-out item')} beyond a user's first: one list serves all of them, where a model of "
            "adrec is asked anew after each; compare both on a leave-one-out split."
        )
    if seen:
        notes.append(f"{seen / sizes.sum():.1%} of what {part} users are recommended is of their own history.")
    if missed and (items > 0).any():
        notes.append(
            f"no {part} user is recommended what was held out: if the table was made from all interactions, these were "
            "left out as seen; make it from the histories that adrec interactions --part history writes."
        )
    return tuple(notes)
