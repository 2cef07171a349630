"""Tables of measures for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from adrec.diagnose.contribution import Contribution
from adrec.diagnose.diagnosis import Diagnosed
from adrec.diagnose.measures import DEFINITIONS
from adrec.diagnose.samples import Value
from adrec.evaluate.significance import SURE


def measures_table(found: Sequence[Diagnosed]) -> Table:
    """Return every measure of each space, beside the references of the first."""
    published = any(value.published is not None for value in found[0].measures.values.values())
    columns = [each.space.name for each in found] + (["as published"] if published else []) + list(found[0].references)
    table = Table(
        caption="± is the standard error of sampling; as published: the authors' variant, where theirs is another"
    )
    table.add_column("measure")
    for name in map(escape, columns):
        table.add_column(name, justify="right", style="dim" if name in found[0].references else None)
    for name, definition in DEFINITIONS.items():
        cells = [written(each.measures.values[name]) for each in found]
        if published:
            cells.append(number(found[0].measures.values[name].published))
        cells += [number(each[name]) for each in found[0].references.values()]
        table.add_row(definition.title, *cells)
    return table


def summary_table(found: Sequence[Diagnosed]) -> Table:
    """Return a row a space: its state, its accuracy where that is known, and the measures that the verdict reads."""
    measures = ("noise_share", "signal_dimensions", "effective_rank", "mean_cosine", "silhouette")
    accuracy = list(dict.fromkeys(name for each in found for name in each.space.accuracy))
    table = Table("space", "state")
    for name in (*accuracy, *(DEFINITIONS[name].title for name in measures)):
        table.add_column(name, justify="right")
    for each in found:
        known = (each.space.accuracy.get(name) for name in accuracy)
        cells = ["" if value is None else f"{value:.4f}" for value in known]
        table.add_row(
            escape(each.space.name), each.verdict.state, *cells, *(number(each.measures[name]) for name in measures)
        )
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


def contribution_table(found: Contribution, part: str) -> Table:
    """Return the gain of each part of the diffusion."""
    table = Table(title=f"what diffusion contributes: {found.metric} x 100, {part}, seen items ranked too")
    for name in ("gain of", "with", "without", "difference", "95 % interval", "p (Holm)"):
        table.add_column(name, justify="left" if name == "gain of" else "right")
    for gain in found.gains:
        estimate = gain.difference.estimate
        table.add_row(
            escape(gain.part),
            *(f"{100 * value:.3f}" for value in (gain.with_it, gain.without)),
            f"{100 * estimate.mean:+.3f}",
            f"{100 * estimate.low:+.3f} to {100 * estimate.high:+.3f}",
            f"{gain.difference.p:.2g}",
        )
    return table


def contribution_notes(found: Contribution) -> list[str]:
    """Return which parts help, and what the samples are like, a sentence each."""
    hits = found.hits_of_all
    sure = [gain for gain in found.gains if gain.difference.p < SURE]
    better = [gain.part for gain in sure if gain.difference.estimate.mean > 0]
    worse = [gain.part for gain in sure if gain.difference.estimate.mean < 0]
    if sure:
        said = [
            f"{word} the ranking: {', '.join(parts)}." for word, parts in (("Helps", better), ("Hurts", worse)) if parts
        ]
    else:
        said = [
            f"None of these changes the ranking of these {found.gains[0].difference.num_users:,} users, beyond chance."
        ]
    rank = found.spread_and_rank
    told = f"its rank correlation with the held-out item's rank is {rank:+.2f}" if rank is not None else "all alike"
    return [
        *said,
        f"Spread of {found.samples} samples: {found.spread:.2%} of their mean's length; {told}.",
        f"Two samples have {found.same_items:.1%} of their first 20 items in common.",
        f"Lists that take from all samples in turn cover {found.coverage_of_all:.1%} of the catalogue, those of one "
        f"{found.coverage_of_one:.1%}; their hit ratio at 20 (x 100) differs by {100 * hits.estimate.mean:+.2f} "
        f"({100 * hits.estimate.low:+.2f} to {100 * hits.estimate.high:+.2f}, p = {hits.p:.2g}).",
    ]
