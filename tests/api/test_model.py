"""The Python interface: what the design promises, on real small training."""

from __future__ import annotations

import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from adrec import ADRec, open_dataset, prepare, write_dataset
from adrec.api.frames import ids
from adrec.utils.errors import ConfigError, DataError, RunError, UserError
from conftest import TINY, cyclic_table


def make(device: torch.device, max_epochs: int = 4) -> ADRec:
    return ADRec("paper", TINY, max_epochs=max_epochs, seed=3, device=str(device))


def alike(a: pl.DataFrame, b: pl.DataFrame, device: torch.device) -> bool:
    """Return whether two trained models answered the same; but for rounding where bits are not promised."""
    if device.type == "cpu":
        return a.equals(b)
    return a.shape == b.shape and bool((a["score"] - b["score"]).abs().max() < 0.01)


@pytest.fixture(scope="module")
def model(device: torch.device) -> ADRec:
    """Return a model that has learnt what follows what."""
    return make(device, 40).fit(cyclic_table())


def test_fit_recommends_in_the_given_kind_of_frame(device: torch.device) -> None:
    table = cyclic_table()
    kinds = {pl.DataFrame: table, pd.DataFrame: table.to_pandas(), pa.Table: table.to_arrow()}
    answers = []
    for kind, given in kinds.items():
        answer = make(device).fit(given).recommend(users=["user 1"], k=3)
        assert isinstance(answer, kind)
        answers.append(pl.DataFrame(answer if kind is not pd.DataFrame else pl.from_pandas(answer)))
    assert alike(answers[0], answers[1], device)
    assert alike(answers[0], answers[2], device)


