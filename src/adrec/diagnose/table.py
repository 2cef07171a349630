"""Measures as a table of a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from adrec.diagnose.diagnosis import Diagnosed
from adrec.diagnose.measures import DEFINITIONS, Value


def measures_table(found: Sequence[Diagnosed]) -> Table:
    """Return every measure of each space, beside the yardsticks of the first."""
    published = any(value.published is not None for value in found[0].measures.values.values())
    columns = [each.space.name for each in found] + (["published"] if published else []) + list(found[0].yardsticks)
    table = Table(caption="± is the standard error of sampling; published is the variant of the authors' notebook")
    table.add_column("measure")
    for name in columns:
        table.add_column(name, justify="right", style="dim" if name in found[0].yardsticks else None)
    for name, definition in DEFINITIONS.items():
        cells = [written(each.measures.values[name]) for each in found]
        if published:
            cells.append(number(found[0].measures.values[name].published))
        cells += [number(each[name]) for each in found[0].yardsticks.values()]
        table.add_row(definition.title, *cells)
    return table


def number(value: float | None) -> str:
    """Return a value with four digits that matter; nothing for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def written(value: Value) -> str:
    """Return a value with its sampling error where it has one."""
    error = f" ± {value.error:.1g}" if value.error > 0 else ""
    return number(value.value) + error
