"""Evaluation of a service's log: tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from adrec.cli.console import difference_table
from adrec.utils.files import write_json
from adrec.utils.text import counted

if TYPE_CHECKING:
    from adrec.evaluate.served import Shown


def evaluate_log(data: Path, log: Path, ks: Sequence[int], json_file: Path | None, output: Console) -> None:
    """Evaluate the log of a service by the data set at ``data``, or that of the run there, and print the result."""
    from adrec.data.dataset import open_dataset
    from adrec.evaluate.served import evaluate_served
    from adrec.runs.folder import Run

    dataset = Run.open(data).dataset(None) if (data / "run.json").is_file() else open_dataset(data)
    dataset.verify()
    shown = evaluate_served(log, dataset, ks)
    output.print(_models(shown))
    for (own, other, how), differences in shown.differences().items():
        mine, theirs = shown.pairs[own, other] if how == "paired" else shown.of_shares(own, other)
        which = "its shadow, on the same interactions" if how == "paired" else "another, which other users were shown"
        output.print(f"{mine.name} against {theirs.name}: {which}")
        output.print(difference_table(shown.metrics(mine), shown.metrics(theirs), differences))
    output.print(
        f"{counted(shown.num_lists, 'list')}; {shown.waiting:,} followed by no interaction or by another list first; "
        f"{shown.unknown:,} of users who are not in {dataset.info.name}; {counted(shown.damaged, 'line')} cut by a "
        "crash. What was shown influences what users do, so it has an advantage over a shadow."
    )
    if json_file is not None:
        write_json(json_file, _values(shown))


def _models(shown: Shown) -> Table:
    names = [f"{kind}@{k}" for k in shown.cutoffs for kind in ("hr", "ndcg")]
    table = Table("model", "lists", "users", *names)
    for each in shown.models.values():
        found = shown.metrics(each)
        cells = [f"{found[name].mean:.4f}" for name in names]
        table.add_row(each.name, f"{len(each.ranks):,}", f"{len(set(each.users)):,}", *cells)
    return table


def _values(shown: Shown) -> dict[str, Any]:
    models = {
        digest: {
            "name": each.name, "lists": len(each.ranks),
            "metrics": {name: estimate.to_dict() for name, estimate in shown.metrics(each).items()},
        }
        for digest, each in shown.models.items()
    }  # fmt: skip
    differences = [
        {
            "model": own, "against": other, "how": how,
            "differences": {name: {**each.estimate.to_dict(), "p": each.p} for name, each in found.items()},
        }
        for (own, other, how), found in shown.differences().items()
    ]  # fmt: skip
    return {"lists": shown.num_lists, "models": models, "differences": differences}
