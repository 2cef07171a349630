"""The pages of results are what the kept ledger says: nothing on them is typed but the words in front."""

from __future__ import annotations

from pathlib import Path

import pytest

from adrec.bench.grid import read_grid
from adrec.bench.ledger import Ledger
from adrec.bench.render import markdown
from adrec.bench.results import results
from benchmarks.summary import PLACES, filled, table

SLOW = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DOCS, LEDGER = ROOT / "docs" / "appendix", ROOT / "benchmarks" / "ledger"
# Of each page the grids, and what its entries are compared with.
PAGES = {
    "results": (("published", "tuned"), "adrec"),
    "default": (("default",), "adrec: the next item alone"),
    "ablation": (("ablation",), "base"),
    "paper": (("paper",), "adrec (paper)"),
    "search": (("search",), "no positions"),
}


def test_the_jobs_of_the_ledger_have_the_keys_that_they_were_filed_under() -> None:
    """A new key of a configuration that decides nothing in earlier jobs must not make them others."""
    finished = list(Ledger.open(LEDGER).finished())
    assert len(finished) > 400
    assert [each.job.words for each in finished if each.job.key != each.folder.name] == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW) for name in ("default", "results", "ablation", "paper", "search")]
)
def test_the_page_is_in_step_with_the_ledger(name: str) -> None:
    grids, reference = PAGES[name]
    entries = [entry for grid in grids for entry in read_grid(Path(grid))]
    preface = (DOCS / "prefaces" / f"{name}.md").read_text(encoding="utf-8")
    found = results(Ledger.open(LEDGER), reference=reference, entries=entries)
    expected = markdown(found, preface)
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == expected, "make pages writes it"
    for page, ranking in PLACES.items() if name == "results" else ():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert filled(text, table(found, ranking)) == text, "make pages writes it"
