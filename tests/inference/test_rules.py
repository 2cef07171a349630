"""Rules of what may be recommended, against a slow list made by hand; and scores of given pairs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adrec import ADRec
from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.prepare import prepare
from adrec.inference.recommender import Recommender
from adrec.inference.rules import Rules
from adrec.nn.scores import Table
from adrec.utils.errors import ConfigError, DataError
from command import adrec, refused

DAY = 86400
PEOPLE, ITEMS = ("ann", "bob", "cy"), tuple("abcdefgh")
ROWS = [
    *[("ann", item, 1_600_000_000 + day * DAY) for item, day in (("a", 0), ("b", 40), ("c", 59))],
    *[("bob", item, 1_600_000_000 + day * DAY) for item, day in (("b", 10), ("d", 50), ("e", 60))],
    *[("cy", item, 1_600_000_000 + day * DAY) for item, day in (("f", 5), ("g", 6), ("h", 7))],
]


class Distinct:
    """Scores that differ for every last item and item."""

    num_items, max_length, ranks_padding, item_vectors = len(ITEMS), 3, False, None

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.table = torch.from_numpy(np.stack([rng.permutation(9) for _ in range(9)]).astype(np.float32))

    def __call__(self, batch: PackedBatch) -> Table:
        return Table(self.table[batch.items[batch.cu_seqlens[1:] - 1]])


def data(**options: Any) -> Dataset:
    return prepare(pl.DataFrame(ROWS, schema=["user", "item", "time"], orient="row"), **options)


def recommender(**options: Any) -> Recommender:
    return Recommender(Distinct(), data(seen="keep", **options))


def expected(
    person: str,
    k: int,
    seen: str,
    days: int | None,
    allow: set[str] | dict[str, set[str]] | None,
    block: set[str] | dict[str, set[str]] | None,
    categories: dict[str, str],
    most: int | None,
) -> list[str]:
    """Go through the items from the best to the worst, and leave out what a rule forbids."""
    dataset, table = data(), Distinct().table
    history = [(item, time) for user, item, time in ROWS if user == person]
    last = int(dataset.catalogue.encode([history[-1][0]])[0]) + 1
    ranked = sorted(ITEMS, key=lambda item: -float(table[last, int(dataset.catalogue.encode([item])[0]) + 1]))
    end, found, counts = max(time for *_, time in ROWS), list[str](), dict[str, int]()
    for item in ranked:
        times = [time for other, time in history if other == item]
        if seen == "leave-out" and times:
            continue
        if days is not None and any(time >= end - days * DAY for time in times):
            continue
        if allow is not None and item not in (allow.get(person, set()) if isinstance(allow, dict) else allow):
            continue
        if block is not None and item in (block.get(person, set()) if isinstance(block, dict) else block):
            continue
        category = categories.get(item)
        if most is not None and category is not None and counts.get(category, 0) == most:
            continue
        counts[category or item] = counts.get(category or item, 0) + 1
        found.append(item)
    return found[:k]


items = st.sets(st.sampled_from(ITEMS), min_size=1)
listed = st.none() | items | st.dictionaries(st.sampled_from(PEOPLE), items, min_size=1)


def as_rule(rule: Any) -> Any:
    if isinstance(rule, dict):
        pairs = [(person, item) for person, some in rule.items() for item in sorted(some)]
        return pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    return None if rule is None else sorted(rule)


@given(
    st.integers(1, 8),
    st.sampled_from(["keep", "leave-out"]),
    st.none() | st.sampled_from([1, 20, 60]),
    listed,
    listed,
    st.none()
    | st.tuples(st.dictionaries(st.sampled_from(ITEMS), st.sampled_from("xy"), min_size=1), st.integers(1, 3)),
)
def test_rules_together(k: int, seen: str, days: int | None, allow: Any, block: Any, caps: Any) -> None:
    rules: Rules = {"items": as_rule(allow), "exclude": as_rule(block)}
    if days is None:
        rules["seen"] = seen  # type: ignore[typeddict-item]
    else:
        rules["seen_within"], seen = f"{days}d", "keep"
    kinds, most = caps or ({}, None)
    if caps:
        rules |= {"categories": kinds, "per_category": most}
    try:
        table = recommender().for_users(k=k, **rules).table
    except DataError as error:
        assert "leave nothing to recommend" in str(error)
        assert isinstance(block, set) or isinstance(allow, set)
        table = pl.DataFrame(schema=["user", "item", "rank"])
    for person in PEOPLE:
        own = table.filter(pl.col("user") == person)
        assert own["item"].to_list() == expected(person, k, seen, days, allow, block, kinds, most)
        assert own["rank"].to_list() == list(range(1, own.height + 1))


def test_more_candidates_are_taken_until_the_lists_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adrec.inference.categories.FEWEST", 1)
    monkeypatch.setattr("adrec.inference.categories.TIMES", 1)
    monkeypatch.setattr("adrec.inference.scorer.MORE", 2)
    categories = {item: "x" if item != "h" else "y" for item in ITEMS}
    table = recommender().for_users(["ann"], 2, categories=categories, per_category=1).table
    assert table["item"].to_list() == expected("ann", 2, "keep", None, None, None, categories, 1)


def test_missing_categories_are_none() -> None:
    categories = {**dict.fromkeys("abcd", float("nan")), "e": None, "f": "x", "g": "x"}
    table = recommender().for_users(["ann"], 8, categories=categories, per_category=np.int64(1)).table  # type: ignore[typeddict-item]
    assert len({"f", "g"} & set(table["item"])) == 1 and table.height == 7


def test_rules_hold_for_people_without_a_known_history() -> None:
    people = pl.Series(["zoe", "yan"])
    block = pl.DataFrame({"user": ["zoe"], "item": ["b"]})
    table = recommender().for_histories([[], []], 1, people=people, exclude=block).table
    assert table["source"].to_list() == ["popular"] * 2
    assert table["item"].to_list() == ["a", "b"], "b is the most popular, a the first of the others"
    capped = recommender().for_histories([[]], 3, categories=dict.fromkeys("abc", "x"), per_category=1).table
    assert capped["item"].to_list() == ["b", "f", "g"]


def test_rules_per_user_name_users_of_the_rows() -> None:
    allow = pl.DataFrame({"user": ["zoe", "yan", "yan"], "item": ["a", "b", "c"]})
    found = recommender().for_histories([["d"], ["d"]], 3, people=pl.Series(["zoe", "yan"]), items=allow)
    assert [set(found.table.filter(pl.col("history") == row)["item"]) for row in (0, 1)] == [{"a"}, {"b", "c"}]
    assert found.notes == ("2 histories cannot get 3 items: nothing else may be recommended.",)
    twice = recommender().for_users(["cy", "ann", "cy"], 1, items=pl.DataFrame({"user": ["ann"], "item": ["h"]})).table
    assert twice["user"].to_list() == ["ann"], "cy has no list, so nothing may be recommended"
    named_twice = recommender().for_users(["cy", "ann", "cy"], 1).table
    assert named_twice["user"].to_list() == ["cy", "ann"]


def test_strangers_in_a_list_are_noted() -> None:
    block = pl.DataFrame({"user": ["ann", "ane", "bob"], "item": ["a", "a", "a"]})
    assert recommender().for_users(["ann"], 2, exclude=block).notes == (
        "not in the data: 1 user of the excluded items, 'ane'.",
    )
    found = recommender().for_histories([["d"]], 2, people=pl.Series(["ane"]), exclude=block)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"seen_within": "soon"}, "'soon' is no span of time"),
        ({"seen_within": "0d"}, "give one above 0"),
        ({"seen_within": timedelta(days=-1)}, "give one above 0"),
        ({"seen_within": "3d", "seen": "keep"}, "exclude each other"),
        ({"per_category": 1}, "go together"),
        ({"categories": {"a": "x"}}, "go together"),
        ({"categories": {"a": "x"}, "per_category": 0}, "at least 1; it is 0"),
        ({"categories": {"q": "x"}, "per_category": 1}, "no item of categories is in the catalogue"),
        ({"exclud": ["a"]}, "no rule 'exclud' (did you mean 'exclude'?)"),
    ],
)
def test_rules_that_cannot_be(rules: Any, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        recommender().for_users(**rules)
    assert said.replace(" (did", "; did") in str(raised.value).replace(" (did", "; did")


def test_rules_that_the_data_have_not() -> None:
    with pytest.raises(ConfigError, match="only give an order"):
        recommender(time_unit="none").for_users(seen_within="3d")
    with pytest.raises(ConfigError, match="needs the times of the histories"):
        recommender().for_histories([["a"]], seen_within="3d")
    with pytest.raises(ConfigError, match="a column of users, and these histories have none"):
        recommender().for_histories([["a"]], items=pl.DataFrame({"user": ["ann"], "item": ["a"]}))


def test_scores_of_pairs_are_those_that_rank(dataset: Dataset) -> None:
    model = ADRec(model="itemknn").fit(dataset)
    best = model.recommend(users=["user 3", "user 1"], k=4, seen="keep")
    pairs = best.select("user_id", "item_id").sample(fraction=1, shuffle=True, seed=1)
    found = model.score(pairs)
    assert found.select("user_id", "item_id").equals(pairs)
    joined = found.join(best, on=["user_id", "item_id"], suffix="_listed")
    assert np.allclose(joined["score"], joined["score_listed"])
    with pytest.warns(UserWarning, match="2 pairs without a score"):
        unknown = model.score(pl.DataFrame({"user": ["nobody", "user 1"], "item": ["item 1", "nothing"]}))
    assert unknown["score"].to_list() == [None, None]


def test_on_the_command_line(tmp_path: Path) -> None:
    table = pl.DataFrame(ROWS, schema=["customer", "product", "bought_at"], orient="row")
    table.write_csv(tmp_path / "orders.csv")
    assert adrec("prepare", "orders.csv", "--out", "data", "--seen", "keep", cwd=tmp_path).returncode == 0
    assert adrec("train", "data", "--out", "run", "--model", "popular", cwd=tmp_path).returncode == 0
    (tmp_path / "block.csv").write_text("customer,product\nann,b\n")
    (tmp_path / "products.csv").write_text("product,title,kind\na,Apple,fruit\nb,Beet,root\nd,Date,fruit\n")
    shown = adrec(
        *("recommend", "run", "--user", "ann", "--k", "3"),
        *("--block", "block.csv", "--seen-within", "10d", "--attributes", "products.csv", "--names", "title"),
        *("--category", "kind", "--per-category", "1", "--format", "csv"),
        cwd=tmp_path,
    )
    assert shown.returncode == 0, shown.stderr
    assert "note: 2 items without a name in products.csv." in shown.stderr
    found = pl.read_csv(shown.stdout.encode())
    assert found.columns[:3] == ["customer", "product", "name"]
    assert found.height == 3
    assert not {"b", "c"} & set(found["product"]), "b is blocked, c is two days old"
    assert not {"a", "d"} <= set(found["product"]), "both are fruit"
    names = {"a": "Apple", "d": "Date"}
    assert all(name == names.get(product) for product, name in found.select("product", "name").iter_rows())
    (tmp_path / "pairs.csv").write_text("user,item\nann,b\nann,q\n")
    scored = adrec("score", "run", "--pairs", "pairs.csv", "--format", "csv", cwd=tmp_path)
    assert scored.stdout.splitlines() == ["customer,product,score", "ann,b,1.0", "ann,q,"]
    assert scored.stderr.startswith("note: 1 pair without a score")
    (tmp_path / "odd.csv").write_text("product,region\nb,north\n")
    for arguments, said in (
        (("--allow", "odd.csv"), "odd.csv has the column 'region', which means nothing here"),
        (("--names", "title"), "--names is a column of --attributes"),
        (("--attributes", "products.csv"), "--attributes alone means nothing"),
        (("--given", "a", "--block", "block.csv"), "these histories have none"),
    ):
        assert said in refused("recommend", "run", *arguments, cwd=tmp_path)
