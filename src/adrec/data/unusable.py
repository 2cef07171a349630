"""The rows of a piece that cannot be used, with the reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import polars as pl

from adrec.data import convert
from adrec.data.convert import Converted
from adrec.data.report import BAD_TIME, MALFORMED, Rejected
from adrec.data.rows import Opened, Piece


def unusable(
    opened: Opened, piece: Piece, raw: Mapping[str, pl.Series], converted: Mapping[str, Converted], *, named: bool
) -> list[Rejected]:
    """Return the rows of a piece that cannot be used.

    Args:
        opened: the source.
        piece: some of its rows.
        raw: their columns by role, as they were read.
        converted: the same, converted.
        named: whether the columns of a text file were named, so that its first line is a row.
    """
    rejected = [*_malformed(opened, piece), *_with_bad_values(opened, piece, raw, converted)]
    return [_as_header(row) for row in rejected] if named and opened.unit == "line" else rejected


def _malformed(opened: Opened, piece: Piece) -> Iterator[Rejected]:
    for row in piece.malformed:
        yield Rejected(opened.at(row.number), opened.name, row.number, MALFORMED, row.what, None, None, row.text)


def _as_header(row: Rejected) -> Rejected:
    """Report that a first line without a time may be a header, if the column names were given."""
    if (row.number, row.reason) != (1, BAD_TIME) or any(character.isdigit() for character in str(row.value)):
        return row
    return replace(row, what="the time cannot be read (a header? where columns are named, line 1 is a row)")


def _with_bad_values(
    opened: Opened, piece: Piece, raw: Mapping[str, pl.Series], converted: Mapping[str, Converted]
) -> list[Rejected]:
    """Return the rows with a value that cannot be used, each with the first such value."""
    found: dict[int, tuple[str, str, str]] = {}
    for role, each in converted.items():
        for problem in each.problems:
            for index in problem.bad.arg_true().to_list():
                found.setdefault(index, (role, problem.reason, problem.what))
    texts = piece.text(list(found))
    return [
        Rejected(
            opened.at(number := int(piece.numbers[index])),
            opened.name,
            number,
            reason,
            what,
            raw[role].name,
            None if what == convert.ABSENT else raw[role][index],
            text,
        )
        for (index, (role, reason, what)), text in zip(found.items(), texts, strict=True)
    ]