def test_a_loaded_model_answers_in_the_kind_of_frame_that_is_asked_for(model: ADRec, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    assert isinstance(ADRec.load(tmp_path / "model").recommend(k=1), pl.DataFrame)
    assert isinstance(ADRec.load(tmp_path / "model", frame="pandas").recommend(k=1), pd.DataFrame)
    assert isinstance(ADRec.load(tmp_path / "model", frame="pyarrow").recommend(k=1), pa.Table)
    with pytest.raises(ConfigError, match="frame is one of polars, pandas, pyarrow; it is 'dask'"):
        ADRec.load(tmp_path / "model", frame="dask")  # type: ignore[arg-type]


def test_fit_reads_paths_and_prepared_data(tmp_path: Path, device: torch.device) -> None:
    table = cyclic_table()
    table.write_csv(tmp_path / "table.csv")
    write_dataset(prepare(table), tmp_path / "data")
    expected = make(device).fit(table).recommend(k=2)
    for source in (tmp_path / "table.csv", str(tmp_path / "data"), open_dataset(tmp_path / "data")):
        assert alike(make(device).fit(source).recommend(k=2), expected, device)


def test_an_option_of_the_model_given_to_fit_is_told_its_place(device: torch.device) -> None:
    with pytest.raises(ConfigError, match=r"max_epochs is an option of ADRec, not of fit: ADRec\(max_epochs=..\)"):
        make(device).fit(cyclic_table(), max_epochs=3)  # type: ignore[call-arg]


def test_it_recommends_what_follows(model: ADRec) -> None:
    answer = model.recommend(histories=[["item 3", "item 4", "item 5"], ["item 10", "item 11"]], k=1)
    assert answer["item_id"].to_list() == ["item 6", "item 0"]
    assert answer["history"].to_list() == [0, 1]


def test_integer_ids_stay_integers(device: torch.device) -> None:
    table = cyclic_table().with_columns(pl.col("user_id", "item_id").str.extract(r"(\d+)").cast(pl.Int64))
    answer = make(device).fit(table).recommend(users=[7], k=2)
    assert answer.schema["user_id"] == answer.schema["item_id"] == pl.Int64
    assert answer["user_id"].to_list() == [7, 7]


def test_save_and_load_answer_the_same(model: ADRec, tmp_path: Path, device: torch.device) -> None:
    model.save(tmp_path / "model")
    loaded = ADRec.load(tmp_path / "model", device=str(device))
    assert loaded.recommend(k=3).equals(model.recommend(k=3))
    assert loaded.similar_items(["item 1"]).equals(model.similar_items(["item 1"]))
    assert loaded.evaluate().metrics == model.evaluate().metrics
    assert loaded.config == model.config
    pandas_model = make(device, 1).fit(cyclic_table().to_pandas())
    pandas_model.save(tmp_path / "pandas")
    assert isinstance(ADRec.load(tmp_path / "pandas", device=str(device)).recommend(k=1), pd.DataFrame)
    (tmp_path / "model").rename(tmp_path / "moved")
    assert ADRec.load(tmp_path / "moved", device=str(device)).recommend(k=3).equals(model.recommend(k=3))


def test_saving_over_something_is_refused(model: ADRec, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    with pytest.raises(UserError, match="not empty"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", overwrite=True)


def test_batches_do_not_change_a_recommendation(model: ADRec) -> None:
    everybody = model.recommend(k=3)
    alone = model.recommend(users=["user 5"], k=3)
    same = everybody.filter(pl.col("user_id") == "user 5")
    assert alone["item_id"].equals(same["item_id"])
    assert (alone["score"] - same["score"]).abs().max() < 1e-4


def test_refit_uses_all_interactions(model: ADRec, device: torch.device) -> None:
    table = cyclic_table()
    final = make(device).fit(table).refit()
    last = pl.col("timestamp") == pl.col("timestamp").max().over("user_id")
    other = table.with_columns(item_id=pl.when(last).then(pl.lit("item 0")).otherwise("item_id"))
    other_answer, answer = (make(device).fit(each).similar_items(["item 1"]) for each in (other, table))
    assert alike(other_answer, answer, device)
    assert not make(device).fit(other).refit().similar_items(["item 1"]).equals(final.similar_items(["item 1"]))
    with pytest.raises(UserError, match="nothing held out"):
        final.evaluate()
    assert final.recommend(users=["user 1"], k=2).height == 2


def test_unknown_items_are_told_by_a_warning(model: ADRec) -> None:
    with pytest.warns(UserWarning, match="skipped 1 interaction with unknown items: 'item 99'"):
        model.recommend(histories=[["item 1", "item 99"]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.recommend(histories=[["item 1"]])


def test_ids_come_as_series_and_arrays(model: ADRec) -> None:
    expected = model.recommend(users=["user 1", "user 2"], k=2)
    series = pd.Series(["user 1", "user 2"])
    for users in (series, series.to_numpy(), pl.Series(series.tolist()), pa.array(series), iter(series)):
        assert model.recommend(users=users, k=2).equals(expected)


def test_evaluation_of_the_known_answer(model: ADRec) -> None:
    result = model.evaluate(cutoffs=(1, 5), seen="keep")
    assert result.metrics["hr@1"].mean > 0.8
    assert set(result.metrics) == {f"{kind}@{k}" for kind in ("hr", "ndcg", "mrr") for k in (1, 5)}
    with pytest.raises(ConfigError, match="did you mean 'validation'"):
        model.evaluate("validatoin")


class TestBadInput:
    def test_before_fit(self, device: torch.device) -> None:
        with pytest.raises(UserError, match="not trained yet"):
            make(device).recommend()

    def test_a_lone_id_is_no_list(self, model: ADRec) -> None:
        for lone in (np.int64(3), np.str_("item 3"), np.array("item 3"), date(2024, 1, 1)):
            with pytest.raises(ConfigError, match="a list of ids is expected"):
                ids(lone)
        with pytest.raises(ConfigError, match="a list of ids is expected"):
            model.recommend(users="user 1")  # type: ignore[arg-type]

    def test_users_and_histories(self, model: ADRec) -> None:
        with pytest.raises(ConfigError, match="not both"):
            model.recommend(users=["user 1"], histories=[["item 1"]])

    @pytest.mark.parametrize("seed", [-1, 2**63, 1.5])
    def test_seeds_that_are_none(self, seed: int) -> None:
        with pytest.raises(ConfigError, match="seed must be a whole number"):
            ADRec(seed=seed)

    def test_unknown_device(self) -> None:
        with pytest.raises(ConfigError, match="no device"):
            ADRec(device="abacus")

    def test_a_gpu_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        assert str(ADRec(device="cuda:0").device) == "cuda:0"
        with pytest.raises(ConfigError, match="'cuda:1' was asked for, but PyTorch finds 1 GPU here"):
            ADRec(device="cuda:1")

    def test_one_user_trains_and_recommends(self, device: torch.device) -> None:
        table = cyclic_table(num_users=1)
        assert make(device, 1).fit(table).recommend(k=2, seen="keep").height == 2

    def test_no_such_model(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="no run folder"):
            ADRec.load(tmp_path / "none")

    def test_a_model_without_its_data_names_it(self, model: ADRec, tmp_path: Path, device: torch.device) -> None:
        model.save(tmp_path / "model")
        (tmp_path / "model" / "data").rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match="give its path with --data"):
            ADRec.load(tmp_path / "model", device=str(device))
        assert ADRec.load(tmp_path / "model", data=tmp_path / "elsewhere", device=str(device)).recommend(k=1).height > 0


def test_a_saved_model_reads_its_own_data(tmp_path: Path, device: torch.device) -> None:
    """Also one that was loaded from elsewhere, and whose old data are gone or were replaced by newer ones."""
    table = cyclic_table()
    write_dataset(prepare(table), tmp_path / "data")
    make(device).fit(tmp_path / "data", run=tmp_path / "run")
    ADRec.load(tmp_path / "run", device=str(device)).save(tmp_path / "saved")
    newer = pl.concat([table, table.head(12).with_columns(user_id=pl.lit("new"))])
    write_dataset(prepare(newer, vocabulary=open_dataset(tmp_path / "data")), tmp_path / "newer")
    ADRec.load(tmp_path / "run", data=tmp_path / "newer").save(tmp_path / "later")
    (tmp_path / "data").rename(tmp_path / "moved")
    assert len(ADRec.load(tmp_path / "saved").recommend(users=["user 1"], k=2)) == 2
    assert set(ADRec.load(tmp_path / "later").recommend(users=["new"], k=2)["user_id"]) == {"new"}
