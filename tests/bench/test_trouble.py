"""A benchmark in trouble: changed code, settings that do not fit, processes that meet or end, labels that confuse."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from rich.console import Console

from adrec.bench import tuning, worker
from adrec.bench.grid import Entry
from adrec.bench.ledger import Finished, Job, Ledger
from adrec.bench.results import results
from adrec.bench.schedule import make_plan, run_plan
from adrec.bench.series import Series, make_job
from adrec.bench.worker import UnfinishedError, Worker
from adrec.data.dataset import Dataset, write_dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out, make_split
from adrec.utils.errors import ConfigError
from command import adrec, start
from conftest import cyclic_table, tiny_changes

SMALL: Mapping[str, Any] = tiny_changes(0, 0, 495)
QUICK: Mapping[str, Any] = {**SMALL, "finetune.epochs": 1}


@pytest.fixture
def data(dataset: Dataset, tmp_path: Path) -> Path:
    write_dataset(dataset, tmp_path / "cyclic")
    return tmp_path / "cyclic"


def ran(data: Path, ledger: Path, *entries: Entry, console: Console | None = None, **more: Any) -> bool:
    options: dict[str, Any] = {"seeds": 1, "trials": 0, **more}
    return run_plan(make_plan(ledger, [data], entries, **options), console or Console(quiet=True))


def searched(label: str = "s", **search: Any) -> Entry:
    found = {key.replace("__", "."): space for key, space in search.items()}
    return Entry(label, "adrec", "paper", changes=QUICK, search=found)


def final_of(entry: Entry, data: Dataset, seed: int = 2025) -> Job:
    return make_job(Series(Path(), entry, (seed,)), data, leave_one_out(data), seed)


def test_code_that_was_changed_is_another_model(data: Path, tmp_path: Path) -> None:
    code = "from adrec.models.baselines.popularity import Popularity\n\n\nclass Mine(Popularity):\n    name = 'mine'\n"
    command = ("benchmark", "cyclic", "--models", "own:Mine", "--out", "ledger")
    for more in ("", "# another day\n"):
        (tmp_path / "own.py").write_text(code + more)
        done = adrec(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "own:Mine (2)" not in done.stdout, "the benchmark shows what the code of now does"
    (rows,) = results(Ledger.open(tmp_path / "ledger")).rows.values()
    assert sorted((row.label, row.seeds) for row in rows) == [("own:Mine", 1), ("own:Mine (2)", 1)]


def test_settings_by_hand_and_by_trials_are_two_rows(data: Path, tmp_path: Path) -> None:
    entry = searched(model__dropout=[0.1, 0.2])
    ran(data, tmp_path / "ledger", entry)
    ran(data, tmp_path / "ledger", entry, trials=1)  # the entry's own settings win, as there are no others
    (rows,) = results(Ledger.open(tmp_path / "ledger")).rows.values()
    assert {row.seeds for row in rows} == {1} and sorted(row.trials for row in rows) == [0, 1]
    tuned = next(row.label for row in rows if row.trials)
    (again,) = results(Ledger.open(tmp_path / "ledger"), reference=tuned).rows.values()
    other = next(row for row in again if row.label != tuned)
    assert tuned in other.against["all"]


def test_what_one_search_found_is_no_row_of_a_wider_one(data: Path, tmp_path: Path) -> None:
    narrow = searched(model__dropout=[0.1, 0.2])
    wide = searched("wide", model__dropout=[0.1, 0.2], model__embedding_dropout=[0.3, 0.4])
    assert ran(data, tmp_path / "ledger", narrow, trials=2)
    (rows,) = results(Ledger.open(tmp_path / "ledger"), entries=[narrow, wide]).rows.values()
    assert [row.label for row in rows] == ["s"]


def test_a_model_that_two_searches_chose_is_a_row_of_both(data: Path, tmp_path: Path) -> None:
    narrow = searched(model__dropout=[0.1, 0.2])  # each takes its own settings, which validate as well as any
    other = searched("other", finetune__learning_rate=[1e-3, 1e-12])
    assert ran(data, tmp_path / "ledger", narrow, other, trials=2)
    finals = [each.job for each in Ledger.open(tmp_path / "ledger").finished() if each.job.trial is None]
    (rows,) = results(Ledger.open(tmp_path / "ledger"), entries=[narrow, other]).rows.values()
    assert {row.label for row in rows} == {"s", "other"}, [job.label for job in finals]


def test_proposed_settings_that_do_not_fit_are_passed_over(data: Path, tmp_path: Path) -> None:
    assert ran(data, tmp_path / "ledger", searched(model__hidden_size={"low": 16, "high": 32}), trials=6)
    trials = [each.job for each in Ledger.open(tmp_path / "ledger").finished() if each.job.trial is not None]
    assert 0 < len(trials) < 6 and all(job.config["model"]["hidden_size"] % 2 == 0 for job in trials)
    with pytest.raises(ConfigError, match="by its logarithm, so low must be above 0"):
        searched(model__dropout={"low": 0.0, "high": 0.3, "log": True})


def test_a_range_is_of_whole_numbers_where_its_key_is(dataset: Dataset, tmp_path: Path) -> None:
    entry = searched(finetune__weight_decay={"low": 0, "high": 1}, model__num_heads={"low": 1, "high": 2})
    seen: list[Job] = []

    def run(job: Job, _: Any) -> Finished:
        seen.append(job)
        return Finished(job, {"validation": {"ndcg@20": 0.1}}, tmp_path)

    series = Series(tmp_path, entry, (2025,), trials=6)
    tuning.tune(
        entry, 6, 2025, lambda changes, n: make_job(series, dataset, leave_one_out(dataset), 2025, changes, n), run
    )
    assert {job.config["model"]["num_heads"] for job in seen} <= {1, 2}
    assert any(0 < job.config["finetune"]["weight_decay"] < 1 for job in seen[1:])


def test_without_a_validation_part_nothing_is_tuned(tmp_path: Path) -> None:
    write_dataset(prepare(cyclic_table(), split="ratio:0.8,0,0.2"), tmp_path / "data")
    console = Console(record=True, quiet=False, width=400, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    assert not ran(
        tmp_path / "data",
        tmp_path / "ledger",
        searched(model__dropout=[0.1, 0.2]),
        Entry("popular", "popular"),
        trials=2,
        console=console,
    )
    assert "s cannot be tuned, as the split ratio:0.8,0,0.2 has no validation part" in console.export_text()
    assert [each.job.label for each in Ledger.open(tmp_path / "ledger").finished()] == ["popular"]


def test_a_trial_of_another_process_is_waited_for(
    data: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "POLL", 0.05)
    ledger, entry = Ledger.create(tmp_path / "ledger"), searched(model__dropout=[0.1, 0.2])
    series = Series(data, entry, (2025,), trials=1)
    first = make_job(series, dataset, make_split(dataset, None), 2025, {}, 0)
    found: list[Finished] = []
    thread = Thread(target=lambda: found.extend(Worker(ledger.path, None, lambda _: None).compute(series)))
    with ledger.claimed(first.key) as ours:
        assert ours
        thread.start()
        thread.join(1.0)
        assert thread.is_alive() and ledger.result(first) is None
    thread.join(60)
    assert len(found) == 1 and ledger.result(first) is not None


def test_a_seed_of_another_process_leaves_the_others(data: Path, dataset: Dataset, tmp_path: Path) -> None:
    ledger, entry = Ledger.create(tmp_path / "ledger"), Entry("adrec", "adrec", "paper", changes=QUICK)
    jobs = [final_of(entry, dataset, seed) for seed in (2025, 2026)]
    with ledger.claimed(jobs[0].key), pytest.raises(UnfinishedError, match="seed 2025: another process computes it"):
        Worker(ledger.path, None, lambda _: None).compute(Series(data, entry, (2025, 2026)))
    assert ledger.result(jobs[0]) is None and ledger.result(jobs[1]) is not None


def test_what_fails_when_it_is_computed_again_loses_nothing(
    data: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry("adrec", "adrec", "paper", changes=QUICK)
    assert ran(data, tmp_path / "ledger", entry)
    ledger, job = Ledger.open(tmp_path / "ledger"), final_of(entry, dataset)
    before = ledger.result(job)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(worker, "do_job", full)
    assert not ran(data, tmp_path / "ledger", entry, diagnose=True)
    assert before is not None and ledger.result(job) == before


def test_a_model_that_cannot_be_made_is_kept_as_failed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("no licence")

    monkeypatch.setattr("adrec.models.baselines.popularity.Popularity.__init__", broken)
    assert not ran(data, tmp_path / "ledger", Entry("popular", "popular"), Entry("markov", "markov"))
    finished = {each.job.label: each.error for each in Ledger.open(tmp_path / "ledger").finished()}
    assert finished == {"popular": "ValueError: no licence", "markov": None}


def test_brackets_in_a_name_are_no_markup(data: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text('["popular [all]"]\nmodel = "popular"\n["markov [/x]"]\nmodel = "markov"\n')
    command = ("benchmark", "cyclic", "--grid", "grid.toml", "--out", "ledger")
    for more in (("--dry-run",), ()):
        done = adrec(*command, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "popular [all]" in done.stdout and "markov [/x]" in done.stdout
    assert "Next: adrec results ledger --grid grid.toml --out results.md" in done.stderr


def test_only_the_data_that_were_asked_for_are_shown(data: Path, tmp_path: Path) -> None:
    other = prepare(cyclic_table(seed=9), name="other")
    write_dataset(other, tmp_path / "other")
    command = ("benchmark", "--models", "popular", "--out", "ledger")
    assert "other" in adrec(*command, "other", cwd=tmp_path).stdout
    assert "other" not in adrec(*command, "cyclic", cwd=tmp_path).stdout


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_at_once(data: Path, tmp_path: Path) -> None:
    sets = ", ".join(f'"{key}" = {json.dumps(value)}' for key, value in SMALL.items() if key != "finetune.epochs")
    (tmp_path / "grid.toml").write_text(
        f'[adrec]\npreset = "paper"\nset = {{ {sets}, "finetune.epochs" = 9999, "finetune.schedule" = "constant", '
        '"finetune.patience" = 0 }\n'
    )
    command = ("benchmark", "cyclic", "--grid", "grid.toml", "--out", "ledger", "--seeds", "6", "--processes", "2")
    process = start(*command, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "ledger" / "work").glob("*/metrics.jsonl"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert "Interrupted; ledger keeps the jobs and epochs that are finished" in told
    assert len(list((tmp_path / "ledger" / "work").glob("*/run.json"))) == 2, "no further job has begun"


def test_damage_in_a_ledger_is_told_and_computed_again(data: Path, tmp_path: Path) -> None:
    ledger, entries = tmp_path / "ledger", (Entry("popular", "popular"), Entry("markov", "markov"))
    assert ran(data, ledger, *entries)
    (ledger / "jobs" / ".DS_Store").write_bytes(b"")
    (ledger / "jobs" / "mine").mkdir()
    one, two = (each.folder for each in Ledger.open(ledger).finished())
    whole = {path.name: path.read_bytes() for path in one.iterdir()}

    def damaged(said: str) -> None:
        (found,) = Ledger.open(ledger).damaged()
        assert said in found
        shown = results(Ledger.open(ledger))
        assert [row.label for rows in shown.rows.values() for row in rows] == [
            Ledger.open(ledger).finished()[0].job.label
        ]
        assert list(shown.failed.values()) == [found]
        assert ran(data, ledger, *entries) and Ledger.open(ledger).damaged() == []

    assert Ledger.open(ledger).damaged() == []
    content = bytearray(whole["ranks.parquet"])
    content[10] ^= 1
    (one / "ranks.parquet").write_bytes(content)
    damaged("ranks.parquet is damaged")
    (one / "result.json").unlink()
    damaged("has no result; adrec benchmark computes it")
    for path in two.iterdir():
        (one / path.name).write_bytes(path.read_bytes())
    damaged(f"holds the job {two.name}")
    (one / "job.json").write_text("[]")
    damaged("does not hold a JSON object")


def test_a_comparison_that_is_interrupted_while_it_tests_goes_on(
    data: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adrec.bench import work

    ledger, entry = Ledger.create(tmp_path / "ledger"), Entry("adrec", "adrec", "paper", changes=QUICK)
    ledger.add_dataset(dataset, leave_one_out(dataset))

    def computed() -> Finished:
        (found,) = Worker(ledger.path, None, lambda _: None, keep_runs=True).compute(Series(data, entry, (2025,)))
        return found

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(work, "_test", stop)
        with pytest.raises(KeyboardInterrupt):
            computed()
    found = computed()
    assert found.error is None and found.result["stages"][-1]["epochs"] == 1
    assert found.result["seconds"]["train"] > 0 and len(found.ranks()) > 0
