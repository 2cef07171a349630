"""Tables given on the command line: ids, histories of new users, recommendations and item attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import polars as pl

from adrec.data import convert
from adrec.data.columns import find_column, refuse_shared, usual_column
from adrec.data.convert import Converted
from adrec.data.files import open_file
from adrec.data.frames import open_frame
from adrec.data.preparation import Preparation
from adrec.data.source import COMPRESSION, HEAD_BYTES, PARQUET
from adrec.data.times import Times
from adrec.utils.errors import DataError, did_you_mean

Names: TypeAlias = Mapping[str, str]  # role to column name
USUAL = Preparation()
NO_NAMES: Names = MappingProxyType({})


def read_ids(path: Path, role: Literal["user", "item"], prepared: Names = NO_NAMES) -> pl.Series:
    """Read the distinct ids of a table, from the column for ``role`` by its ``prepared`` or usual name.

    Raises :class:`DataError` if the column is missing, the table has no rows, or a value is missing.
    """
    table = _Table(path, prepared)
    column = table.read([role], f"one {role} id a row")[role]
    return table.ids(column).unique(maintain_order=True)


def read_columns(
    path: Path, role: Literal["user", "item"], prepared: Names = NO_NAMES
) -> tuple[pl.Series, list[pl.Series]]:
    """Read a table with an id in each row: return the ids, and all other columns as they are.

    Raises :class:`DataError` as :func:`read_ids` does.
    """
    table = _Table(path, prepared)
    own = table.columns([role])[role]
    others = [name for name in table.opened.columns if name != own]
    raw = table.read([role], f"one {role} a row", also=others)
    return table.ids(raw[role]), [raw[name] for name in others]


def read_rules(source: Any, prepared: Names = NO_NAMES) -> pl.Series | pl.DataFrame:
    """Read a list of items, a file or a table: ids, or, if it has a user column, a table of ``user`` and ``item``.

    Raises :class:`DataError` for a missing value, no rows, or a column that means nothing here.
    """
    table = _Table(source, prepared)
    columns = table.columns(["item"], ["user"])
    strange = [name for name in table.opened.columns if name not in columns.values()]
    if strange:
        raise DataError(
            f"{table.opened.name} has the column {strange[0]!r}, which means nothing here; give a column of items, and "
            "one of users if each has items of their own."
        )
    raw = table.read(["item"], "one item a row", optional=["user"])
    items = table.ids(raw["item"]).alias("item")
    return (
        pl.DataFrame([table.ids(raw["user"]).alias("user"), items])
        if "user" in raw
        else items.unique(maintain_order=True)
    )


def read_pairs(source: Any, prepared: Names = NO_NAMES) -> pl.DataFrame:
    """Read pairs of a file or a table: ``user`` and ``item``.

    Raises :class:`DataError` for a missing column or value.
    """
    table = _Table(source, prepared)
    raw = table.read(["user", "item"], "one pair a row")
    return pl.DataFrame([table.ids(raw[role]).alias(role) for role in ("user", "item")])


def read_histories(
    path: Path, prepared: Names = NO_NAMES, options: Preparation = USUAL
) -> tuple[pl.Series, list[list[Any]]]:
    """Read histories: return the user ids, in order of appearance, and the items of each, oldest first.

    The table has a user and an item column. If it has a time column too, rows are sorted by it, and ties keep their
    order; otherwise the rows are in order, oldest first. A row without an item adds a user with an empty history.
    ``prepared`` has the column names of the data set's table; the usual names are accepted too. ``options`` say how
    that table was read: times are read so too, and the whole file is if its columns are not found otherwise.
    """
    table = _as_prepared(path, prepared, options)
    raw = table.read(["user", "item"], "one interaction a row", optional=["time"])
    user = table.ids(raw["user"]).alias("user")
    rows = pl.DataFrame([user, raw["item"].alias("item")])
    if "time" in raw:
        reader = Times(raw["time"].name, options.time_unit, options.time_format)
        times = reader.read(raw["time"], table.opened.name, table.at)
        reader.end(table.opened.name)  # times of mixed units have no order
        rows = rows.with_columns(time=table.usable(times, raw["time"])).sort("time", maintain_order=True)
    items = pl.col("item").filter(pl.col("item").is_not_null() & (pl.col("item").cast(pl.String) != ""))
    people = user.unique(maintain_order=True)
    lists = rows.group_by("user", maintain_order=True).agg(items)
    ordered = people.to_frame().join(lists, on="user", how="left", maintain_order="left")
    return people, ordered["item"].to_list()


def read_recommendations(path: Path, prepared: Names = NO_NAMES) -> pl.DataFrame:
    """Read recommendations: ``user``, ``item``, and ``rank`` or, where the table has none, ``score``.

    Raises :class:`DataError` where a column or a value is missing, a rank or score is no number, or a user has an item
    or a rank twice.
    """
    table = _Table(path, prepared)
    value = next((name for name in ("rank", "score") if name in table.opened.columns), None)
    if value is None:
        raise DataError(f"{path.name} has neither a column 'rank' nor 'score'; rename the one that orders the items.")
    raw = table.read(["user", "item"], "one recommendation a row", also=[value])
    numbers = raw[value].cast(pl.Float64, strict=False)
    bad = numbers.is_null() | numbers.is_nan()
    if value == "rank":
        bad |= (numbers < 1) | (numbers != numbers.floor())
    if bad.any():
        index = int(bad.arg_max() or 0)
        wanted = "a whole number from 1" if value == "rank" else "a number"
        raise DataError(f"{table.at(index)}, column {value!r}: {raw[value][index]!r} is not {wanted}; mend it.")
    read = pl.DataFrame(
        [table.ids(raw["user"]).alias("user"), table.ids(raw["item"]).alias("item"), numbers.alias(value)]
    )
    for once in ("item", "rank"):
        if once in read and (again := ~read.select(pl.struct("user", once).is_first_distinct()).to_series()).any():
            index = int(again.arg_max() or 0)
            user, what = read["user"][index], read[once][index]
            twice = f"recommends {what!r} to {user!r} twice; give each pair once"
            if once == "rank":
                twice = f"gives {user!r} the rank {what:.0f} twice; rank the items of a user 1, 2, 3 and so on"
            raise DataError(f"{table.at(index)} {twice}.")
    return read


def read_attribute(path: Path, column: str) -> pl.DataFrame:
    """Read an attribute of items: ``item`` and ``value``, a text, null where it is missing; an item's first row counts.

    Raises :class:`DataError` where the table has no item column or no column ``column``.
    """
    return read_attributes(path, [column]).rename({column: "value"})


def read_attributes(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read attributes of items: ``item`` and the ``columns``, by default all others, as texts.

    A text is null where it is missing; an item's first row counts. Raises :class:`DataError` where the table has no
    item column or lacks one of the columns.
    """
    table = _Table(path)
    for column in columns or ():
        if column not in table.opened.columns:
            near = did_you_mean(column, table.opened.columns)
            raise DataError(f"{path.name} has no column {column!r}{near}; it has {', '.join(table.opened.columns)}.")
    own = table.columns(["item"])["item"] if columns is None else None
    wanted = columns if columns is not None else [name for name in table.opened.columns if name != own]
    raw = table.read(["item"], "one item a row", also=list(wanted))
    values = [_texts(raw[name]).replace("", None).alias(name) for name in wanted]
    ids = table.ids(raw["item"]).alias("item")
    return pl.DataFrame([ids, *(each for each in values if each.name != "item")]).unique(
        "item", keep="first", maintain_order=True
    )


