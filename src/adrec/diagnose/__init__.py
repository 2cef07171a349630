"""Diagnosis of embedding collapse: measures of an embedding, reference values (references), and a verdict.

>>> from adrec.diagnose import diagnose, open_space
>>> print(diagnose(open_space(Path("runs/a"))).verdict.sentences[0])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adrec.diagnose.diagnosis import Diagnosed as Diagnosed
    from adrec.diagnose.diagnosis import Space as Space
    from adrec.diagnose.diagnosis import diagnose as diagnose
    from adrec.diagnose.measures import Measures as Measures
    from adrec.diagnose.measures import measure as measure
    from adrec.diagnose.source import open_space as open_space
    from adrec.diagnose.verdict import CollapseVerdict as CollapseVerdict

PUBLIC = {
    "Diagnosed": "diagnosis",
    "Space": "diagnosis",
    "diagnose": "diagnosis",
    "Measures": "measures",
    "measure": "measures",
    "open_space": "source",
    "CollapseVerdict": "verdict",
}


def __getattr__(name: str) -> Any:
    """Import public names lazily: training needs few of them, and none of the statistics."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)
