"""Lists beside a data set: which column is which, where the data set's table had names of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from adrec.data.lists import read_histories, read_ids, read_recommendations
from adrec.utils.errors import DataError

OWN = {"user": "customer", "item": "article", "time": "bought"}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.csv"
    path.write_text(text)
    return path


def test_own_names_go_before_usual_ones(tmp_path: Path) -> None:
    path = written(tmp_path, "customer,user,article,item,bought,time\nann,u,a,i,2,1\nann,u,b,j,1,2\n")
    people, histories = read_histories(path, OWN)
    assert (people.to_list(), histories) == (["ann"], [["b", "a"]])
    people, histories = read_histories(path)
    assert (people.to_list(), histories) == (["u"], [["i", "j"]])


def test_usual_names_are_known_where_own_ones_are_not_all_there(tmp_path: Path) -> None:
    """A table of recommendations as this program writes it, of a data set that recommends people to people."""
    path = written(tmp_path, "user,item,rank\nann,bob,1\nann,eve,2\n")
    table = read_recommendations(path, {"user": "follower", "item": "user"})
    assert (table["user"].to_list(), table["item"].to_list()) == (["ann", "ann"], ["bob", "eve"])
    swapped = written(tmp_path, "user_id,item_id\nann,bob\n")
    for names in ({"user": "item_id", "item": "sku"}, {"item": "user_id"}):
        people, histories = read_histories(swapped, names)
        assert (people.to_list(), histories) == (["ann"], [["bob"]])


def test_a_column_has_one_role(tmp_path: Path) -> None:
    path = written(tmp_path, "user,rank\nann,1\n")
    with pytest.raises(DataError, match="'user' cannot be both the user and the item"):
        read_recommendations(path, {"user": "user", "item": "user"})


def test_what_is_missing_is_told_by_both_names(tmp_path: Path) -> None:
    path = written(tmp_path, "kunde\nann\n")
    with pytest.raises(
        DataError, match="rename one to user_id, or to 'customer', as it was when the data was prepared"
    ):
        read_ids(path, "user", OWN)
