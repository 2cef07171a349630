"""The table of all measures in the HTML report: spaces first, then their references."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from adrec.diagnose.diagnosis import Diagnosed
from adrec.diagnose.measures import DEFINITIONS, Definition, Measures
from adrec.diagnose.samples import Value
from adrec.diagnose.verdict import GAUSSIAN, SHUFFLED, STAGE_1


@dataclass(frozen=True, eq=False)
class Column:
    """A column of the table.

    Attributes:
        group: ``spaces``, or the reference.
        diagnosed: of which space.
        measures: what stands in it; None for a space that has not this reference.
    """

    group: str
    diagnosed: Diagnosed
    measures: Measures | None


def measure_table(diagnosed: Sequence[Diagnosed]) -> str:
    """Return the table: accuracy where a space has it, then every measure, with what the authors' notebook has."""
    columns = _columns(diagnosed)
    rows = _accuracy(columns)
    for name, definition in DEFINITIONS.items():
        rows += _measure(name, definition, columns)
    table = f"<table><thead>{_groups(columns)}{_names(columns)}</thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="all measures">{table}</div>'


def _columns(diagnosed: Sequence[Diagnosed]) -> list[Column]:
    columns = [Column("spaces", each, each.measures) for each in diagnosed]
    known = {name for each in diagnosed for name in each.references}
    ordered = [name for name in (GAUSSIAN, SHUFFLED, STAGE_1) if name in known]
    for name in (*ordered, *sorted(known.difference(ordered))):
        columns += [Column(name, each, each.references.get(name)) for each in diagnosed]
    return columns


def _groups(columns: Sequence[Column]) -> str:
    cells = []
    for group in dict.fromkeys(each.group for each in columns):
        span = sum(each.group == group for each in columns)
        cells.append(f'<th class="first" colspan="{span}" scope="colgroup">{html.escape(group)}</th>')
    return f"<tr><th></th>{''.join(cells)}</tr>"


def _names(columns: Sequence[Column]) -> str:
    cells = []
    for index, each in enumerate(columns):
        name = html.escape(each.diagnosed.space.name)
        cells.append(f'<th{_first(columns, index)} scope="col" title="{name}">{name}</th>')
    return f"<tr><th>measure</th>{''.join(cells)}</tr>"


def _first(columns: Sequence[Column], index: int) -> str:
    """Return the class of the first column of a group, which has a line at its left."""
    return ' class="first"' if index == 0 or columns[index - 1].group != columns[index].group else ""


def _row(head: str, columns: Sequence[Column], cell: Callable[[Column], str], kind: str = "") -> str:
    cells = "".join(f"<td{_first(columns, index)}>{cell(each)}</td>" for index, each in enumerate(columns))
    return f'<tr class="{kind}"><th scope="row">{head}</th>{cells}</tr>'


def _accuracy(columns: Sequence[Column]) -> list[str]:
    def cell(name: str, column: Column) -> str:
        found = column.diagnosed.space.accuracy.get(name) if column.group == "spaces" else None
        return "" if found is None else f"{found:.4f}"

    names = dict.fromkeys(name for each in columns for name in each.diagnosed.space.accuracy)
    return [_row(html.escape(name), columns, partial(cell, name)) for name in names]


def _measure(name: str, definition: Definition, columns: Sequence[Column]) -> list[str]:
    def published(column: Column) -> str:
        found = None if column.measures is None else column.measures.values[name].published
        return "" if found is None else number(found)

    def own(column: Column) -> str:
        return "" if column.measures is None else shown(column.measures.values[name])

    any_published = any(
        each.measures is not None and each.measures.values[name].published is not None for each in columns
    )
    rows = [_row(_explained(definition), columns, own, "open-top" if any_published else "")]
    if any_published:
        rows.append(_row("as published", columns, published, "published"))
    return rows


def _explained(definition: Definition) -> str:
    title, meaning, source = (html.escape(text) for text in (definition.title, definition.meaning, definition.source))
    return (
        f'<details><summary title="{meaning} ({source})">{title}</summary><span>{meaning}</span>'
        f"<cite>{source}</cite></details>"
    )


def shown(value: Value) -> str:
    """Return a value with its sampling error, as HTML."""
    if value.value is None or math.isnan(value.value):
        return "–"
    if value.error <= 0:
        return number(value.value)
    decimals = min(max(-math.floor(math.log10(value.error)), 0), 6)  # as many as the error lets one know
    return f'{value.value:.{decimals}f} <span class="error">± {number(value.error, 1)}</span>'


def number(value: float, digits: int = 3) -> str:
    """Return a number with some digits, without an exponent where it is not far from 1."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    if 1e-5 <= abs(value) < 1e-3:
        return f"{value:.{digits - 1 - math.floor(math.log10(abs(value)))}f}"
    return f"{value:#.{digits}g}".rstrip(".")
