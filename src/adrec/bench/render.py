"""Rendering of results: Markdown, LaTeX, and rows for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from adrec.bench.cost import words_of
from adrec.bench.results import Results, Row
from adrec.evaluate.metrics import Estimate
from adrec.train.cost import duration

INTRODUCTION = """\
Written by `adrec results` from the ledger of the benchmark; do not edit. Metrics are means over test users and seeds,
x 100, with 95 % intervals over users (and over seeds, where there are several: wide, where two or three of them
differ). The whole catalogue is ranked: with the items of the history, as in the papers (*seen items ranked too*), or
without them, as a service would (*left out*); never compare across the two. Where there is a validation part, epochs
were chosen on it, and the settings of entries with trials. A difference is a row's {metric} minus that of its
column's entry, with the p-value of a paired permutation test over users (seeds are averaged), adjusted for the number
of entries, and for the choice of the best (Holm); the intervals are of single comparisons. Both hold for the models
that were trained: other seeds would move a difference too, by about as much as the seeds of an entry differ. Of seeds
that were *cut short*, time ended the training before validation had stopped improving. Training is given in core
time, of all cores together, and users/s are those of one core: other work on the machine changes neither. On a GPU
both are by the clock. Where several devices were used, the column *on* names them."""
COST_FROM = 5  # index of the first cost column; the columns before it describe the recommendations
SHOWN = ("hr@10", "hr@20", "ndcg@10", "ndcg@20", "mrr@20")


def seeds(row: Row) -> str:
    """Return how many seeds an entry has, and of how many the training was cut short."""
    of_all = "cut short" if row.cut == row.seeds else f"{row.cut} cut short"
    return f"{row.seeds}, {of_all}" if row.cut else str(row.seeds)


def percent(value: float) -> str:
    """Return a share x 100 with two digits."""
    return f"{100 * value:.2f}"


def interval(estimate: Estimate) -> str:
    """Return a mean with its 95 % interval, x 100."""
    return f"{percent(estimate.mean)} ({percent(estimate.low)} to {percent(estimate.high)})"


def markdown(results: Results, preface: str = "# Results\n") -> str:
    """Return the whole page, ``preface`` (Markdown) in front."""
    parts = [
        preface.rstrip("\n"),
        "",
        INTRODUCTION.format(metric=results.metric),
        "",
        f"Computed on {'; '.join(results.machine)}: {words_of(results.hours)} of training in all.",
    ]
    for name, rows in results.rows.items():
        about = results.data[name]
        parts += [
            "",
            f"## {name}",
            "",
            f"{about['users']:,} users, {about['items']:,} items, {about['interactions']:,} interactions; "
            f"{about['test_users']:,} test users; split {about['split']}.",
        ]
        for title, table in tables(rows, results.metric).items():
            parts += ["", f"### {title}", "", *_markdown_table(table)]
    if results.failed:
        parts += ["", "## Failed", ""]
        parts += [f"- {words}: {why}" for words, why in results.failed.items()]
    return "\n".join(parts) + "\n"


def _markdown_table(table: Sequence[Sequence[str]]) -> list[str]:
    head, *rows = table
    right = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(each) + " |" for each in (head, right, *rows)]


def tables(rows: Sequence[Row], metric: str) -> dict[str, list[list[str]]]:
    """Return a data set's tables by title, each its head and its rows: those that say something of these entries."""
    found = {
        "Seen items ranked too": accuracy(rows, "all", validated=metric),
        "Seen items left out": accuracy(rows, "unseen"),
        f"Differences in {metric}, seen items ranked too": differences(rows, "all"),
        f"Differences in {metric}, seen items left out": differences(rows, "unseen"),
        "What is recommended, and at what cost": costs(rows),
        f"{metric} and users/s by denoising steps": steps(rows),
        f"{metric} by history length, and by popularity of the (first) held-out item (4: the most popular)": groups(
            rows
        ),
    }
    return {title: table for title, table in found.items() if len(table[0]) > 1}


def accuracy(
    rows: Sequence[Row], kind: str, shown: Sequence[str] = SHOWN, validated: str | None = None
) -> list[list[str]]:
    """Return each entry's metrics with their intervals, and the metric that was ``validated``, where it is named."""
    last = [] if validated is None else [f"validation {validated}"]
    table = [["entry", "seeds", "trials", *shown, *last]]
    for row in rows:
        cells = [row.label, seeds(row), str(row.trials), *(interval(row.metrics[kind][name]) for name in shown)]
        known = "" if row.validation is None else percent(row.validation)
        table.append([*cells, known] if last else cells)
    return table


