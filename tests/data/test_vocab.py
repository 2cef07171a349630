"""Ids and numbers: order of first appearance, unknown ids, texts against integers, and the file between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrec.data.vocab import Vocabulary
from adrec.utils.errors import DataError

INTEGERS = Vocabulary.from_column(pl.Series([30, 10, 30, -2]))
TEXTS = Vocabulary.from_column(pl.Series(["b", "10", "007", "b"]))


def test_ids_are_in_order_of_first_appearance() -> None:
    assert INTEGERS.ids.to_list() == [30, 10, -2]
    assert TEXTS.ids.to_list() == ["b", "10", "007"]
    assert len(INTEGERS) == 3


@pytest.mark.parametrize(
    ("vocabulary", "values", "expected"),
    [
        (INTEGERS, [10, 99, 30], [1, -1, 0]),
        (INTEGERS, ["10", "-2", "010", "+10", " 10", "x", "", "１０"], [1, 2, -1, -1, -1, -1, -1, -1]),
        (INTEGERS, [10.0, 10.5, None, True, 2**70, str(2**70)], [1, -1, -1, -1, -1, -1]),
        (INTEGERS, np.array([-2, 10], dtype=np.int32), [2, 1]),
        (INTEGERS, pl.Series(["30", None]), [0, -1]),
        (INTEGERS, pl.Series([30, 7], dtype=pl.UInt64), [0, -1]),
        (TEXTS, [10, "10", 7, "007", None], [1, 1, -1, 2, -1]),
        (TEXTS, pl.Series(["b", "?"], dtype=pl.Categorical), [0, -1]),
        (TEXTS, [], []),
    ],
)
def test_encode(vocabulary: Vocabulary, values: Any, expected: list[int]) -> None:
    numbers = vocabulary.encode(values)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == expected


@settings(deadline=None)
@given(st.lists(st.text(min_size=1) | st.integers(-(2**63), 2**63 - 1).map(str), min_size=1, max_size=20))
def test_encode_equals_a_dictionary_and_decode_undoes_it(ids: list[str]) -> None:
    vocabulary = Vocabulary.from_column(pl.Series(ids))
    index = {own: number for number, own in enumerate(dict.fromkeys(ids))}
    numbers = vocabulary.encode(ids)
    assert numbers.tolist() == [index[own] for own in ids]
    assert vocabulary.decode(numbers).to_list() == ids


@pytest.mark.parametrize("vocabulary", [INTEGERS, TEXTS])
def test_file(tmp_path: Path, vocabulary: Vocabulary) -> None:
    vocabulary.write(tmp_path / "ids.parquet")
    assert pl.read_parquet(tmp_path / "ids.parquet").columns == ["id"]
    assert Vocabulary.read(tmp_path / "ids.parquet").ids.equals(vocabulary.ids, check_dtypes=True)


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "ids.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"ids\.parquet"):
        Vocabulary.read(tmp_path / "ids.parquet")