def _texts(column: pl.Series) -> pl.Series:
    """Return values as texts, lists with ``|`` between their values."""
    if isinstance(column.dtype, pl.List | pl.Array):
        return column.cast(pl.List(pl.String)).list.join("|")
    return column.cast(pl.String)


def _as_prepared(path: Path, prepared: Names, options: Preparation) -> _Table:
    """Open a table as a usual one or, if its columns are not found so, as the table that was prepared.

    It is read in the encoding of that table only if it is not UTF-8.
    """
    if options.encoding is not None and _is_utf8(path):
        options = replace(options, encoding=None)
    table = _Table(path, prepared, replace(options, separator=None, quoted=None, header=None))
    if not options.of_delimited():
        return table
    try:
        table.columns(["user", "item"])
    except DataError:
        return _Table(path, prepared, options)
    return table


def _is_utf8(path: Path) -> bool:
    """Return whether the first bytes of a file are UTF-8 text, or packed."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(HEAD_BYTES)
    try:
        start[: -4 if len(start) == HEAD_BYTES else None].decode()
    except UnicodeDecodeError:
        return start.startswith((*COMPRESSION, PARQUET))
    return True


class _Table:
    """A small table, read completely; any unusable value is an error."""

    def __init__(self, source: Any, prepared: Names = NO_NAMES, options: Preparation = USUAL) -> None:
        self.opened = open_file(source, options) if isinstance(source, Path) else open_frame(source)
        self.prepared = prepared
        self.numbers: list[int] = []

    def at(self, index: int) -> str:
        return self.opened.at(self.numbers[index])

    def columns(self, roles: Sequence[str], optional: Sequence[str] = ()) -> dict[str, str]:
        """Return the column for each role: all by their prepared names, or all by usual names."""
        found, name = self.opened.columns, self.opened.name
        own = all(self.prepared.get(role) in found for role in roles)
        if own:
            columns = {role: self.prepared[role] for role in roles}
        else:
            columns = {role: find_column(found, role, None, name, self._advice(role)) for role in roles}
        for role in optional:
            prepared, usual = self.prepared.get(role), usual_column(found, role)
            column = prepared if own and prepared in found else usual
            columns |= {} if column is None else {role: column}
        refuse_shared(columns, name)
        return columns

    def _advice(self, role: str) -> str:
        own = self.prepared.get(role)
        return f"to {own!r}, as it was when the data was prepared" if own else "to another usual name"

    def read(
        self, roles: Sequence[str], expected: str, optional: Sequence[str] = (), also: Sequence[str] = ()
    ) -> dict[str, pl.Series]:
        """Return the column of each role, each ``optional`` role present, and the columns in ``also``."""
        opened = self.opened
        columns = self.columns(roles, optional) | {name: name for name in also}
        tables = []
        for piece in opened.pieces(list(dict.fromkeys(columns.values()))):
            for row in piece.malformed:
                raise DataError(f"{opened.at(row.number)}: {row.what.partition(' (--')[0]}; mend it.")
            self.numbers += piece.numbers.tolist()
            tables.append(piece.columns)
        table = pl.concat(tables) if tables else pl.DataFrame()
        if table.height == 0:
            raise DataError(f"{opened.name} has a header but no rows; give {expected}.")
        return {role: table[name] for role, name in columns.items()}

    def usable(self, converted: Converted, raw: pl.Series) -> pl.Series:
        """Return the values. Raises :class:`DataError` for the first that cannot be used."""
        for problem in converted.problems:
            index = int(problem.bad.arg_max() or 0)
            raise DataError(f"{self.at(index)}, column {raw.name!r}: {problem.what}; mend or drop the row.")
        return converted.values

    def ids(self, raw: pl.Series) -> pl.Series:
        """Return ids; texts become integers if all are in canonical integer form."""
        values = self.usable(convert.ids(raw, self.opened.name), raw)
        return convert.meant(values) if self.opened.texts else values
