"""The item embedding is watched while it is trained."""

from __future__ import annotations

from torch import Tensor

from adrec.nn.base import SequenceNetwork
from adrec.train.checkpoint import Place
from adrec.train.health import collapse, vital_signs
from adrec.train.report import Reporter


def watch(network: SequenceNetwork, place: Place, reporter: Reporter) -> dict[str, float]:
    """Return the vital signs of a network's item embedding; warn where it has collapsed since ``place`` noted them."""
    signs = _signs(network.item_embedding.weight, network)
    found = collapse(signs, network.config.hidden_size, network.num_items)
    if found and place.alive:
        reporter.warn(f"The embedding space is collapsing: {found}.")
    place.alive = found is None
    return signs


def warn_of_collapse(embedding: Tensor, network: SequenceNetwork, stage: str, reporter: Reporter) -> None:
    """Warn where ``embedding`` [V + 1, D], which a stage has ended with, is collapsed."""
    found = collapse(_signs(embedding, network), network.config.hidden_size, network.num_items)
    if found:
        looks = "looks collapsed, or hardly trained yet"
        reporter.warn(f"after {stage} the embedding space {looks}: {found}; adrec diagnose tells more.")


def _signs(embedding: Tensor, network: SequenceNetwork) -> dict[str, float]:
    rows = embedding.detach()[1 : network.num_items + 1]  # [V, D]
    return vital_signs(rows.float().cpu().numpy())
