"""Preparation of a table of interactions as a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import polars as pl

from adrec.data.dataset import Dataset, DatasetInfo
from adrec.data.extend import border, named, nothing_new, older_rows, taken_over, together, waiting_rows
from adrec.data.extend import told as told_over
from adrec.data.filters import chosen, kept, sessions
from adrec.data.oddities import oddities
from adrec.data.preparation import Preparation, PreparationOptions
from adrec.data.read import Interactions, read_interactions
from adrec.data.recipes import recipe_options
from adrec.data.remote import is_url
from adrec.data.report import RowAccount, to_dicts
from adrec.data.seen import Seen, measured, returning, told
from adrec.data.split import FEWEST, known_untrained, make_split, resolved
from adrec.data.vocab import Vocabularies, Vocabulary
from adrec.data.weights import parse_weights
from adrec.utils.errors import ConfigError, DataError
from adrec.utils.text import as_name, check_name, counted, listed

FILTERS = ("where", "since", "until", "min_rating", "duplicates", "min_user", "min_item")


def prepare(
    source: Any,
    *,
    recipe: str | None = None,
    vocabulary: Dataset | Vocabularies | None = None,
    extend: Dataset | None = None,
    quarantine: Path | None = None,
    name: str | None = None,
    erased: Sequence[str] = (),
    events: Mapping[str, int] | None = None,
    items: pl.Series | None = None,
    **given: Unpack[PreparationOptions],
) -> Dataset:
    """Read, filter, number and sort interactions; ties in time keep the order of the table.

    Users and items are numbered in the order of their first interaction in time.

    Args:
        source: a path, several, a folder of shards, ``-`` for standard input, or a pandas, polars or pyarrow table.
        recipe: the name of a known data set, whose options are used; ``given`` override them.
        vocabulary: an earlier data set; its users and items keep their numbers, and new ones follow. Its columns,
            options and what is done with seen items are taken over, unless others are given.
        extend: the same, and its interactions are those of the new data set too.
        quarantine: a file for the unusable rows; it is kept if preparation fails.
        name: name of the data set; by default the recipe's, or the file's.
        erased: users, as texts, of whom nothing of ``extend`` is taken over.
        events: the last event of each store of live events that the source contains.
        items: ids of items that are in the catalogue, whether or not the source has interactions with them.
        **given: the fields of :class:`~adrec.data.preparation.Preparation`.

    Raises:
        DataError: for an unusable table, too many unusable rows, or filters that leave nothing.
        ConfigError: for an unknown option or recipe, or an invalid value.
    """
    if extend is not None and vocabulary is not None:
        raise ConfigError("extend and vocabulary exclude each other: extending keeps the numbers too.")
    earlier, notes = extend if extend is not None else vocabulary, list[str]()
    before: dict[str, Any] = {}
    if isinstance(earlier, Dataset) and earlier.info.preparation:
        before = {key: value for key, value in taken_over(earlier.info).items() if key not in given}
        notes += [told_over(earlier.info, before)] if before else []
    if name is not None:
        check_name(name)
    options = Preparation().changed({**before, **recipe_options(recipe), **given})
    if extend is not None and extend.weights is not None:
        weighed = extend.info.preparation["event_weights"]
        if options.event_weights not in (weighed, None):
            raise ConfigError(f"{named(extend)} has the event weights {weighed}; leave out others, or prepare anew.")
    with RowAccount(options.max_rejected, options.strict, quarantine) as ledger:
        known = earlier.info.columns if isinstance(earlier, Dataset) else {}
        # Events were checked when they were stored, and have no other columns that a condition could read.
        reading = options if events is None else replace(options, where=None, min_rating=None, keep_null_ids=True)
        only_erases = bool(erased) and isinstance(source, pl.DataFrame) and source.height == 0
        interactions = nothing_new() if only_erases else read_interactions(source, reading, ledger, known)
        table = chosen(interactions.table, reading, ledger, interactions.at, interactions.time_unit)
        interactions = _released(interactions)
        if options.session_gap is not None:
            if earlier is not None:
                raise ConfigError(
                    "sessions have no ids that last, so session_gap goes with no older data set; prepare all tables "
                    "together."
                )
            table = sessions(
                table.sort("time", "row", maintain_order=True), options.session_gap, interactions.time_unit
            )
        if extend is not None:
            older, left = older_rows(extend, erased)
            notes += left
            ledger.read(older.height, [])
            table = older if only_erases else together(extend, older, replace(interactions, table=table))
            notes += border(extend, older, table)
        at = interactions.at if extend is None else _located(extend.info.name, interactions)
        table, rare = kept(table.sort("time", "row", maintain_order=True), options, ledger, at)
    if table.height == 0:
        filters = {key: getattr(options, key) for key in FILTERS}
        asked = ", ".join(f"{key}={value}" for key, value in filters.items() if value not in (None, 0, "all"))
        raise DataError(f"everything was filtered away ({asked} leave nobody and nothing); weaken the filters.")
    if extend is not None:
        interactions = _both(extend.info, interactions)
    dataset = _build(
        interactions, table, ledger, options, earlier, name or recipe or _folder(source), recipe, notes, items
    )
    if extend is not None:
        dataset = replace(dataset, info=replace(dataset.info, extended=older.height, events=extend.info.events))
    if events:
        dataset = replace(dataset, info=replace(dataset.info, events={**dataset.info.events, **events}))
    return replace(dataset, left_out=_plain_ids(waiting_rows(table, rare)) if rare.height else None)


def _released(interactions: Interactions) -> Interactions:
    """Return interactions without the columns of their table that are not looked at again: they are large."""
    return replace(interactions, table=interactions.table.select(pl.col("^weight$")))


def _both(older: DatasetInfo, new: Interactions) -> Interactions:
    """Return new interactions as if those of an older data set had been read with them."""
    return replace(
        new,
        sources=(*older.sources, *new.sources),
        digests=(*older.sha256, *new.digests),
        columns={**new.columns, **older.columns},
        time_unit=older.time_unit,
    )


def _located(name: str, interactions: Interactions) -> Callable[[int], str]:
    return lambda row: f"an interaction of {name}" if row < 0 else interactions.at(row)


def _plain_ids(table: pl.DataFrame) -> pl.DataFrame:
    categories = [name for name in ("user", "item") if isinstance(table.schema[name], pl.Categorical)]
    return table.with_columns(pl.col(name).cast(pl.String) for name in categories)


def _build(
    interactions: Interactions,
    table: pl.DataFrame,
    ledger: RowAccount,
    options: Preparation,
    vocabulary: Dataset | Vocabularies | None,
    name: str | None,
    recipe: str | None,
    said: Sequence[str],
    items: pl.Series | None = None,
) -> Dataset:
    if vocabulary is None:
        users, catalogue = Vocabulary.from_column(table["user"]), Vocabulary.from_column(table["item"])
    else:
        users = vocabulary.users.grown(table["user"], "user")
        catalogue = vocabulary.catalogue.grown(table["item"], "item")
    if items is not None:
        met = len(catalogue)
        catalogue = catalogue.grown(items, "item")
        if len(catalogue) > met:
            said = [*said, f"{counted(len(catalogue) - met, 'item')} of the catalogue have no interaction"]
    if len(catalogue) < 2:
        raise DataError("the catalogue has one item only, which leaves nothing to recommend; give more interactions.")
    numbered = pl.DataFrame(
        {
            "user": users.encode_column(table["user"]),
            "item": (catalogue.encode_column(table["item"]) + 1).astype(np.int32),
            "time": table["time"],
            **({"weight": table["weight"]} if "weight" in table.columns else {}),
        }
    ).sort("user", maintain_order=True)
    lengths = np.bincount(numbered["user"].to_numpy(), minlength=len(users))
    info = DatasetInfo(
        name=name or as_name(_name(interactions)),
        num_users=len(users),
        num_items=len(catalogue),
        num_interactions=numbered.height,
        num_read=ledger.num_read,
        left_out=to_dicts(ledger.left_out()),
        preparation=options.to_dict(),
        sources=interactions.sources,
        sha256=interactions.digests,
        columns=interactions.columns,
        guesses=interactions.guesses,
        time_unit=interactions.time_unit,
        split="none",
        recipe=recipe,
    )
    dataset = Dataset(
        items=numbered["item"].to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        times=numbered["time"].to_numpy(),
        weights=numbered["weight"].to_numpy() if "weight" in numbered.columns else None,
        users=users,
        catalogue=catalogue,
        info=info,
    )
    split, held_out = resolved(options.split, dataset)
    share = returning(dataset)
    older = vocabulary.info.seen if isinstance(vocabulary, Dataset) else None
    seen = options.seen or older or measured(share)
    dataset = replace(dataset, info=replace(info, split=split, seen=seen, returning=share), held_out=held_out)
    num_older = 0 if vocabulary is None else len(vocabulary.catalogue)
    notes: tuple[str, ...] = (
        *said,
        *_taken_over(older, options.seen, share),
        *_older(dataset, num_older),
        *_untested(dataset),
        *_without_weight(dataset),
        *_unused_weights(dataset, interactions, options),
    )
    notes += (
        *oddities(dataset).sentences(
            options.duplicates,
            split,
            seen,
            {"user": len(users), "item": len(catalogue)},
            weighed=dataset.weights is not None,
        ),
    )
    return replace(dataset, info=replace(dataset.info, notes=notes)).with_fingerprint()


def _taken_over(older: Seen | None, given: Seen | None, share: float) -> Iterator[str]:
    """Yield a note if an older data set's treatment of seen items is not what these interactions would have got."""
    if older is not None and given is None and older != measured(share):
        yield (
            f"seen items are {'kept' if older == 'keep' else 'left out'} as in the older data set, though "
            f"{share:.1%} of these interactions return to one; --seen decides otherwise"
        )


