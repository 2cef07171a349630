"""The verdict on an embedding: its measures compared with the references, in plain words.

An embedding space can collapse in four ways, each with its own sign. The bounds are not tuned to any result:

- **noise**: items are as if never trained. ``noise_share`` is the share of the spectrum of the centred items'
  directions that random directions have too; that of the Gaussian reference is 1 but for chance. With less than
  a twentieth beyond (``STRUCTURE``) nothing but noise can be seen.
- **cone**: items point the same way. ``mean_cosine`` is the share of the directions' squared length that is common to
  all items; that of the Gaussian is 0. Above nine tenths (``COMMON``), less than a tenth is an item's own. (Vectors
  without negative numbers have a common direction by their nature, and are no cone up to there.)
- **subspace**: items use few of the dimensions. ``effective_rank`` is counted against the Gaussian's; below a tenth
  (``RANK``), nine in ten dimensions are lost.
- **copies**: fewer than half of the items have a row of their own (``OWN``); the others' are another's, or 0.

If the stage-1 embedding is available, it is the reference: the remaining share of its structure beyond noise is
reported, and an embedding that keeps less than half of it (:data:`FADED`) is fading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from adrec.diagnose.measures import Measures
from adrec.train.bounds import COMMON, OWN, RANK, STRUCTURE

State = Literal["alive", "fading", "collapsed"]
STATES: tuple[State, ...] = ("alive", "fading", "collapsed")  # each worse than the one before

FADED = 0.5
GAUSSIAN, SHUFFLED, STAGE_1 = "gaussian", "shuffled", "stage 1"


@dataclass(frozen=True)
class CollapseVerdict:
    """The verdict on collapse of an embedding space.

    Attributes:
        state: ``alive``, ``fading`` or ``collapsed``.
        signs: which of ``noise``, ``cone``, ``subspace``, ``copies`` it has collapsed into; ``faded`` where it fades.
        sentences: the verdict in words, the first by itself.
    """

    state: State
    signs: tuple[str, ...]
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def verdict(measures: Measures, references: Mapping[str, Measures]) -> CollapseVerdict:
    """Return the verdict on measures, given their references; ``gaussian`` is required."""
    noise, cosine = _number(measures, "noise_share"), _number(measures, "mean_cosine")
    rank = _number(measures, "effective_rank") / max(_number(references[GAUSSIAN], "effective_rank"), 1e-9)
    distinct = _number(measures, "distinct")
    spectrum = f"the spectrum is {noise:.0%} that of random noise"
    signs = {
        "noise": (
            1 - noise < STRUCTURE,
            f"the spectrum is {noise:.0%} that of random noise: items are barely separated",
        ),
        "cone": (cosine > COMMON, f"{cosine:.0%} of the directions' squared length is common to all items"),
        "subspace": (rank < RANK, f"{rank:.0%} of the dimensions of random noise are used"),
        "copies": (distinct < OWN, f"{distinct:.0%} of the items have a row of their own"),
    }
    found = {sign: words for sign, (there, words) in signs.items() if there}
    left = _structure_left(measures, references.get(STAGE_1))
    faded = left is not None and left < FADED
    state: State = "collapsed" if found else "fading" if faded else "alive"
    first = "; ".join(found.values()) or f"{spectrum}, {1 - noise:.0%} is structure"
    looks = "Collapsed, or hardly trained yet" if list(found) == ["noise"] else state.capitalize()
    sentences = [f"{looks}: {first}.", _beyond(measures, references)]
    if left is not None:
        sentences.append(f"Of the structure beyond noise that stage 1 had, {left:.0%} is there.")
    return CollapseVerdict(state, tuple(found) or (("faded",) if faded else ()), tuple(sentences))


def _beyond(measures: Measures, references: Mapping[str, Measures]) -> str:
    dimensions = _number(measures, "signal_dimensions")
    random = _number(references[GAUSSIAN], "signal_dimensions")
    rank, cosine = _number(measures, "effective_rank"), _number(measures, "mean_cosine")
    return (
        f"{dimensions:.0f} of {measures.size} dimensions are beyond chance (random noise: {random:.0f}); "
        f"effective rank {rank:.0f}, mean cosine {cosine:+.2f}."
    )


def _structure_left(measures: Measures, stage_1: Measures | None) -> float | None:
    """Return the structure beyond noise over that of stage 1; None where stage 1 is not at hand or had none."""
    if stage_1 is None:
        return None
    before = 1 - _number(stage_1, "noise_share")
    return (1 - _number(measures, "noise_share")) / before if before > STRUCTURE else None


def _number(measures: Measures, name: str) -> float:
    value = measures[name]
    assert value is not None, name
    return value
