"""The tables of README.md and ``docs/results.md``, from the ledger: ``python -m benchmarks.summary``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from adrec.bench.ledger import Ledger
from adrec.bench.results import Results, Row, results
from adrec.utils.files import write_bytes
from benchmarks.charts import LEDGER, METRIC, ROOT, SHORT, entries_of

MODELS = (
    "adrec",
    "cam",
    "cam (fast)",
    "adrec (published)",
    "sasrec+ as tuned on baby, repeat bias",
    "sasrec+",
    "gru4rec",
    "itemknn",
    "popular",
)
DATA = ("ml-100k", "baby", "beauty")
PLACES = {"README.md": "unseen", "docs/results.md": "all"}  # the ranking that each table shows


def table(found: Results, ranking: str) -> str:
    """Return a Markdown table: NDCG@20 x 100 and core seconds of training, a row for each model."""
    rows: Mapping[str, Mapping[str, Row]] = {
        data: {row.label: row for row in each} for data, each in found.rows.items()
    }
    lines = [
        "| model | " + " | ".join(f"{data}: NDCG@20 | training" for data in DATA) + " |",
        "|---|" + "---:|" * (2 * len(DATA)),
    ]
    for name in MODELS:
        cells = [cell for data in DATA for cell in cells_of(rows[data][name], ranking)]
        lines.append(f"| {SHORT.get(name, name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cells_of(row: Row, ranking: str) -> Sequence[str]:
    """Return the metric of a row, and its seconds where they are of CPU cores."""
    seconds = "" if not row.core_time else f"{row.seconds:,.0f} s" if row.seconds >= 1 else "< 1 s"
    return f"{100 * row.metrics[ranking][METRIC].mean:.2f}", seconds


def filled(text: str, made: str) -> str:
    """Return ``text`` with the table between its marks replaced."""
    return re.sub(
        r"(<!-- results -->\n).*?(<!-- end -->)", lambda found: f"{found[1]}{made}\n{found[2]}", text, flags=re.S
    )


def main() -> None:
    """Write every table."""
    found = results(Ledger.open(LEDGER), entries=entries_of("published", "tuned"))
    for name, ranking in PLACES.items():
        path = ROOT / name
        write_bytes(path, filled(path.read_text(encoding="utf-8"), table(found, ranking)).encode())


if __name__ == "__main__":
    main()