def _older(dataset: Dataset, num_older: int) -> Iterator[str]:
    """Yield notes on the first ``num_older`` items, which come from an older vocabulary."""
    untrained = known_untrained(dataset, num_older) if num_older else 0
    if untrained:
        have, count = ("has", "counts") if untrained == 1 else ("have", "count")
        yield (
            f"{counted(untrained, 'item')} of the older vocabulary {have} no interaction in the training part, and "
            f"{count} as known all the same"
        )


def _untested(dataset: Dataset) -> Iterator[str]:
    """Yield a note if leave-one-out evaluates no user; other splits raise an error in that case."""
    if dataset.info.split == "leave-one-out" and not (np.diff(dataset.offsets) >= FEWEST).any():
        yield (
            f"no user has {FEWEST} interactions or more, as leave-one-out needs: all interactions train, and nobody is "
            "left to validate or to test on"
        )


def _unused_weights(dataset: Dataset, interactions: Interactions, options: Preparation) -> Iterator[str]:
    """Yield a note on weights of events that do not occur. Raises :class:`DataError` if no weight is above 0."""
    if dataset.weights is None or options.event_weights is None:
        return
    if not (dataset.weights > 0).any():
        raise DataError("no interaction has an event weight above 0, so there is nothing to learn; change the weights.")
    found = set(interactions.table["weight"].unique().to_list())
    weights = parse_weights(options.event_weights)
    unused = [name for name, weight in weights.items() if float(np.float32(weight)) not in found]
    if unused:
        yield f"no event is called {listed([repr(name) for name in unused])}, which event_weights names"


