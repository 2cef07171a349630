"""Choice among several columns that could have a role: by the first rows, not by their names alone."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from adrec.data import convert
from adrec.data.columns import find_column, usual_columns
from adrec.data.rows import Opened
from adrec.data.times import Times
from adrec.utils.errors import DataError
from adrec.utils.text import listed

FILLED = 0.5  # a column that is missing in more of the first rows is not taken, if another is filled


def find(opened: Opened, role: str, advice: str) -> tuple[str, str]:
    """Return the column for ``role`` by its usual names, and why it is that one.

    Of several time columns, the finest is taken; of several user or item columns, the first in the order of
    :data:`adrec.data.columns.USUAL_NAMES` that is not missing in most of the first rows.

    Raises :class:`DataError` if there is none.
    """
    found = usual_columns(opened.columns, role)
    if len(found) < 2 or role in ("rating", "event"):
        return find_column(opened.columns, role, None, opened.name, advice), "by its name"
    head = opened.head(found)
    return _finest(opened, head, found) if role == "time" else _filled(head, found, role)


def _filled(head: pl.DataFrame, found: Sequence[str], role: str) -> tuple[str, str]:
    shares = {name: _missing(head[name]) for name in found}
    best = next((name for name in found if shares[name] <= 1 - FILLED), found[0])
    if best != found[0]:
        return best, f"as {found[0]!r} is missing in {shares[found[0]]:.0%} of the first rows"
    others = listed([repr(name) for name in found if name != best])
    return best, f"by its name; {others} could be it too: --{role} chooses"


def _missing(column: pl.Series) -> float:
    column = convert.plain_text(column)
    bad = convert.missing(column).bad
    if column.dtype == pl.String:
        bad = bad | convert.marked(column).bad
    return int(bad.sum()) / max(len(bad), 1)


def _finest(opened: Opened, head: pl.DataFrame, found: Sequence[str]) -> tuple[str, str]:
    """Return the column that most of the first rows have a readable time in, with the most distinct times."""

    def fineness(name: str) -> tuple[bool, int]:
        try:
            values = Times(name).read(head[name], opened.name, opened.at).values.drop_nulls()
        except DataError:  # its type is none of times
            return False, 0
        return len(values) > FILLED * head.height, values.n_unique()

    best = max(found, key=fineness)  # the first of equals
    others = listed([repr(name) for name in found if name != best])
    return best, f"which is finer than {others}, or as fine: --time chooses"
