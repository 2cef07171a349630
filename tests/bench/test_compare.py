"""Which model to use: the verdict from values by user, and the whole command on a table."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from filelock import FileLock
from rich.console import Console

from adrec.bench.compare import CONTENDERS, Memory, compare, fitted
from adrec.bench.grid import Entry
from adrec.bench.ledger import Finished, Job, Ledger
from adrec.bench.report import Setting, page
from adrec.bench.verdict import Contender, verdict
from adrec.config.base import TrainingConfig
from adrec.data.dataset import Dataset, open_dataset, write_dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.evaluate.protocol import evaluate
from adrec.evaluate.significance import paired_difference
from adrec.models.registry import find_model
from command import adrec, refused
from conftest import cyclic_table

RNG = np.random.default_rng(0)
BASE = (RNG.random(2000) < 0.1) * 1.0


def contender(model: str, values: np.ndarray) -> Contender:
    job = Job("data", "f", "leave-one-out", model, model, {}, 1)
    network = model in ("adrec", "cam", "sasrec+")
    return Contender(model, values, 10.0, 1000.0, is_network=network, cut=False, finished=Finished(job, {}, Path()))


def test_a_clear_winner() -> None:
    better = np.maximum(BASE, RNG.random(2000) < 0.1)
    found = verdict([contender("popular", BASE), contender("adrec", better)])
    assert found.chosen.model == "adrec"
    assert found.sentences[0].startswith("Use adrec: of the 2 that were tested it ranks best, with ndcg@20 ")
    assert "Against popular" in found.sentences[1] and ", sure" in found.sentences[1]


def test_what_is_not_surely_worse_and_simpler_is_enough() -> None:
    little = BASE.copy()
    little[np.flatnonzero(BASE == 0)[:1]] = 1
    popular = (RNG.random(2000) < 0.01) * 1.0
    found = verdict([contender("popular", popular), contender("itemknn", BASE), contender("adrec", little)])
    assert found.chosen.model == "itemknn" and found.best.model == "adrec"
    assert found.sentences[0].startswith("itemknn is enough")
    assert any("Against adrec" in each and "not sure" in each for each in found.sentences)
    gain = paired_difference(little, BASE).estimate.high
    assert f"or a gain of up to {100 * gain:.2f} points (in 95 of 100 cases)." in found.sentences[0]
    assert found.sentences[0].endswith("Of the 2 that only count, which cost next to nothing, it ranks best.")
    alone = verdict([contender("itemknn", BASE), contender("adrec", little)]).sentences[0]
    assert "only count" not in alone


def test_who_counts_better_and_is_beaten_by_a_network_is_not_passed_over_in_words() -> None:
    places = np.arange(2000)
    drawn = [
        contender("popular", ((places >= 1000) & (places < 1180)) * 1.0),  # hits others: by chance no worse than adrec
        contender("itemknn", (places < 185) * 1.0),  # hits the same users as adrec but for some: surely worse
        contender("adrec", (places < 200) * 1.0),
    ]
    found = verdict(drawn)
    assert found.chosen.model == "popular" and found.chosen.mean < drawn[1].mean
    assert found.sentences[0].startswith("popular is enough") and "only count" not in found.sentences[0]


def test_of_those_that_count_the_best_is_enough() -> None:
    """All of them cost next to nothing: to take the first that is not surely beaten would gain nothing."""
    more, most = BASE.copy(), BASE.copy()
    more[np.flatnonzero(BASE == 0)[:2]] = 1
    most[np.flatnonzero(BASE == 0)[:4]] = 1
    drawn = [contender("popular", BASE * 0), contender("markov", BASE), contender("itemknn", more)]
    found = verdict([*drawn, contender("sasrec+", most), contender("adrec", most)])
    assert found.chosen.model == "itemknn"
    assert "Against markov" in found.sentences[2] and "not sure" in found.sentences[2]
    clear = np.maximum(BASE, RNG.random(2000) < 0.1)
    found = verdict([*drawn, contender("sasrec+", clear), contender("adrec", clear)])
    assert found.chosen.model == "sasrec+", "of networks that are alike the simpler one"


def test_training_that_the_budget_ended_is_told() -> None:
    cut = replace(contender("adrec", BASE + 0.1), cut=True)
    assert "The budget, not validation" in verdict([contender("popular", BASE), cut]).sentences[-1]
    clear = verdict([replace(contender("sasrec+", BASE * 0.5), cut=True), contender("adrec", BASE)])
    assert "Against sasrec+ (" in clear.sentences[1] and ", whose training the budget ended)" in clear.sentences[1]


ADREC, CAM = (Entry(name, *CONTENDERS[name]) for name in ("adrec", "cam"))


def test_the_last_stage_keeps_its_epochs_and_the_others_as_few_as_time_allows(dataset: Dataset) -> None:
    """The deadline or validation ends the last stage; a stage before it is not validated."""
    split = leave_one_out(dataset)
    assert set(fitted(ADREC, dataset, split, 600.0, seed=1).changes) == {"batch_size"}
    short = fitted(ADREC, dataset, split, 0.01, seed=1)
    config, whole = short.config(), ADREC.config()
    assert isinstance(config, TrainingConfig) and isinstance(whole, TrainingConfig)
    assert {name: stage.epochs for name, stage in config.stages.items()} == {
        "pretrain": 0,
        "align": 1,
        "finetune": whole.stages["finetune"].epochs,
    }
    assert (short.label, short.preset) == ("adrec", "default")


@pytest.mark.parametrize(("users", "expected"), [(300, 16), (1_000, 64), (20, 8)])
def test_few_users_are_trained_on_in_smaller_batches(users: int, expected: int) -> None:
    """In batches of 512 an epoch would be one step, and patience would end SASRec+ before it has learnt anything."""
    few = prepare(cyclic_table(users, 12))
    config = fitted(Entry("sasrec+", "sasrec+"), few, leave_one_out(few), 600.0, seed=1).config()
    assert isinstance(config, TrainingConfig) and config.batch_size == expected
    assert config.stages == Entry("sasrec+", "sasrec+").config().stages  # type: ignore[attr-defined]


def test_who_cannot_be_trained_is_told_by_the_job() -> None:
    """One training interaction each: what counts can learn from that, and the comparison goes on with it."""
    short = prepare(pl.DataFrame({"user": list("abcd") * 3, "item": list("pqrspqrsqrsp"), "time": list(range(12))}))
    entry = Entry("sasrec+", "sasrec+")
    assert fitted(entry, short, leave_one_out(short), 600.0, seed=1) == entry


@pytest.mark.slow
def test_enough_users_are_trained_on_as_everywhere() -> None:
    many = prepare(cyclic_table(700, 12))
    for entry in (ADREC, CAM):
        assert fitted(entry, many, leave_one_out(many), 600.0, seed=1) == entry


def test_a_short_time_is_for_the_fast_preset() -> None:
    """A few epochs of `cam` would rank worse than as many seconds of `fast`; SASRec+ has no other preset."""
    many = prepare(cyclic_table(700, 12))
    split = leave_one_out(many)
    short = fitted(CAM, many, split, 0.01, seed=1)
    assert (short.label, short.preset, short.changes) == ("cam (fast)", "fast", {})
    assert fitted(Entry("sasrec+", "sasrec+"), many, split, 0.01, seed=1).preset == "default"


def test_long_histories_are_split_by_tokens_already() -> None:
    """The tokens of a step of `fast` leave enough steps: a smaller batch_size would do away with them."""
    rows = [(f"user {user}", f"item {(user + step) % 120}", step) for user in range(300) for step in range(90)]
    long = prepare(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"))
    entry = Entry("cam (fast)", "adrec", "fast")
    assert fitted(entry, long, leave_one_out(long), 600.0, seed=1) == entry


def test_one_that_was_tested_alone_is_not_the_best_of_anything() -> None:
    assert verdict([contender("adrec", BASE)]).sentences[0] == "Use adrec: nothing else was tested."


@pytest.mark.slow
def test_as_a_command(tmp_path: Path) -> None:
    cyclic_table(num_users=200, num_items=40).write_csv(tmp_path / "mine.csv")
    done = adrec("compare", "mine.csv", "--out", "c", "--budget", "60s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        ("Use ", *(f"{name} is enough" for name in CONTENDERS)),
    )
    page = (tmp_path / "c" / "report.html").read_text()
    assert "Which model for mine?" in page and "http" not in page.replace("http-equiv", "")
    again = adrec("compare", "mine.csv", "--out", "c", "--budget", "60s", cwd=tmp_path)
    assert again.stdout == done.stdout
    chosen = json.loads((tmp_path / "c" / "run" / "run.json").read_text())
    assert chosen["finished"]
    refit = adrec("refit", "c/run", "--out", "c/final", cwd=tmp_path)
    assert refit.returncode == 0, refit.stderr
    assert adrec("recommend", "c/final", "--user", "user 0", cwd=tmp_path).returncode == 0
    with FileLock(tmp_path / "c" / ".lock"):
        busy = refused("compare", "mine.csv", "--out", "c", "--budget", "60s", cwd=tmp_path)
    (tmp_path / "new").mkdir()
    with FileLock(tmp_path / "new" / ".lock"):
        assert "is at work in new" in refused("compare", "mine.csv", "--out", "new", "--budget", "60s", cwd=tmp_path)
        assert [each.name for each in (tmp_path / "new").iterdir()] == [".lock"], "nothing is written before the lock"
    assert "another adrec compare is at work in c; wait for it, or name a new --out" in busy


def test_one_comparison_a_folder(tmp_path: Path) -> None:
    cyclic_table(num_users=20).write_csv(tmp_path / "mine.csv")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    assert "full is not empty" in refused("compare", "mine.csv", "--out", "full", cwd=tmp_path)
    assert "mine.csv is a file, not a folder" in refused("compare", "mine.csv", "--out", "mine.csv", cwd=tmp_path)
    assert "more than no time" in refused("compare", "mine.csv", "--budget", "0s", cwd=tmp_path)
    assert "there is no table" in refused("compare", "none.csv", "--out", "c", cwd=tmp_path)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "comparison.json").write_text("{}")
    assert "c compares another table" in refused("compare", "mine.csv", "--out", "c", cwd=tmp_path)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
def test_columns_of_other_names(tmp_path: Path) -> None:
    table = cyclic_table(num_users=20)
    table.columns = ["who", "what", "when"]
    table.write_csv(tmp_path / "mine.tsv.csv")
    with (tmp_path / "mine.tsv.csv").open("a") as file:
        file.write("somebody,,5\n")
    assert "adrec compare FOLDER" in refused("compare", "mine.tsv.csv", cwd=tmp_path)
    assert "wh0" in refused("compare", "mine.tsv.csv", "--user", "wh0", cwd=tmp_path)
    assert not (tmp_path / "mine-compare").exists(), "what was refused leaves nothing in the way"
    named = ("--user", "who", "--item", "what", "--time", "when")
    done = adrec("compare", "mine.tsv.csv", *named, "--budget", "3s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine-compare" / "report.html").exists(), "the folder has a name of its own by default"
    assert "Next: adrec train" not in done.stderr + done.stdout
    assert "somebody" in (tmp_path / "mine-compare.rejected.jsonl").read_text(), "no row is lost"
    assert "with other options" in refused("compare", "mine.tsv.csv", cwd=tmp_path)
    again = refused("compare", "mine-compare/data", "--user", "who", "--out", "d", cwd=tmp_path)
    assert "is prepared already, so --user means nothing here" in again


def test_a_plan_holds_for_its_budget(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "plan.json", 60.0, 1)
    assert memory.entry("cam") is None
    memory.keep("cam", Entry("cam (fast)", "adrec", "fast", {"finetune.epochs": 3}))
    again = Memory(tmp_path / "plan.json", 60.0, 1).entry("cam")
    assert again is not None and again.changes == {"finetune.epochs": 3}
    assert (again.label, again.preset) == ("cam (fast)", "fast")
    assert memory.entry("popular") is None
    assert Memory(tmp_path / "plan.json", 600.0, 1).entry("cam") is None


@pytest.mark.slow
def test_who_runs_out_of_time_is_tested_with_what_there_is(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimates that promise too much lose nobody; a larger budget trains again what the smaller one cut."""
    write_dataset(dataset, tmp_path / "data")
    monkeypatch.setattr("adrec.bench.compare.fitted", lambda entry, *_: entry)  # as if every epoch fitted
    console = Console(quiet=True)
    _, contenders, missing = compare(open_dataset(tmp_path / "data"), tmp_path / "c", budget=0.5, console=console)
    tested = {each.model: each for each in contenders}
    assert tested["sasrec+"].cut
    assert len(missing) == len({"cam", "adrec"} - set(tested))
    ledger = Ledger.open(tmp_path / "c" / "ledger")
    stages = {each.job.model: each.result["stages"] for each in ledger.finished()}
    assert stages["sasrec+"][-1]["cut"]
    told = Console(record=True, width=200, quiet=False, file=io.StringIO())
    again = compare(open_dataset(tmp_path / "data"), tmp_path / "c", budget=4.0, console=told)[1]
    assert "was compared with another budget or seed" in told.export_text()
    assert sum(each.seconds for each in again) > sum(each.seconds for each in contenders)


