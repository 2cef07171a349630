"""ADRec: sequential recommendation with auto-regression and token-level diffusion.

Chen, Xu and Jiang: "Unlocking the Power of Diffusion Models in Sequential Recommendation: A Simple and Effective
Approach", KDD 2025, arXiv 2505.19544.
"""

from typing import TYPE_CHECKING, Any

from adrec._version import __version__
from adrec.data.dataset import Dataset, open_dataset, write_dataset
from adrec.data.prepare import prepare
from adrec.utils.errors import UserError

if TYPE_CHECKING:
    from adrec.api.model import ADRec

__all__ = ["ADRec", "Dataset", "UserError", "__version__", "open_dataset", "prepare", "write_dataset"]


def __getattr__(name: str) -> Any:
    """Import PyTorch, which takes seconds, when the model is asked for and not before."""
    if name == "ADRec":
        from adrec.api.model import ADRec  # noqa: PLC0415

        return ADRec
    raise AttributeError(f"module 'adrec' has no attribute {name!r}")
