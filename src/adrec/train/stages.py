"""The record of a stage that has ended, and the sentences that tell how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adrec.config.stage import StageConfig
from adrec.train.checkpoint import Progress
from adrec.utils.text import counted

FEW_STEPS = 200  # below this, a patience counted in epochs may end a stage before anything is learnt


def stopped_early(stage: StageConfig, progress: Progress) -> bool:
    """Whether validation has stopped improving."""
    return 0 < stage.patience <= progress.stale


def ended_stage(name: str, stage: StageConfig, progress: Progress, health: Mapping[str, float]) -> dict[str, Any]:
    """Return the record of the current stage, which ends: name, epochs, chosen epoch, health of the item embedding.

    It has ``cut`` if the stage was ended by a callback, ``diverged`` if by a divergence, and ``rate`` if an earlier one
    lowered the learning rate.
    """
    record = {
        "stage": name,
        "epochs": progress.epoch,
        "chosen_epoch": progress.best_epoch or progress.epoch,
        "embedding": dict(health),
    }
    if progress.rate != 1:
        record["rate"] = progress.rate
    if progress.diverged:
        return {**record, "diverged": True}
    cut = progress.epoch < stage.epochs and not stopped_early(stage, progress)
    return {**record, "cut": True} if cut else record


def how_it_ended(
    record: Mapping[str, Any], stage: StageConfig, progress: Progress, steps: int, users: int
) -> Iterator[str]:
    """Yield the sentences that tell how a stage ended.

    Args:
        record: the output of :func:`ended_stage`.
        stage: the stage.
        progress: the progress at its end.
        steps: optimizer steps in the stage.
        users: users in a step.
    """
    name = f"{record['stage']:>8}"
    if not record["epochs"]:
        yield f"{name}  ended: the factorised co-occurrences are the item embedding."
        return
    early = stopped_early(stage, progress)
    why = " (validation stopped improving)" if early else " (time is up)" if record.get("cut") else ""
    if record.get("diverged"):
        why = " (it has diverged)"
    kept = f"epoch {progress.best_epoch} is kept"
    if not progress.best_epoch:
        kept = "the last one is kept, as none was validated"
    yield f"{name}  ended after {counted(record['epochs'], 'epoch')}{why}; {kept}."
    if early and steps < FEW_STEPS and users > 1:
        yield f"{'':>8}  That is only {counted(steps, 'step')}: set a batch_size below {users} for more."
