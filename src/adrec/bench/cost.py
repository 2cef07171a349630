"""What jobs took, device by device: the seconds of one are not those of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from adrec.bench.ledger import Finished
from adrec.words import counted

CPU = "CPU"


def device_of(finished: Finished) -> str:
    """Return ``CPU``, or the GPU's name."""
    if finished.result["device"] == "cpu":
        return CPU
    return str(finished.result.get("environment", {}).get("gpu", "GPU"))


def training(finished: Finished) -> Mapping[str, float]:
    """Return the seconds of ``train`` and of what was ``shared``: core-seconds on a CPU, the clock's elsewhere."""
    seconds: Mapping[str, float] = finished.result["core_seconds" if finished.result["device"] == "cpu" else "seconds"]
    return seconds


def speed(finished: Finished, of: Mapping[str, float] | None = None) -> float:
    """Return users a second, of one core on a CPU; of a part of the result where ``of`` is given."""
    per = "users_per_core_second" if finished.result["device"] == "cpu" else "users_per_second"
    return float((finished.result if of is None else of)[per])


def comparable(jobs: Sequence[Finished]) -> tuple[str, list[Finished]]:
    """Return a device and the jobs on it, whose costs have a mean: the CPU where there are some, else the first's."""
    devices = [device_of(each) for each in jobs]
    chosen = CPU if CPU in devices else devices[0]
    return chosen, [each for each, device in zip(jobs, devices, strict=True) if device == chosen]


def hours_of_training(jobs: Iterable[Finished]) -> dict[str, float]:
    """Return each device's hours (a CPU's core-hours), the CPU's first; what was shared counts once."""
    hours = {CPU: 0.0}
    for each in jobs:
        device = device_of(each)
        hours[device] = hours.get(device, 0.0) + training(each)["train"] / 3600
    return {device: spent for device, spent in hours.items() if spent}


def words_of(hours: Mapping[str, float]) -> str:
    """Return hours of training in words."""
    return ", ".join(
        f"{spent:.1f} core-hours" if device == CPU else f"{spent:.1f} hours on {device}"
        for device, spent in hours.items()
    )


def machine_of(finished: Finished) -> str:
    """Return what a job ran on, in words."""
    about, found = finished.result["environment"], finished.result
    processor = [] if about["processor"] in about["platform"] else [about["processor"]]
    where = [
        about["platform"],
        *processor,
        device_of(finished),
        f"{about['cpus']} cores",
        counted(found["threads"], "thread"),
    ]
    return f"adrec {found['adrec']}, {', '.join(where)}, torch {about['torch']}"