@pytest.mark.slow
def test_what_others_leave_of_their_time_goes_to_who_needs_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own share would have ended sasrec+; nobody else trains, so that it goes on until validation ends it."""
    write_dataset(dataset, tmp_path / "data")
    two = {name: CONTENDERS[name] for name in ("popular", "sasrec+")}
    monkeypatch.setattr("adrec.bench.compare.CONTENDERS", two)
    monkeypatch.setattr("adrec.bench.compare.SHARE", {"sasrec+": 1e-4})
    data, quiet = open_dataset(tmp_path / "data"), Console(quiet=True)
    _, contenders, missing = compare(data, tmp_path / "c", budget=600.0, console=quiet)
    assert not missing
    (trained,) = (each for each in contenders if each.model == "sasrec+")
    assert not trained.cut
    assert trained.finished.result["stages"][-1]["epochs"] > 1


@pytest.mark.parametrize("seen", ["keep", "leave-out"])
def test_models_are_judged_as_the_data_treat_seen_items(
    seen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Selection, ranks, coverage and words; a user's own items are a contender where they may be recommended."""
    dataset = prepare(cyclic_table(60, 8), seen=seen)
    write_dataset(dataset, tmp_path / "data")
    counting = {name: CONTENDERS[name] for name in ("popular", "personal", "markov")}
    monkeypatch.setattr("adrec.bench.compare.CONTENDERS", counting)
    data = open_dataset(tmp_path / "data")
    found, contenders, missing = compare(data, tmp_path / "c", budget=60.0, console=Console(quiet=True))
    assert not missing and {each.model for each in contenders} == {*counting} - (
        {"personal"} if seen != "keep" else set()
    )
    for each in contenders:
        model = find_model(each.model)()
        model.fit(data, leave_one_out(data))
        expected = evaluate(model, data, leave_one_out(data), cutoffs=(20,))
        assert expected.filter_seen is (seen == "leave-out")
        assert each.mean == pytest.approx(expected.metrics["ndcg@20"].mean)
        assert each.finished.result["recommended"]["coverage"] == pytest.approx(expected.coverage)
    words = "items of the history left out" if seen == "leave-out" else "items of the history ranked too"
    assert words in found.sentences[0]
    setting = Setting(leave_one_out(data).test.users, 2025, 60.0)
    shown = page(data.info, found, contenders, [], "adrec refit", setting)
    kind = "unseen" if seen == "leave-out" else "all"
    best = max(contenders, key=lambda each: each.mean)
    assert "seed 2025, a budget of 60" in shown and "Seen items left out" in shown and "Seen items ranked too" in shown
    assert words in shown and f"{100 * best.finished.result['test'][kind]['hr@10']:.2f}" in shown


