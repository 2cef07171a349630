"""Training cost and speed of jobs, by device, as times of different devices are not comparable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from adrec.bench.ledger import Finished
from adrec.utils.text import counted

CPU = "CPU"  # a CPU without a recorded name


def device_of(finished: Finished) -> str:
    """Return the name of the processor or the GPU."""
    about = finished.result.get("environment", {})
    return str(about.get("gpu", "GPU")) if finished.result["device"] != "cpu" else _processor(about) or CPU


def _processor(about: Mapping[str, str]) -> str:
    """Return the processor's name; empty where it was not noted, but at most its architecture, as in ``platform``."""
    processor = about.get("processor", "")
    return "" if processor in about.get("platform", "") else processor


def training(finished: Finished) -> Mapping[str, float]:
    """Return the seconds of ``train`` and of ``shared`` stages: core-seconds on a CPU, wall-clock seconds elsewhere."""
    seconds: Mapping[str, float] = finished.result["core_seconds" if finished.result["device"] == "cpu" else "seconds"]
    return seconds


def speed(finished: Finished, of: Mapping[str, float] | None = None) -> float:
    """Return users per second, per core on a CPU; for the part ``of`` of the result, if given."""
    per = "users_per_core_second" if finished.result["device"] == "cpu" else "users_per_second"
    return float((finished.result if of is None else of)[per])


def comparable(jobs: Sequence[Finished]) -> tuple[str, list[Finished]]:
    """Return a device and the jobs on it, whose costs have a mean: that of most jobs, a CPU before a GPU."""
    groups: dict[str, list[Finished]] = {}
    for each in jobs:
        groups.setdefault(device_of(each), []).append(each)
    chosen = max(groups, key=lambda device: (groups[device][0].result["device"] == "cpu", len(groups[device])))
    return chosen, groups[chosen]


def hours_of_training(jobs: Iterable[Finished]) -> dict[str, float]:
    """Return hours by what they are of, ``core-hours of`` a CPU first; what was shared counts once."""
    hours: dict[tuple[bool, str], float] = {}
    for each in jobs:
        device = each.result["device"] != "cpu", device_of(each)
        hours[device] = hours.get(device, 0.0) + training(each)["train"] / 3600
    unit = {True: "hours of {}", False: "core-hours of {}"}
    return {
        unit[on_gpu].format(name) if name != CPU else "core-hours": spent
        for (on_gpu, name), spent in sorted(hours.items())
    }


def words_of(hours: Mapping[str, float]) -> str:
    """Return hours of training in words; minutes where there is no tenth of an hour."""
    return ", ".join(
        f"{spent:.1f} {what}" if spent >= 0.1 else f"{60 * spent:.1f} {what.replace('hours', 'minutes', 1)}"
        for what, spent in hours.items()
    )


def machine_of(finished: Finished) -> str:
    """Return a description of the machine of a job."""
    about, found = finished.result["environment"], finished.result
    names = dict.fromkeys(filter(None, (_processor(about), device_of(finished))))  # a CPU that is named is both
    where = [about["platform"], *names, f"{about['cpus']} cores", counted(found["threads"], "thread")]
    return f"adrec {found['adrec']}, {', '.join(where)}, torch {about['torch']}"
