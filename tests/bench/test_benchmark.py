"""The benchmark: a ledger of jobs, shared stages, tuning, failures, and what is read from it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from adrec.bench import tuning, work, worker
from adrec.bench.figure import draw
from adrec.bench.grid import Entry, parse_models, read_grid
from adrec.bench.ledger import PROTOCOL, Job, Ledger
from adrec.bench.render import latex, markdown
from adrec.bench.results import results
from adrec.bench.schedule import make_plan, run_plan
from adrec.bench.series import Series, make_job
from adrec.bench.shared import SharedFirstStage, first_stage_key
from adrec.config.adrec import preset
from adrec.data.dataset import Dataset, open_dataset, write_dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.evaluate.protocol import evaluate
from adrec.evaluate.significance import paired_difference
from adrec.models.adrec import ADRecModel
from adrec.runs.fit import fit
from adrec.train.callbacks import Callback
from adrec.utils.errors import ConfigError, DataError, RunError
from adrec.utils.sealed import digest_of
from command import adrec, refused, start
from conftest import TINY, OnEpoch, adrec_trainer, cyclic_table, grouped, reseal

QUIET = Console(quiet=True)
SMALL: Mapping[str, Any] = {**TINY, "pretrain.epochs": 3, "align.epochs": 1, "finetune.epochs": 2}


@pytest.fixture
def data(dataset: Dataset, tmp_path: Path) -> Path:
    write_dataset(dataset, tmp_path / "cyclic")
    return tmp_path / "cyclic"


def dataset_name(data: Path) -> str:
    name: str = json.loads((data / "dataset.json").read_text())["name"]
    return name


def entries() -> list[Entry]:
    return [
        Entry("popular", "popular"),
        Entry("adrec", "adrec", "paper", changes=SMALL),
        Entry("no noise", "adrec", "paper", changes={**SMALL, "noise_weight": 0.0}),
    ]


def ran(data: Path, ledger: Path, **more: Any) -> bool:
    options: dict[str, Any] = {"seeds": 2, "trials": 0, **more}
    return run_plan(make_plan(ledger, [data], options.pop("entries", entries()), **options), QUIET)


def test_results_are_those_of_the_models(data: Path, dataset: Dataset, tmp_path: Path) -> None:
    assert ran(data, tmp_path / "ledger")
    ledger = Ledger.open(tmp_path / "ledger")
    assert len(ledger.finished()) == 5, "the same popular twice is one model"
    found = results(ledger)
    rows = {row.label: row for row in found.rows[dataset.info.name]}
    model, split = ADRecModel(preset("paper", SMALL)), leave_one_out(dataset)
    values = []
    for seed in (2025, 2026):
        fit(model, dataset, split, seed=seed)
        values.append(evaluate(model, dataset, split, seen="keep").metrics["ndcg@20"].mean)
    assert rows["adrec"].metrics["all"]["ndcg@20"].mean == pytest.approx(np.mean(values), abs=1e-9)
    unseen = evaluate(model, dataset, split, seen="leave-out").metrics["hr@5"].mean
    (second,) = [each for each in ledger.finished() if each.job.label == "adrec" and each.job.seed == 2026]
    assert second.result["test"]["unseen"]["hr@5"] == pytest.approx(unseen)
    assert rows["popular"].seeds == 1 and rows["adrec"].seeds == 2
    validated = [each.result["validation"]["ndcg@20"] for each in ledger.finished() if each.job.label == "adrec"]
    assert rows["adrec"].validation == pytest.approx(np.mean(validated))
    first = next(line for line in markdown(found).splitlines() if line.startswith("| adrec |"))
    assert first.endswith(f" {100 * np.mean(validated):.2f} |"), "the last column of the first table"
    best = max(rows.values(), key=lambda row: row.metrics["all"]["ndcg@20"].mean).label
    other = next(label for label in rows if label not in ("popular", best))
    alone = {kind: paired_difference(*(_values(ledger, label, kind) for label in (other, best))) for kind in KINDS}
    for kind in KINDS:
        compared = rows[other].against[kind][best]
        assert compared.estimate.mean == pytest.approx(alone[kind].estimate.mean)
    assert rows["popular"].against["all"].keys() <= {"adrec", "no noise"}
    assert not list((tmp_path / "ledger" / "work").glob("*/run.json")), "runs of finished jobs are gone"


KINDS = {"all": "rank", "unseen": "rank_unseen"}


def _values(ledger: Ledger, label: str, kind: str) -> np.ndarray:
    """Each user's ndcg@20, mean over seeds; one held-out item each."""
    jobs = [each for each in ledger.finished() if each.job.label == label]
    ranks = np.stack([each.ranks()[KINDS[kind]].to_numpy() for each in jobs]).astype(np.float64)
    return np.where(ranks <= 20, 1 / np.log2(ranks + 1), 0.0).mean(0)


