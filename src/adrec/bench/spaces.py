"""The embedding spaces of a benchmark, side by side: which models collapsed, with their accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from adrec.bench.grid import Entry
from adrec.bench.ledger import Finished, Ledger
from adrec.config.base import DEFAULT_SEED
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.split import make_split
from adrec.diagnose.diagnosis import Diagnosed, Space, diagnose
from adrec.diagnose.report import write_report
from adrec.diagnose.source import with_items
from adrec.diagnose.table import summary_table

SHOWN = ("hr@20", "ndcg@20")


def diagnose_benchmark(
    ledger: Ledger, data: Sequence[Path], entries: Sequence[Entry], out: Path, console: Console
) -> None:
    """Diagnose each entry's first final model on each data set, and write a folder a data set into ``out``."""
    finished = ledger.finished()
    for path in data:
        dataset = open_dataset(path)
        spaces = [space for entry in entries if (space := _space(finished, dataset, entry)) is not None]
        if not spaces:
            console.print(f"{dataset.info.name}: no model of these has an embedding.")
            continue
        found = []
        for space in spaces:
            console.print(f"{dataset.info.name}: diagnosing {space.name} ..")
            found.append(diagnose(space))
        _write(found, out / dataset.info.name, console)


def _space(jobs: Sequence[Finished], dataset: Dataset, entry: Entry) -> Space | None:
    """Return the embedding of an entry's first seed, with the accuracy of its model; None where it has none."""
    finished = next((each for each in jobs if each.has_embeddings and _is_of(each, dataset, entry)), None)
    if finished is None:
        return None
    rows = {name: tensor.float().numpy()[1:] for name, tensor in finished.embeddings().items()}
    accuracy = {f"{name} (test)": finished.result["test"]["all"][name] for name in SHOWN}
    split = make_split(dataset, None)
    return with_items(
        entry.label, rows["item_embedding"], dataset, split, stage_1=rows.get("stage_1"), accuracy=accuracy
    )


def _is_of(finished: Finished, dataset: Dataset, entry: Entry) -> bool:
    job = finished.job
    same = job.fingerprint == dataset.fingerprint and entry.has(job)
    return same and job.seed == DEFAULT_SEED and job.trial is None and not finished.error


def _write(found: Sequence[Diagnosed], folder: Path, console: Console) -> None:
    output = Console(highlight=False, soft_wrap=True, quiet=console.quiet)
    for each in found:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in each.space.accuracy.items())
        output.print(f"{each.space.name} ({shown}): {' '.join(each.verdict.sentences)}", markup=False)
    Console(highlight=False, quiet=console.quiet).print(summary_table(found))
    console.print("Drawing maps (t-SNE) ..")
    console.print(f"Report: {write_report(found, folder)}")
