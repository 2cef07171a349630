"""Write the page of results from what benchmarks left as JSON: no figure on it is typed.

python -m benchmarks.page docs/measurements/*.json --out docs/performance.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import run, shown

INTRODUCTION = """# Performance

What ADRec costs, and how much less that is than the published way of computing the same numbers. Every figure on this
page was written by `python -m benchmarks.page` from [measurements](measurements), which anyone can measure again:

| command | measures |
|---|---|
| `python -m benchmarks.train [DATA]` | a training step: ours against the padded two-pass restatement |
| `python -m benchmarks.infer [DATA]` | users/s: ours against decoding the padded sequence at every step |
| `python -m benchmarks.roofline [DATA]` | the share of the machine's own matrix-multiply rate that a step reaches |
| `python -m benchmarks.attention [DATA]` | our attention against PyTorch's other exact ways, and a step compiled |
| `python -m benchmarks.growth [DATA]` | seconds and memory against items, users, history length, padding and steps |
| `python -m benchmarks.steps RUN...` | test metrics and users/s against denoising steps |

`DATA` is a table or a prepared folder, by default the demo's MovieLens ratings. Each writes JSON with `--json`.
The ways of attention are each held to our outputs and gradients (columns `differ`); one that fails here says why.
The restatement (`benchmarks/padded.py`) pads every history to 50, goes backward once for each loss and holds all logits
of a batch; a test holds it to the same outputs, losses and gradients as our network. Both ways are measured in one
process, in turn; the median of the ratios counts. Memory is that of a process which does nothing else.
The runs whose denoising steps are compared were trained for a few epochs only: that table compares steps, not models.
"""


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(shown(row.get(name, "")) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def section(path: Path) -> str:
    """Return what one file of results says."""
    result = json.loads(path.read_text(encoding="utf-8"))
    rows, machine = result["rows"], result["machine"]
    known = {"title", "rows", "machine", "times", "points", "exponents_memory", "tables"}
    headlines = {name: value for name, value in result.items() if name not in known}
    parts = [f"## {result['title']}", markdown(rows)]
    flat = {name: value for name, value in headlines.items() if not isinstance(value, dict)}
    if flat:
        parts.append(", ".join(f"`{name}` {shown(value)}" for name, value in flat.items()) + ".")
    for name, value in headlines.items():
        if isinstance(value, dict):
            parts.append(f"`{name}`: " + ", ".join(f"{key} {shown(each)}" for key, each in value.items()) + ".")
    for title, more in result.get("tables", {}).items():
        parts += [f"### {title}", markdown(more)]
    place = f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, PyTorch {machine['torch']}"
    return "\n\n".join([*parts, f"<sub>{path.name}; {place}, Python {machine['python']}</sub>"])


def main(
    results: Annotated[list[Path], typer.Argument(help="What benchmarks wrote with --json.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("docs/performance.md"),
) -> None:
    """Write the page."""
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures = sorted((out.parent / "measurements").glob("*.svg"))
    shown_pictures = [f"![{path.stem}](measurements/{path.name})" for path in pictures]
    out.write_text(
        "\n\n".join([INTRODUCTION.strip(), *map(section, results), *shown_pictures]) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    run(main)
