"""The comparison as one page that opens offline, on a phone as well, light or dark."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from adrec._version import __version__
from adrec.bench.groups import COLUMNS
from adrec.bench.verdict import METRIC, Contender, ModelChoice, points
from adrec.data.dataset import DatasetInfo
from adrec.data.spans import Int64s
from adrec.evaluate.metrics import estimates
from adrec.train.cost import duration

STYLE = """
:root { color-scheme: light dark; --ink: #1a202c; --paper: #fff; --line: #cbd5e0; --bar: #2b6cb0; --chosen: #c05621 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e8f0; --paper: #171923; --line: #4a5568; --bar: #63b3ed; --chosen: #f6ad55 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 0 auto; padding: 1rem }
svg { max-width: 40rem }
.verdict { font-size: 1.15rem; border-left: 4px solid var(--chosen); padding-left: .8rem }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .3rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .5rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.bar { fill: var(--bar) } .bar.chosen { fill: var(--chosen) } svg text { fill: var(--ink); font-size: 13px }
code { overflow-wrap: anywhere }
"""


@dataclass(frozen=True)
class Setting:
    """What a comparison was made with.

    Attributes:
        users: user index of each test interaction, int64 [m].
        seed: the random seed.
        budget: the time budget in seconds.
    """

    users: Int64s
    seed: int
    budget: float

    @property
    def sentence(self) -> str:
        """The setting in words."""
        return (
            f"{METRIC} decides. One training of each model, seed {self.seed}, a budget of {duration(self.budget)}, "
            f"adrec {__version__}; intervals of 95 % over users."
        )


def page(
    info: DatasetInfo,
    found: ModelChoice,
    contenders: Sequence[Contender],
    notes: Sequence[str],
    next_: str,
    setting: Setting,
) -> str:
    """Return the whole page.

    Args:
        info: of the data set.
        found: which model to use, and why.
        contenders: what was compared.
        notes: who did not finish, and why.
        next_: the command that comes next.
        setting: what the comparison was made with.
    """
    first, *rest = found.sentences
    contenders = sorted(contenders, key=lambda each: -each.mean)
    title = f"Which model for {info.name}?"
    halves = ("unseen", "all") if found.filter_seen else ("all", "unseen")
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{info.num_users:,} users, {info.num_items:,} items, {info.num_interactions:,} interactions. Held out: "
        f"{html.escape(info.split)}; {found.protocol}.</p>",
        f'<p class="verdict">{html.escape(first)}</p>',
        _bars(found.chosen, contenders),
        _differences(found, contenders),
        *(f"<p>{html.escape(sentence)}</p>" for sentence in rest if not sentence.startswith("Against ")),
        *(f"<p>{html.escape(note)}</p>" for note in notes),
        *(_table(contenders, half, setting.users, as_recommended=half == halves[0]) for half in halves),
        _costs(contenders),
        f"<p>{html.escape(setting.sentence)}</p>",
        f"<p>Next: <code>{html.escape(next_)}</code></p>",
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _bars(chosen: Contender, contenders: Sequence[Contender]) -> str:
    """Return a bar for each contender's metric, as SVG."""
    most = max(each.mean for each in contenders) or 1.0
    rows = []
    for index, each in enumerate(contenders):
        width, top = 300 * each.mean / most, 26 * index
        kind = "bar chosen" if each is chosen else "bar"
        rows.append(
            f'<text x="0" y="{top + 16}">{html.escape(each.model)}</text>'
            f'<rect class="{kind}" x="90" y="{top + 3}" width="{width:.1f}" height="18" rx="2"/>'
            f'<text x="{96 + width:.1f}" y="{top + 16}">{100 * each.mean:.2f}</text>'
        )
    label = html.escape(f"{METRIC}, x 100, of each model")
    height = 26 * len(contenders)
    return f'<svg role="img" aria-label="{label}" viewBox="0 0 450 {height}" width="100%">{"".join(rows)}</svg>'


def _differences(found: ModelChoice, contenders: Sequence[Contender]) -> str:
    """Return how much better the chosen model is than each other."""
    head = ("model", METRIC, f"{found.chosen.model} minus it", "95 % interval", "p alone", "p among all")
    rows = []
    for each in contenders:
        if each is found.chosen:
            continue
        difference = found.differences[each.model]
        low, high = points(difference)
        rows.append(
            (
                each.model + (" (cut short)" if each.cut else ""),
                f"{100 * each.mean:.2f}",
                f"{100 * difference.estimate.mean:+.2f}",
                f"{low:+.2f} to {high:+.2f}",
                f"{difference.p:.2g}",
                f"{found.together[each.model]:.2g}",
            )
        )
    return _html(f"How much better {found.chosen.model} is", head, rows) if rows else ""


def _table(contenders: Sequence[Contender], half: str, users: Int64s, *, as_recommended: bool) -> str:
    """Return metrics with intervals, with seen items ranked (``all``) or left out (``unseen``)."""
    names = ("hr@10", "hr@20", "ndcg@10", "ndcg@20", "mrr@20")
    rows = []
    for each in contenders:
        ranks = each.finished.ranks()[COLUMNS[half]].to_numpy() - 1
        found = estimates(names, ranks, users)
        cells = (f"{100 * one.mean:.2f} ({100 * one.low:.2f} to {100 * one.high:.2f})" for one in found.values())
        rows.append((each.model, *cells))
    what = "Seen items ranked too" if half == "all" else "Seen items left out"
    return _html(what + (", as recommended" if as_recommended else ""), ("model", *names), rows)


def _costs(contenders: Sequence[Contender]) -> str:
    """Return the cost of each model, and how much of the catalogue it recommends."""
    rows = [
        (
            each.model,
            f"{each.finished.result['recommended']['coverage']:.0%}",
            duration(each.seconds),
            f"{each.users_per_second:,.0f}",
        )
        for each in contenders
    ]
    return _html("Cost, and coverage of the catalogue", ("model", "coverage", "training", "users/s"), rows)


def _html(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table under its title; it scrolls sideways on a narrow screen."""
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h2>{html.escape(title)}</h2><div class="scroll" tabindex="0">{table}</div>'
