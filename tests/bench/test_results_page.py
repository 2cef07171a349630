"""The page of results is what the kept ledger says: nothing on it is typed."""

from __future__ import annotations

from pathlib import Path

from adrec.bench.ledger import Ledger
from adrec.bench.render import markdown
from adrec.bench.results import results

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_in_step_with_the_ledger() -> None:
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    assert page == markdown(results(Ledger.open(DOCS / "ledger"))), "adrec results writes it"