def test_nothing_is_computed_twice(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(data, tmp_path / "ledger")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ledger" / "jobs").rglob("*")}

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a job was computed again")

    monkeypatch.setattr(worker, "do_job", never)
    assert ran(data, tmp_path / "ledger")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "ledger" / "jobs").rglob("*")}


def test_a_first_stage_is_trained_once_and_changes_nothing(data: Path, dataset: Dataset, tmp_path: Path) -> None:
    """The stage that is taken over leaves the rest as it would have been, bit for bit, in other settings too."""
    ran(data, tmp_path / "ledger", seeds=1)
    jobs = {each.job.label: each for each in Ledger.open(tmp_path / "ledger").finished()}
    assert jobs["adrec"].result["seconds"]["shared"] == 0 and jobs["no noise"].result["seconds"]["shared"] > 0
    for label, changes in (("adrec", SMALL), ("no noise", {**SMALL, "noise_weight": 0.0})):
        model = ADRecModel(preset("paper", changes))
        fit(model, dataset, leave_one_out(dataset), seed=2025)
        alone = evaluate(model, dataset, leave_one_out(dataset), seen="keep").ranks["rank"].to_list()
        assert jobs[label].ranks()["rank"].to_list() == alone


def test_a_gpu_takes_no_first_stage_from_a_cpu(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their generators' states differ, in size too: the key is of the trainer's device."""
    asked: list[str] = []

    def noted(*arguments: Any) -> str | None:
        asked.append(arguments[4])
        return first_stage_key(*arguments)

    monkeypatch.setattr(work, "first_stage_key", noted)
    ran(data, tmp_path / "ledger", entries=entries()[1:2], seeds=1)
    assert asked == ["cpu"]
    model = ADRecModel(preset("paper", SMALL))
    assert first_stage_key(model, "f", "s", 1, "cuda") != first_stage_key(model, "f", "s", 1)
    assert first_stage_key(model, "f", "s", 1, "cpu") == first_stage_key(model, "f", "s", 1)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"noise_weight": 0.5}, True),
        ({"num_train_timesteps": 6}, True),
        ({"decoder": "mlp"}, True),
        ({"finetune.epochs": 9}, True),
        ({"dropout": 0.2}, False),
        ({"max_length": 5}, False),
        ({"pretrain.epochs": 4}, False),
        ({"batch_size": 8}, False),
        ({"tokens_per_step": 12}, False),
        ({"pretrain.beta2": 0.9}, False),
        ({"align.beta2": 0.9, "finetune.beta2": 0.9}, True),
        ({"feed_forward_ratio": 2}, False),
        ({"causal": False}, True),
    ],
)
def test_what_a_first_stage_depends_on(changes: Mapping[str, Any], same: bool, dataset: Dataset) -> None:
    """The key changes with what changes the stage's weights, and with nothing else."""

    def trained(model: ADRecModel) -> tuple[str | None, bytes]:
        config = replace(model.training, align=None, finetune=None)  # type: ignore[call-arg]
        network = adrec_trainer(config, dataset, leave_one_out(dataset), seed=1, networks=model.networks).run()
        return first_stage_key(model, "f", "s", 1), network.item_embedding.weight.detach().numpy().tobytes()

    key, weights = trained(ADRecModel(preset("paper", SMALL)))
    other_key, other_weights = trained(ADRecModel(preset("paper", grouped({**SMALL, **changes}))))
    assert (key == other_key) is same
    assert (weights == other_weights) is same


class Stops(Callback):
    """Ends each stage after an epoch."""

    def should_stop(self) -> bool:
        return True


@pytest.mark.parametrize("stops", [False, True])
def test_a_stage_that_was_cut_short_is_not_shared(dataset: Dataset, tmp_path: Path, stops: bool) -> None:
    model = ADRecModel(preset("paper", SMALL))
    key, spent = first_stage_key(model, "f", "s", 1), {"seconds": 0.0, "core_seconds": 0.0}
    shared = SharedFirstStage(tmp_path / "shared", key, tmp_path, lambda: spent, lambda: None)
    fit(model, dataset, leave_one_out(dataset), seed=1, callbacks=[shared, *([Stops()] if stops else [])])
    assert bool(list((tmp_path / "shared").glob("*.safetensors"))) is not stops


def test_an_interrupted_job_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(data, tmp_path / "whole", entries=entries()[1:2])
    train = work.fit

    def interrupted(*arguments: Any, callbacks: Sequence[Callback], **more: Any) -> Any:
        def interrupt(row: Mapping[str, Any]) -> None:
            if row["stage"] == "finetune":
                raise KeyboardInterrupt

        return train(*arguments, callbacks=[*callbacks, OnEpoch(interrupt)], **more)

    with monkeypatch.context() as patch:
        patch.setattr(work, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ran(data, tmp_path / "ledger", entries=entries()[1:2])
    assert ran(data, tmp_path / "ledger", entries=entries()[1:2])
    whole, again = (Ledger.open(tmp_path / name).finished() for name in ("whole", "ledger"))
    assert [each.ranks().rows() for each in whole] == [each.ranks().rows() for each in again]


def test_a_job_that_fails_is_kept_and_the_rest_goes_on(data: Path, tmp_path: Path) -> None:
    bad = Entry(
        "diverges", "adrec", "paper", changes={**SMALL, "pretrain.learning_rate": 1e30, "align.learning_rate": 1e30}
    )
    assert not ran(data, tmp_path / "ledger", entries=[bad, *entries()], seeds=1)
    found = results(Ledger.open(tmp_path / "ledger"))
    assert list(found.failed) == [f"{dataset_name(data)}: diverges, seed 2025"]
    assert {row.label for rows in found.rows.values() for row in rows} == {"popular", "adrec", "no noise"}


def test_a_grid_shows_what_was_computed_with_its_settings_under_its_names(data: Path, tmp_path: Path) -> None:
    ran(data, tmp_path / "ledger")
    silent = entries()[-1]
    chosen = [Entry("without noise", silent.model, silent.preset, silent.changes)]
    found = results(Ledger.open(tmp_path / "ledger"), entries=[*chosen, *chosen, Entry("adrec", "adrec", "paper")])
    before = {row.label: row for rows in results(Ledger.open(tmp_path / "ledger")).rows.values() for row in rows}
    ((row,),) = found.rows.values()
    assert row.label == "without noise" and row.seeds == 2 and row.metrics == before["no noise"].metrics
    with pytest.raises(ConfigError, match="no entry is called 'adrec'"):
        results(Ledger.open(tmp_path / "ledger"), reference="adrec", entries=chosen)


def test_jobs_of_another_protocol_are_none_of_an_entry(data: Path, tmp_path: Path) -> None:
    ran(data, tmp_path / "ledger")
    first = next(each for each in Ledger.open(tmp_path / "ledger").finished() if each.job.model == "adrec")
    assert first.job.protocol == PROTOCOL
    other = replace(first.job, protocol=PROTOCOL + 1)
    assert other.key != first.job.key
    (first.folder / "job.json").write_text(json.dumps(asdict(other)))
    reseal(first.folder / "result.json", job_digest=digest_of(asdict(other)))
    (rows,) = results(Ledger.open(tmp_path / "ledger"), entries=entries()).rows.values()
    assert {row.label: row.seeds for row in rows} == {"popular": 1, "adrec": 1, "no noise": 2}


def test_tuning_takes_what_validates_best_and_the_test_part_is_not_seen(data: Path, tmp_path: Path) -> None:
    search = {"finetune.learning_rate": [1e-6, 1e-2], "model.dropout": {"low": 0.0, "high": 0.3}}
    entry = Entry("adrec", "adrec", "paper", changes={**SMALL, "finetune.learning_rate": 1e-6}, search=search)
    assert ran(data, tmp_path / "ledger", entries=[entry], seeds=1, trials=5)
    finished = Ledger.open(tmp_path / "ledger").finished()
    trials = [each for each in finished if each.job.trial is not None]
    (final,) = [each for each in finished if each.job.trial is None]
    assert trials and all("test" not in each.result for each in trials)
    best = max(trials, key=lambda each: each.result["validation"]["ndcg@20"])
    assert final.job.config == best.job.config
    assert results(Ledger.open(tmp_path / "ledger")).rows[dataset_name(data)][0].trials == len(trials)
    # The settings that won, chosen by hand, are an entry of their own, and another search is not this one.
    won = entry.model_class.Config.from_dict(final.job.config)
    byhand = Entry("by hand", "adrec", "paper", changes={**SMALL, **{key: attrgetter(key)(won) for key in search}})
    other = Entry("adrec", "adrec", "paper", changes=entry.changes, search={"model.dropout": [0.0, 0.3]})
    assert entry.has(final.job) and not byhand.has(final.job) and not other.has(final.job)
    assert all(entry.has(each.job) for each in trials)
    assert byhand.has(replace(final.job, tuned=False)) and replace(final.job, tuned=False).key != final.job.key


def test_a_changed_data_set_is_refused(data: Path, dataset: Dataset, tmp_path: Path) -> None:
    ran(data, tmp_path / "ledger", entries=entries()[:1])
    other = prepare(cyclic_table(seed=9), name=dataset.info.name)
    write_dataset(other, tmp_path / "other")
    with pytest.raises(DataError, match="is not the one that .* began with"):
        ran(tmp_path / "other", tmp_path / "ledger", entries=entries()[:1])


def test_a_budget_ends_it_and_the_next_time_goes_on(data: Path, tmp_path: Path) -> None:
    assert not ran(data, tmp_path / "ledger", budget=0.0)
    with pytest.raises(RunError, match="no job .* has finished yet"):
        results(Ledger.open(tmp_path / "ledger"))
    assert ran(data, tmp_path / "ledger")


def test_pages_hold_every_entry(data: Path, tmp_path: Path) -> None:
    ran(data, tmp_path / "ledger")
    found = results(Ledger.open(tmp_path / "ledger"))
    page, paper = markdown(found), latex(found)
    for label in ("popular", "adrec", "no noise"):
        assert page.count(f"| {label} |") == (6 if label == "popular" else 7), "what denoises has a table of steps too"
        assert label in paper
    assert "p = " in page and r"\textbf{" in paper
    assert paper.count("seen items are ranked too") == paper.count("seen items are left out") == len(found.rows)
    (rows,) = found.rows.values()
    for kind in ("all", "unseen"):
        each = rows[-1].metrics[kind]["mrr@20"]
        assert f"{{\\scriptsize ({100 * each.low:.2f}--{100 * each.high:.2f})}} \\\\" in paper
        best = max(rows, key=lambda row: row.metrics[kind]["ndcg@20"].mean)
        assert next(iter(next(row for row in rows if row is not best).against[kind])) == best.label
    assert json.loads(json.dumps(found.to_dict()))["metric"] == "ndcg@20"


def test_what_time_cut_short_is_marked(data: Path, tmp_path: Path) -> None:
    ran(data, tmp_path / "ledger")
    for job in Ledger.open(tmp_path / "ledger").finished():
        if job.job.label == "adrec" and job.job.seed == 2026:
            path = job.folder / "result.json"
            result = json.loads(path.read_text())
            result["stages"][-1]["cut"] = True
            reseal(path, stages=result["stages"])
    page = markdown(results(Ledger.open(tmp_path / "ledger")))
    assert page.count("| adrec | 2, 1 cut short |") == 2 and "| no noise | 2 |" in page


@pytest.mark.slow
def test_costs_of_a_gpu_stand_apart(data: Path, tmp_path: Path) -> None:
    ran(data, tmp_path / "ledger")
    on_cpu = results(Ledger.open(tmp_path / "ledger"))
    assert "| on |" not in markdown(on_cpu)
    (cpu,) = {row.device for rows in on_cpu.rows.values() for row in rows}
    for job in Ledger.open(tmp_path / "ledger").finished():
        if job.job.label == "no noise" or (job.job.label == "adrec" and job.job.seed == 2026):
            path = tmp_path / "ledger" / "jobs" / job.job.key / "result.json"
            result = json.loads(path.read_text())
            result |= {"device": "cuda", "seconds": {"train": 7200.0, "shared": 0.0}, "users_per_second": 5.0}
            result["environment"]["gpu"] = "Some GPU"
            reseal(path, **result)
    ledger = Ledger.open(tmp_path / "ledger")
    mixed = results(ledger)
    rows = {row.label: row for row in mixed.rows[dataset_name(data)]}
    first = next(each for each in ledger.finished() if (each.job.label, each.job.seed) == ("adrec", 2025))
    assert (rows["adrec"].device, rows["adrec"].seeds, rows["adrec"].timed) == (cpu, 2, 1)
    assert rows["adrec"].seconds == sum(first.result["core_seconds"].values()), "of the seed on the CPU alone"
    assert rows["no noise"].device == "Some GPU" and not rows["no noise"].core_time
    assert rows["no noise"].seconds == 7200 and rows["no noise"].users_per_second == 5
    page = markdown(mixed)
    assert "hours of Some GPU of training in all" in page and "| Some GPU |" in page and "| on |" in page
    assert f"| {cpu}, 1 of 2 seeds |" in page
    assert mixed.hours["hours of Some GPU"] == pytest.approx(6), "three jobs of two hours"
    drawn = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in drawn:
        draw(mixed, path)
    assert drawn[0].read_text() == drawn[1].read_text(), "the same results are the same picture"
    assert "not drawn: 1 entry on a GPU" in drawn[0].read_text()


def test_results_without_a_validation_part_are_json(tmp_path: Path) -> None:
    table = cyclic_table(num_users=40)
    table.write_parquet(tmp_path / "mine.parquet")
    write_dataset(prepare(tmp_path / "mine.parquet", split="leave-one-out"), tmp_path / "mine")
    assert ran(tmp_path / "mine", tmp_path / "ledger", entries=[Entry("popular", "popular")])
    path = next((tmp_path / "ledger" / "jobs").glob("*/result.json"))
    reseal(path, validation={})  # as where the split has none
    found = results(Ledger.open(tmp_path / "ledger"))
    (row,) = found.rows["mine"]
    assert row.validation is None
    json.dumps(found.to_dict(), allow_nan=False)
    assert next(line for line in markdown(found).splitlines() if line.startswith("| popular |")).endswith("|  |")


def test_the_key_is_of_what_decides() -> None:
    job = Job("a", "f", "leave-one-out", "label", "adrec", {"preset": "default", "x": 1}, 1)
    again = Job("b", "f", "leave-one-out", "other", "adrec", {"preset": "published", "x": 1}, 1)
    assert job.key == again.key
    assert len({job.key, Job("a", "f", "leave-one-out", "label", "adrec", {"x": 2}, 1).key}) == 2
    trials = [Job("a", "f", "leave-one-out", "label", "adrec", {"x": 1}, 1, trial) for trial in (0, 3)]
    assert trials[0].key == trials[1].key != job.key


def test_grids(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        '[popular]\n[small]\nmodel = "adrec"\npreset = "published"\nseeds = 3\nset = { hidden_size = 64 }\n'
    )
    popular, published = read_grid(path)
    assert popular.model == "popular"
    assert published.config().to_dict()["model"]["hidden_size"] == 64
    assert published.config().to_dict()["model"]["padding_class"]
    assert [entry.preset for entry in parse_models("adrec@published, popular")] == ["published", "default"]
    for text, message in (
        ("[adrec]\nsets = {}\n", "adrec has no key 'sets' .did you mean 'set'"),
        ("[adrec]\nset = { hiden_size = 3 }\n", "adrec: there is no configuration key 'hiden_size'"),
        ("[x]\nmodel = 'adrek'\n", "no model 'adrek' .did you mean 'adrec'"),
        ("[adrec]\nsearch = { dropout = 3 }\n", "must be a list of values, or"),
        ("[adrec]\nsearch = { model.positions = ['none', 'rotry'] }\n", "adrec: model.positions must be one of"),
        ("[adrec]\nsearch = { dropout = { low = 0.1, high = 1.5 } }\n", "model.dropout must be in .0, 1."),
        ("[adrec]\nset = { model.hiden_size = 3 }\n", "no configuration key 'model.hiden_size' .did you mean"),
        ("[adrec]\nset = { 'model.dropout' = 0.3, model.dropout = 0.2 }\n", "the key 'model.dropout' is set twice"),
        ("a = 3\n", "'a' stands outside an entry"),
        ("[adrec", "is not TOML"),
        ("", "has no entry"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_grid(path)


def test_an_entry_of_a_grid_is_like_another_but_for_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        "[plain]\nmodel = 'adrec'\npreset = 'paper'\nseeds = 3\nset = { model.dropout = 0.3, hidden_size = 64 }\n"
        "search = { batch_size = [32, 64] }\n"
        "[wide]\nlike = 'plain'\nset = { model.hidden_size = 256 }\nsearch = { finetune.epochs = [3, 5] }\n"
        "[once]\nlike = 'wide'\nseeds = 1\nset = { dropout = 0.1 }\n"
    )
    plain, wide, once = read_grid(path)
    assert (wide.label, wide.model, wide.preset, wide.seeds, once.seeds) == ("wide", "adrec", "paper", 3, 1)
    assert wide.search == {"batch_size": [32, 64], "finetune.epochs": [3, 5]}
    assert "finetune.epochs" not in plain.search
    networks = [entry.config().to_dict()["model"] for entry in (plain, wide, once)]
    assert [(each["hidden_size"], each["dropout"]) for each in networks] == [(64, 0.3), (256, 0.3), (256, 0.1)]
    path.write_text(
        "[adrec]\nset = { model.dropout = 0.3 }\nsearch = { batch_size = [32, 64] }\n"
        "[b]\nlike = 'adrec'\nset = { dropout = 0.5 }\nsearch = { hidden_size = [64, 128], finetune.epochs = [3, 5] }\n"
        "[c]\nlike = 'b'\nset = { model.dropout = 0.1, model.hidden_size = 32 }\n"
        "[d]\nlike = 'c'\nsearch = {}\n"
    )
    _, b, c, d = read_grid(path)  # short and full keys are the same keys
    assert b.changes == {"model.dropout": 0.5}
    assert set(b.search) == {"batch_size", "model.hidden_size", "finetune.epochs"}
    assert c.changes == {"model.dropout": 0.1, "model.hidden_size": 32}
    assert set(c.search) == {"batch_size", "finetune.epochs"}
    assert d.changes == c.changes and d.search == {}
    for text, message in (
        (
            "[adrec]\n[a]\nlike = 'adrec'\nmodel = 'sasrec'\n",
            "a has the model of 'adrec', which it is like",
        ),
        ("[a]\nlike = 'adrec'\n[adrec]\n", "a is to be like 'adrec', and no entry above it is called so"),
        ("[adrec]\n[a]\nlike = 'adrek'\n", "called so .did you mean 'adrec'"),
        ("[adrec]\n[a]\nlike = 3\n", "like of a should be a text; it is 3"),
        ("[popular]\n[a]\nlike = 'popular'\nset = { hidden_size = 3 }\n", "a: there is no configuration key"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_grid(path)


def test_seeds_are_computed_apart_unless_they_wait_for_tuning(tmp_path: Path) -> None:
    fixed = Series(tmp_path, Entry("popular", "popular"), (2025, 2026))
    assert [part.seeds for part in fixed.apart()] == [(2025,), (2026,)]
    searched = Series(tmp_path, Entry("a", "adrec", search={"model.dropout": [0.1, 0.2]}), (2025, 2026), trials=2)
    assert list(searched.apart()) == [searched]
    assert len(list(replace(searched, trials=0).apart())) == 2


def test_keys_of_a_grid_need_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    search = "{ model.dropout = [0.1, 0.2], finetune.learning_rate = { low = 1e-4, high = 1e-2, log = true } }"
    path.write_text(f"[adrec]\nset = {{ finetune.epochs = 3, batch_size = 32 }}\nsearch = {search}\n")
    (plain,) = read_grid(path)
    assert plain.changes == {"finetune.epochs": 3, "batch_size": 32}
    assert plain.search == {
        "model.dropout": [0.1, 0.2],
        "finetune.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    }


@pytest.mark.slow
def test_as_commands(data: Path, tmp_path: Path) -> None:
    sets = ", ".join(f'"{key}" = {json.dumps(value)}' for key, value in SMALL.items())
    (tmp_path / "grid.toml").write_text(f'[popular]\n[adrec]\npreset = "paper"\nset = {{ {sets} }}\n')
    command = ("benchmark", "cyclic", "--grid", "grid.toml", "--out", "ledger")
    dry = adrec(*command, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0 and "waiting" in dry.stdout and not (tmp_path / "ledger" / "jobs").exists()
    assert "nothing is tuned" not in dry.stderr
    (tmp_path / "search.toml").write_text("[popular]\n[adrec]\nsearch = { model.dropout = [0.1, 0.2] }\n")
    for trials, said in ((0, True), (2, False)):
        tuned = adrec(*command[:3], "search.toml", *command[4:], "--trials", str(trials), "--dry-run", cwd=tmp_path)
        assert tuned.returncode == 0
        assert ("--trials is 0, so nothing is tuned: the search of 'adrec' is left out." in tuned.stderr) == said
    idle = adrec(*command, "--trials", "2", "--dry-run", cwd=tmp_path)
    assert "--trials 2 tunes nothing: no entry has a search" in idle.stderr
    done = adrec(*command, "--processes", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Complete" in done.stderr and "ndcg@20" in done.stdout
    shown = adrec(
        "results", "ledger", "--out", "r.md", "--out", "r.tex", "--out", "r.json", "--out", "r.png", cwd=tmp_path
    )
    assert shown.returncode == 0, shown.stderr
    assert " ".join(shown.stderr.split()) == "Wrote r.md, r.tex, r.json, r.png."
    assert (tmp_path / "r.png").stat().st_size > 10_000
    assert "| adrec |" in (tmp_path / "r.md").read_text()
    (tmp_path / "one.toml").write_text("[popular]\n")
    (tmp_path / "words.md").write_text("# Ours\n\nWhat we found.\n")
    few = adrec(*("results", "ledger", "--grid", "one.toml", "--preface", "words.md", "--out", "few.md"), cwd=tmp_path)
    page = (tmp_path / "few.md").read_text()
    assert few.returncode == 0 and page.startswith("# Ours\n\nWhat we found.\n\nWritten by"), few.stderr
    assert "| popular |" in page and "adrec |" not in page
    assert "ifferences" not in page and "ifferences" not in few.stdout, "one entry differs from none"
    own = adrec("benchmark", "cyclic", "--grid", "one.toml", "--out", "ledger", cwd=tmp_path)
    assert "popular" in own.stdout and "adrec" not in own.stdout, "what is shown is what was asked for"
    table = pl.read_parquet(next((tmp_path / "ledger" / "jobs").glob("*/ranks.parquet")))
    assert table.columns == ["rank", "rank_unseen"]
    for arguments, sentence in (
        (("benchmark", "cyclic", "--out", "l"), "needs --models or --grid"),
        ((*command, "--budget", "soon"), "--budget takes a time such as 90s, 30m or 6h"),
        (("results", "cyclic"), "cyclic is a prepared data set; `adrec benchmark cyclic --out ledger`"),
        (("results", "ledger", "--metric", "ndgc@20"), "there is no metric 'ndgc@20'"),
        (("results", "ledger", "--preface", "none.md"), "--preface is what a .md page begins with"),
        (("results", "ledger", "--preface", "none.md", "--out", "r.md"), "--preface none.md cannot be read"),
        (("results", "ledger", "--grid", "tuned"), "no job of the grid in ledger has finished yet"),
    ):
        assert sentence in refused(*arguments, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes where Linux lists them")
def test_processes_end_with_the_benchmark_that_is_killed(data: Path, tmp_path: Path) -> None:
    changes = {key: value for key, value in SMALL.items() if "epochs" not in key}
    sets = ", ".join(f'"{key}" = {json.dumps(value)}' for key, value in changes.items())
    (tmp_path / "grid.toml").write_text(
        f'[adrec]\npreset = "paper"\nset = {{ {sets}, "finetune.epochs" = 5000, "finetune.schedule" = "constant", '
        '"finetune.patience" = 0 }\n'
    )
    process = start(
        *("benchmark", "cyclic", "--grid", "grid.toml", "--out", "ledger", "--seeds", "2", "--processes", "2"),
        cwd=tmp_path,
    )
    until(lambda: len(list((tmp_path / "ledger" / "work").glob("*/metrics.jsonl"))) == 2)  # both seeds at a time
    workers = descendants(process.pid)
    assert workers
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not any(lives(each) for each in workers))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stat(process: int) -> list[str]:
    """Return a process's state and its parent, and more; nothing where there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return []


def lives(process: int) -> bool:
    return stat(process)[:1] not in ([], ["Z"])


def descendants(process: int) -> list[int]:
    numbers = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]
    return [each for each in numbers if stat(each)[1:2] == [str(process)]]


def test_a_pruned_trial_never_wins(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its pre-training reached; and what is kept of it is its last stage's."""
    rows: list[Mapping[str, Any]] = []

    def watched(trial: Any, row: Mapping[str, Any], reported: set[int]) -> None:
        if trial.number == 1 and row["stage"] == "finetune":
            rows.append(row)
            raise tuning.PrunedError

    monkeypatch.setattr(tuning, "_watch", watched)
    entry = Entry("adrec", "adrec", "paper", changes=SMALL, search={"finetune.learning_rate": [1e-3, 1e-7]})
    assert ran(data, tmp_path / "ledger", entries=[entry], seeds=1, trials=2)
    finished = Ledger.open(tmp_path / "ledger").finished()
    pruned = [each for each in finished if each.result.get("pruned")]
    if pruned:  # the second trial may have proposed what the first one was
        (last,) = [row for row in pruned[0].result["curve"] if row["stage"] == "finetune"]
        assert last["validation"] == rows[0]["validation"]
        assert pruned[0].result["core_seconds"]["train"] > 0
    (final,) = [each for each in finished if each.job.trial is None]
    assert final.job.config["finetune"]["learning_rate"] == 1e-3


def test_a_first_trial_that_another_entry_gave_up_is_computed_to_its_end(data: Path, tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger")
    search = {"finetune.learning_rate": [1e-3, 1e-7]}
    ours = Entry("ours", "adrec", "paper", changes=SMALL, search=search)
    dataset = open_dataset(data)
    split = leave_one_out(dataset)
    ledger.add_dataset(dataset, split)
    series = Series(data, Entry("theirs", "adrec", "paper", changes=SMALL), (2025,), 2)
    ledger.keep(make_job(series, dataset, split, 2025, {}, 1), {"pruned": True, "curve": [], "seconds": {}})
    assert ran(data, tmp_path / "ledger", entries=[ours], seeds=1, trials=1)
    trial, final = sorted(ledger.finished(), key=lambda each: each.job.trial is None)
    assert (trial.job.label, trial.result.get("pruned")) == ("ours", None) and trial.result["validation"]
    assert final.job.label == "ours"


def test_trials_that_all_fail_end_their_series_alone(data: Path, tmp_path: Path) -> None:
    bad = Entry(
        "bad",
        "adrec",
        "paper",
        changes={**SMALL, "pretrain.learning_rate": 1e30},
        search={"align.learning_rate": [1e30, 1e29]},
    )
    assert not ran(data, tmp_path / "ledger", entries=[bad, *entries()], seeds=1, trials=2)
    finished = Ledger.open(tmp_path / "ledger").finished()
    assert {each.job.label for each in finished if not each.error} == {"popular", "adrec", "no noise"}
    assert {each.job.label for each in finished if each.error} == {"bad"}


def test_whatever_a_model_raises_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr("adrec.models.baselines.popularity.Popularity.fit", broken)
    assert not ran(data, tmp_path / "ledger", entries=entries()[:2], seeds=1)
    assert list(results(Ledger.open(tmp_path / "ledger")).failed.values()) == ["ValueError: no such thing"]


def test_one_model_under_two_names_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'a' and 'b' are the same model"):
        ran(data, tmp_path / "ledger", entries=[Entry("a", "popular"), Entry("b", "popular")])