def differences(rows: Sequence[Row], kind: str) -> list[list[str]]:
    """Return each entry's difference from the best, and from ADRec; ``kind`` as of :func:`accuracy`."""
    others = list(dict.fromkeys(other for row in rows for other in row.against[kind]))
    table = [["entry", *(f"minus {other}" for other in others)]]
    for row in rows:
        cells = []
        for other in others:
            found = row.against[kind].get(other)
            cells.append("" if found is None else f"{interval(found.estimate)}, p = {found.p:.2g}")
        table.append([row.label, *cells])
    return table


def costs(rows: Sequence[Row]) -> list[list[str]]:
    """Return what each entry recommends, and what it takes."""
    head = ["entry", "coverage, %", "Gini", "popularity", "novelty, bit", "parameters", "training", "users/s"]
    several = len({row.device for row in rows}) > 1 or any(row.timed < row.seeds for row in rows)
    return [
        [*head, "on"] if several else head,
        *(
            [
                row.label,
                f"{100 * row.recommended['coverage']:.1f}",
                f"{row.recommended['gini']:.3f}",
                f"{row.recommended['popularity']:,.0f}",
                f"{row.recommended['novelty']:.2f}",
                f"{row.parameters:,}",
                duration(row.seconds),
                f"{row.users_per_second:,.0f}",
                *(
                    [row.device + (f", {row.timed} of {row.seeds} seeds" if row.timed < row.seeds else "")]
                    if several
                    else []
                ),
            ]
            for row in rows
        ),
    ]


def steps(rows: Sequence[Row]) -> list[list[str]]:
    """Return the compared metric and users/s of the entries that denoise, by steps."""
    denoising = [row for row in rows if row.by_steps]
    numbers = list(dict.fromkeys(number for row in denoising for number in row.by_steps))
    table = [["entry", *numbers]]
    for row in denoising:
        pairs = (row.by_steps.get(number) for number in numbers)
        table.append([row.label, *("" if pair is None else f"{percent(pair[0])}, {pair[1]:,.0f}/s" for pair in pairs)])
    return table


def groups(rows: Sequence[Row]) -> list[list[str]]:
    """Return the compared metric by history length, and by quartile of popularity."""
    lengths, quartiles = list(rows[0].by_length), list(rows[0].by_popularity)
    head = ["entry", *lengths, *(f"quartile {each}" for each in quartiles)]
    return [
        head,
        *(
            [
                row.label,
                *(percent(row.by_length[each]) for each in lengths),
                *(percent(row.by_popularity[each]) for each in quartiles),
            ]
            for row in rows
        ),
    ]


KINDS = {"all": "seen items are ranked too", "unseen": "seen items are left out"}


def latex(results: Results) -> str:
    """Return tables for a paper: each data set's metrics with their 95 % intervals, the best of each in bold."""
    lines = ["% Written by adrec results; needs booktabs."]
    for name, rows in results.rows.items():
        for kind, words in KINDS.items():
            lines += _latex_table(
                rows,
                kind,
                f"{_escaped(name)}: means over users and seeds, $\\times 100$, with 95\\,\\% intervals; {words}.",
            )
    return "\n".join(lines)


def _latex_table(rows: Sequence[Row], kind: str, caption: str) -> list[str]:
    best = {metric: max(row.metrics[kind][metric].mean for row in rows) for metric in SHOWN}
    lines = [
        r"\begin{table}",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{l{'r' * len(SHOWN)}}}",
        r"\toprule",
        " & ".join(["entry", *(_escaped(metric.upper()) for metric in SHOWN)]) + r" \\",
        r"\midrule",
    ]
    for row in rows:
        cells = [_latex_cell(row.metrics[kind][metric], best[metric]) for metric in SHOWN]
        label = f"{row.label} (cut short)" if row.cut else row.label
        lines.append(" & ".join([_escaped(label), *cells]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]


def _latex_cell(estimate: Estimate, best: float) -> str:
    mean = percent(estimate.mean)
    bold = rf"\textbf{{{mean}}}" if estimate.mean == best else mean
    return rf"{bold} {{\scriptsize ({percent(estimate.low)}--{percent(estimate.high)})}}"


def _escaped(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, r"\textbackslash{}" if character == "\\" else f"\\{character}")
    return text
