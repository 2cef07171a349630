"""Another program's recommendations are ranked as our own are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out, make_split
from adrec.evaluate.protocol import evaluate
from adrec.evaluate.tables import evaluate_table
from adrec.inference.recommender import Recommender
from adrec.models.baselines.popularity import Popularity
from adrec.utils.errors import DataError


def test_our_own_table_gets_our_own_metrics(dataset: Dataset, tmp_path: Path) -> None:
    """A table of every item by distinct scores, made by hand, has the ranks that the model itself has."""
    split = leave_one_out(dataset)
    scores = np.random.default_rng(0).permutation(dataset.num_items) + 1.0
    users = pl.DataFrame({"user": dataset.users.ids})
    table = users.join(pl.DataFrame({"item": dataset.catalogue.ids}), how="cross", maintain_order="left_right")
    table = table.with_columns(score=pl.Series(np.tile(scores, dataset.num_users)))
    table.sample(fraction=1, shuffle=True, seed=1).write_csv(tmp_path / "all.csv")
    found, notes = evaluate_table(tmp_path / "all.csv", dataset, split, cutoffs=(2, 5))
    items = dataset.items[split.test.positions] - 1
    expected = 1 + (scores[None, :] > scores[items][:, None]).sum(1)
    assert found.ranks["rank"].to_list() == expected.tolist()
    assert not found.filter_seen
    seen = sum(len(np.unique(dataset.history(user)[:-1])) for user in split.test.users)
    share = seen / (len(split.test.users) * dataset.num_items)
    assert notes == (f"{share:.1%} of what test users are recommended is of their own history.",)


def test_a_recommendation_of_ours_agrees_with_our_evaluation(dataset: Dataset, tmp_path: Path) -> None:
    split = leave_one_out(dataset)
    popular = Popularity()
    popular.fit(dataset, split)
    popular.counts = popular.counts + torch_ramp(dataset.num_items)  # no ties
    made = []
    for user, position in zip(split.test.users, split.test.positions, strict=True):
        history = dataset.items[dataset.offsets[user] : position]
        ids = dataset.catalogue.decode(history.astype(np.int64) - 1).to_list()
        result = Recommender(popular, dataset).for_histories([ids], 4).table
        result = result.rename({dataset.info.named("item"): "item"})
        made.append(result.with_columns(user=pl.lit(dataset.users.decode(np.array([user]))[0])))
    pl.concat(made).select("user", "item", "rank").write_parquet(tmp_path / "ours.parquet")
    found, _ = evaluate_table(tmp_path / "ours.parquet", dataset, split, cutoffs=(2, 4))
    ours = evaluate(popular, dataset, split, cutoffs=(2, 4), seen="leave-out")
    assert found.filter_seen
    assert found.metrics == ours.metrics
    assert found.coverage == ours.coverage


def torch_ramp(num_items: int) -> object:
    """Return small distinct numbers by item number."""
    import torch

    return torch.arange(num_items + 1) / 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,rank\nuser 0,item 1,1\nuser 0,item 1,2\n", "line 3 recommends 'item 1' to 'user 0' twice"),
        (
            "user,item,rank\nuser 0,item 1,1\nuser 1,item 1,1\nuser 0,item 2,1\n",
            "line 4 gives 'user 0' the rank 1 twice",
        ),
        ("", "bad.csv is empty; give a table with rows"),
        ("user,item,rank\nnobody,item 1,1\n", "1 unknown user such as 'nobody'"),
        ("user,item,rank\nuser 0,item 1,\n", "column 'rank': None is not a whole number from 1"),
        ("user,item,rank\nuser 0,item 1,0.5\n", "is not a whole number from 1"),
        ("user,item,score\nuser 0,item 1,high\n", "column 'score': 'high' is not a number"),
        ("user,item\nuser 0,item 1\n", "neither a column 'rank' nor 'score'"),
        ("user,item,rank\nuser 0,item 1,1\n", "has at most 1 item for a user, so metrics at 2 cannot be measured"),
    ],
)
def test_bad_tables(dataset: Dataset, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        evaluate_table(tmp_path / "bad.csv", dataset, leave_one_out(dataset), cutoffs=(2,))


def test_who_is_not_served_counts_as_missed_and_ties_count_against(dataset: Dataset, tmp_path: Path) -> None:
    split = leave_one_out(dataset)
    wanted = dataset.catalogue.decode(np.array([dataset.items[split.test.positions[0]] - 1], dtype=np.int64))[0]
    rows = [f"user 0,{wanted},1.0", "user 0,elsewhere,1.0"]
    (tmp_path / "few.csv").write_text("\n".join(["user,item,score", *rows]) + "\n")
    assert dataset.users.decode(split.test.users[:1])[0] == "user 0"
    found, notes = evaluate_table(tmp_path / "few.csv", dataset, split, cutoffs=(1, 2))
    assert found.ranks["rank"][0] == 2, "two items with one score: the held-out one is second"
    assert found.metrics["hr@2"].mean == pytest.approx(1 / len(split.test.users))
    assert "59 test users without a recommendation" in notes[0]
    assert notes[1] == "100.0% of the rows have the score of another item of their user: ties count against it."
    assert notes[2].startswith("1 item of the table")


def test_short_lists_and_seen_items_are_told(tmp_path: Path) -> None:
    """How many are served less than the metrics ask for, and which share of the table is of their own history."""
    table = pl.DataFrame({"user": list("aaaabbbb"), "item": list("pqrspqrs"), "time": [*range(4), *range(4)]})
    data = prepare(table)
    (tmp_path / "t.csv").write_text("user,item,rank\na,p,1\na,s,2\nb,r,1\n")
    found, notes = evaluate_table(tmp_path / "t.csv", data, make_split(data, None), cutoffs=(1, 2))
    assert not found.filter_seen
    assert notes == (
        "1 test user with fewer than 2 items: what is not there is missed.",
        "66.7% of what test users are recommended is of their own history.",
    )


def test_a_table_of_a_model_that_knew_what_is_held_out_is_told(dataset: Dataset, tmp_path: Path) -> None:
    """Recommending from all interactions leaves out as seen the very items that are asked for."""
    split = leave_one_out(dataset)
    model = Popularity()
    model.fit(dataset, make_split(dataset, "none"))
    made = Recommender(model, dataset).for_users(k=5)
    made.table.write_csv(tmp_path / "t.csv")
    found, notes = evaluate_table(tmp_path / "t.csv", dataset, split, cutoffs=(5,))
    assert found.metrics["hr@5"].mean == 0
    assert notes[-1].startswith("no test user is recommended what was held out: if the table was made")


def test_a_list_serves_all_held_out_items_of_a_user(tmp_path: Path) -> None:
    """A later held-out item is none of the history that the list may leave out."""
    table = pl.DataFrame({"user": ["a"] * 5 + ["b"] * 5, "item": list("pqrstpqrst"), "time": [*range(5), *range(5)]})
    data = prepare(table, split="ratio:0.6,0,0.4")
    split = make_split(data, None)
    (tmp_path / "t.csv").write_text("user,item,rank\na,s,1\na,t,2\nb,s,1\nb,t,2\n")
    found, notes = evaluate_table(tmp_path / "t.csv", data, split, cutoffs=(1, 2))
    assert any(note.startswith("2 held-out items beyond a user's first: one list serves all of them") for note in notes)
    assert found.filter_seen and found.metrics["hr@2"].mean == 1 and found.metrics["hr@1"].mean == 0.5
    (tmp_path / "t.csv").write_text("user,item,rank\na,p,1\na,t,2\n")
    assert not evaluate_table(tmp_path / "t.csv", data, split, cutoffs=(1, 2))[0].filter_seen


def test_who_is_missed_is_missed_in_a_small_catalogue_too(tmp_path: Path) -> None:
    """A cut-off above the number of items reaches every item of the ranking, and none that is not in it."""
    table = pl.DataFrame({"user": list("aaaabbbb"), "item": list("pqrspqrs"), "time": [*range(4), *range(4)]})
    data = prepare(table)
    split = make_split(data, None)
    (tmp_path / "t.csv").write_text("user,item,rank\na,p,1\na,q,2\na,r,3\na,s,4\nb,p,1\nb,q,2\nb,r,3\n")
    found, _ = evaluate_table(tmp_path / "t.csv", data, split, cutoffs=(20,))
    assert found.metrics["hr@20"].mean == 0.5, "s is held out of both, and recommended to one"
    repeats = prepare(table.with_columns(item=pl.Series(list("pqsspqrs"))))
    popular = Popularity()
    popular.fit(repeats, make_split(repeats, None))
    ours = evaluate(popular, repeats, make_split(repeats, None), cutoffs=(20,), seen="leave-out")
    assert (ours.num_repeats, ours.metrics["hr@20"].mean) == (1, 0.5), "a's s is in its history"


def test_a_rank_that_is_left_out_is_taken_all_the_same(tmp_path: Path) -> None:
    table = pl.DataFrame({"user": list("aaaabbbb"), "item": list("pqrspqrs"), "time": [*range(4), *range(4)]})
    data = prepare(table)
    (tmp_path / "t.csv").write_text("user,item,rank\na,p,1\na,s,3\nb,s,2\n")
    found, notes = evaluate_table(tmp_path / "t.csv", data, make_split(data, None), cutoffs=(1, 2))
    assert found.ranks["rank"].to_list() == [3, 2]
    assert "2 test users with ranks left out: nothing moves up to them." in notes


def test_a_table_that_was_made_with_the_answers_is_told(dataset: Dataset, tmp_path: Path) -> None:
    split = leave_one_out(dataset)
    users = dataset.users.decode(split.test.users)
    answers = dataset.catalogue.decode(dataset.items[split.test.positions].astype(np.int64) - 1)
    assert len(users) >= 20
    pl.DataFrame({"user": users, "item": answers, "rank": 1}).write_csv(tmp_path / "known.csv")
    _, notes = evaluate_table(tmp_path / "known.csv", dataset, split, cutoffs=(1,))
    assert notes[0].startswith("HR@1 is 1.00: such a table can only have been made with the answers")


def test_a_table_without_a_known_item_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    users = pl.DataFrame({"user": dataset.users.ids, "item": "no such item", "rank": 1})
    users.write_csv(tmp_path / "foreign.csv")
    with pytest.raises(DataError, match=r"no item of foreign\.csv, such as 'no such item', is in the catalogue"):
        evaluate_table(tmp_path / "foreign.csv", dataset, leave_one_out(dataset), cutoffs=(1,))


def test_an_evaluation_is_a_table_in_notebooks(dataset: Dataset) -> None:
    popular = Popularity()
    popular.fit(dataset, leave_one_out(dataset))
    found = evaluate(popular, dataset, leave_one_out(dataset), cutoffs=(5,))
    assert found.table().columns == ["metric", "mean", "low", "high"]
    assert found.table()["metric"].to_list() == ["hr@5", "ndcg@5", "mrr@5"]
    assert "test part of leave-one-out, 60 users" in found._repr_html_() and "<table" in found._repr_html_()
