"""Events of a store as a table for :func:`adrec.data.prepare.prepare`."""

from __future__ import annotations

from typing import Any

import polars as pl

from adrec.data import convert
from adrec.data.dataset import Dataset
from adrec.data.extend import named
from adrec.data.moments import PER_SECOND
from adrec.data.read import ROW_ORDER
from adrec.data.vocab import Vocabulary
from adrec.live.events import News
from adrec.live.store import Store
from adrec.utils.errors import DataError

USUAL = {"user": "user_id", "item": "item_id", "time": "timestamp", "event": "event"}


def news_of(place: str, base: Dataset | None) -> News:
    """Return the entries of a store that ``base`` does not contain yet.

    Raises :class:`DataError` if there are neither events nor erasures, or the store cannot be read.
    """
    store = Store(place)
    try:
        news = store.news(0 if base is None else base.info.events.get(store.id, 0))
    finally:
        store.close()
    if news.events.height == 0 and (base is None or not news.erased):
        beyond = "" if base is None else f" that {named(base)} does not contain"
        raise DataError(f"the store of events {store.place} has no event{beyond}.")
    return news


def as_table(news: News, base: Dataset | None) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return events with the columns and the types of ids of ``base``, and the options to read them with."""
    names = (
        USUAL if base is None else USUAL | {role: base.info.named(role) for role in USUAL if role in base.info.columns}
    )
    vocabularies = (None, None) if base is None else (base.users, base.catalogue)
    columns = [
        _ids(news.events[role], vocabulary).alias(names[role])
        for role, vocabulary in zip(("user", "item"), vocabularies, strict=True)
    ]
    options: dict[str, Any] = {"user": names["user"], "item": names["item"]}
    if base is not None and base.info.time_unit not in PER_SECOND:
        options["time"] = ROW_ORDER  # they come after all others, in the order in which they were stored
    else:
        columns.append(news.events["time"].alias(names["time"]))
        options |= {"time": names["time"], "time_unit": "ms"}
    if base is None or base.weights is not None:
        columns.append(news.events["event"].alias(names["event"]))
        if base is not None:
            options["event"] = names["event"]
    return pl.DataFrame(columns), options


def _ids(values: pl.Series, vocabulary: Vocabulary | None) -> pl.Series:
    if vocabulary is None:
        return convert.meant(values)
    return values.cast(vocabulary.ids.dtype, strict=False)  # null for what is no number: an unusable row