@pytest.mark.slow
def test_nobody_surely_beats_what_is_chosen_and_nothing_contradicts_it() -> None:
    rng = np.random.default_rng(4)
    for _ in range(25):
        shares = rng.uniform(0.08, 0.16, size=4)
        drawn = [contender(name, (rng.random(400) < share) * 1.0) for name, share in zip("abcd", shares, strict=True)]
        found = verdict(drawn)
        for name, each in found.differences.items():
            other = next(one for one in drawn if one.model == name)
            assert not (other.mean > found.chosen.mean and each.p < 0.05)
            assert found.together[name] >= each.p
            (said,) = (line for line in found.sentences if line.startswith(f"Against {name} "))
            clear = each.estimate.low > 0 or each.estimate.high < 0
            if abs(each.p - 0.05) > 0.02:  # an interval and a test alone say the same, but for the very border
                assert clear == ("may be chance" not in said), said
            assert (", sure (" in said) == (found.together[name] < 0.05)
        doubts = [name for name, p in found.together.items() if p >= 0.05]
        if found.chosen is found.best:
            assert ("is not sure on these 400 users" in found.sentences[0]) == bool(doubts)


def test_what_is_likely_is_used_and_told_to_be_no_more() -> None:
    """A gain that would be clear alone is not told to be chance because many models were compared."""
    likely = BASE.copy()
    likely[np.flatnonzero(BASE == 1)[:3]], likely[np.flatnonzero(BASE == 0)[:12]] = 0, 1
    drawn = [contender(name, BASE) for name in ("markov", "itemknn", "sasrec+")]
    found = verdict([contender("popular", BASE * 0), *drawn, contender("adrec", likely)])
    assert found.chosen.model == "adrec"
    doubtful = [name for name, p in found.together.items() if p >= 0.05 > found.differences[name].p]
    assert doubtful == ["markov", "itemknn", "sasrec+"]
    assert found.sentences[0].endswith("That it beats markov and itemknn and sasrec+ is not sure on these 2,000 users.")
    for name in doubtful:
        (said,) = (line for line in found.sentences if line.startswith(f"Against {name} "))
        assert f"likely, not sure (p = {found.differences[name].p:.2g} alone, " in said
        assert said.endswith(" among 10 comparisons).")


