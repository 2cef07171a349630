"""ADRec: sequential recommendation with auto-regression and token-level diffusion.

Chen, Xu and Jiang: "Unlocking the Power of Diffusion Models in Sequential Recommendation: A Simple and Effective
Approach", KDD 2025, arXiv 2505.19544.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adrec._version import __version__

if TYPE_CHECKING:
    from adrec.api.model import ADRec
    from adrec.data.dataset import Dataset, open_dataset, write_dataset
    from adrec.data.prepare import prepare
    from adrec.utils.errors import UserError

__all__ = ["ADRec", "Dataset", "UserError", "__version__", "open_dataset", "prepare", "write_dataset"]

_PLACES = {
    "ADRec": "adrec.api.model",
    **dict.fromkeys(("Dataset", "open_dataset", "write_dataset"), "adrec.data.dataset"),
    "prepare": "adrec.data.prepare",
    "UserError": "adrec.utils.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and not before: PyTorch and Polars take seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module 'adrec' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