def _without_weight(dataset: Dataset) -> Iterator[str]:
    """Yield a note if held-out interactions are no targets, as their events have weight 0."""
    whole = make_split(replace(dataset, weights=None))
    left_out = len(whole.test.users) - len(make_split(dataset).test.users)
    if left_out:
        yield (
            f"{left_out:,} of {len(whole.test.users):,} that would test do not, as the weight of their event is 0"
            if dataset.info.split != "leave-one-out"
            else f"{left_out:,} of {counted(len(whole.test.users), 'user')} are not evaluated: fewer than two of their "
            "interactions, after the first, have a weight above 0"
        )


def quarantine_of(out: Path) -> Path:
    """Return the path, next to the data set's folder ``out``, of the file of unusable rows."""
    return out.absolute().with_name(f"{out.absolute().name}.rejected.jsonl")


def _folder(source: Any) -> str | None:
    """Return the name of a data set that is read from one folder of files; None for anything else."""
    only = source[0] if isinstance(source, list | tuple) and len(source) == 1 else source
    is_folder = isinstance(only, str | Path) and not is_url(only) and Path(only).is_dir()
    return as_name(Path(only).resolve().name) if is_folder else None


def _name(interactions: Interactions) -> str:
    if interactions.kind != "path":
        return "interactions"
    first = Path(interactions.sources[0])
    return "interactions" if interactions.sources[0] == "standard input" else first.name.partition(".")[0] or first.name


def preparation(info: DatasetInfo, out: Path, quarantine: Path | None, *, leads_on: bool = True) -> Iterator[str]:
    """Yield the report on a data set prepared into ``out``, with the next command if ``leads_on``."""
    for guess in info.guesses:
        yield f"guessed: {guess}"
    older = f", besides {counted(info.extended, 'older interaction')}" if info.extended else ""
    yield f"read {counted(info.num_read - info.extended, 'row')}{older}"
    width = max((len(f"{each['rows']:,}") for each in info.left_out), default=0)
    for each in info.left_out:
        yield f"  {each['rows']:{width},} {each['kind']}, {each['reason']}: {each['examples'][0]}"
    if quarantine is not None and any(each["kind"] == "rejected" for each in info.left_out):
        yield f"rejected rows, all of them: {quarantine}"
    people, things = counted(info.num_users, "user"), counted(info.num_items, "item")
    yield f"kept {counted(info.num_interactions, 'interaction')} of {people} with {things}: {out}"
    yield f"split: {info.split}"
    yield told(info.seen, info.returning)
    for note in info.notes:
        yield f"note: {note}"
    if leads_on:
        start = " --from RUN" if info.extended else ""  # of the older data
        yield f"Next: adrec train {out}{start} --out runs/{out.absolute().name}"