def test_whether_diffusion_pays_is_told() -> None:
    gained, lost = BASE.copy(), BASE.copy()
    gained[np.flatnonzero(BASE == 0)[:60]], lost[np.flatnonzero(BASE == 1)[:60]] = 1, 0
    for values, said in (
        (gained, ") ranks better than cam ("),
        (lost, ") ranks worse than cam ("),
        (BASE, ") ranks neither surely better nor surely worse than cam ("),
    ):
        found = verdict([contender("popular", BASE * 0), contender("cam", BASE), contender("adrec", values)])
        (sentence,) = (each for each in found.sentences if each.startswith("Diffusion: "))
        assert said in sentence and sentence.endswith("for 1.0 times the training time.")
        pair = paired_difference(values, BASE)
        low, high = 100 * pair.estimate.low, 100 * pair.estimate.high
        assert f"{low:+.2f} to {high:+.2f} points" in sentence
    alone = verdict([contender("cam (fast)", BASE), contender("adrec", BASE)])
    assert not any(each.startswith("Diffusion: ") for each in alone.sentences), "a narrower network is another one"
    cut = [contender("cam", BASE), replace(contender("adrec", BASE), cut=True)]
    assert any(each.endswith("Time ended the training of adrec.") for each in verdict(cut).sentences)


def test_bad_budgets(tmp_path: Path) -> None:
    cyclic_table(num_users=20).write_csv(tmp_path / "mine.csv")
    assert "--budget takes a time" in refused("compare", "mine.csv", "--out", "c", "--budget", "long", cwd=tmp_path)
