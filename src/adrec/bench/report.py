"""The comparison as one page that opens offline, on a phone as well, light or dark."""

from __future__ import annotations

import html
from collections.abc import Sequence

from adrec.bench.verdict import METRIC, Contender, ModelChoice
from adrec.data.dataset import DatasetInfo
from adrec.train.cost import duration

STYLE = """
:root { color-scheme: light dark; --ink: #1a202c; --paper: #fff; --line: #cbd5e0; --bar: #2b6cb0; --chosen: #c05621 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e8f0; --paper: #171923; --line: #4a5568; --bar: #63b3ed; --chosen: #f6ad55 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 0 auto; padding: 1rem }
.verdict { font-size: 1.15rem; border-left: 4px solid var(--chosen); padding-left: .8rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .5rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.bar { fill: var(--bar) } .bar.chosen { fill: var(--chosen) } svg text { fill: var(--ink); font-size: 13px }
code { overflow-wrap: anywhere }
"""


def page(
    info: DatasetInfo, found: ModelChoice, contenders: Sequence[Contender], notes: Sequence[str], next_: str
) -> str:
    """Return the whole page.

    Args:
        info: of the data set.
        found: which model to use, and why.
        contenders: what was compared.
        notes: who did not finish, and why.
        next_: the command that comes next.
    """
    first, *rest = found.sentences
    contenders = sorted(contenders, key=lambda each: -each.mean)
    title = f"Which model for {info.name}?"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{info.num_users:,} users, {info.num_items:,} items, {info.num_interactions:,} interactions. Held out: "
        f"{html.escape(info.split)}; {found.protocol}.</p>",
        f'<p class="verdict">{html.escape(first)}</p>',
        *(f"<p>{html.escape(sentence)}</p>" for sentence in rest),
        _bars(found.chosen, contenders),
        _table(contenders, "unseen" if found.filter_seen else "all"),
        *(f"<p>{html.escape(note)}</p>" for note in notes),
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


def _table(contenders: Sequence[Contender], kind: str) -> str:
    names = ("hr@10", "hr@20", "ndcg@10", "ndcg@20", "mrr@20")
    head = ["model", *names, "coverage", "training", "users/s"]
    rows = []
    for each in contenders:
        result = each.finished.result
        cells = [
            html.escape(each.model),
            *(f"{100 * result['test'][kind][name]:.2f}" for name in names),
            f"{result['recommended']['coverage']:.0%}",
            duration(each.seconds),
            f"{each.users_per_second:,.0f}",
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
