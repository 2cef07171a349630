"""Sealed JSON: every change of a value, a key or the digest is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrec.utils.errors import RunError
from adrec.utils.sealed import digest_of, read_json, read_sealed, write_sealed

VALUES = {"a": 1, "b": [1.5, None, "x"], "c": {"d": True}, "e": 0.1}


@pytest.mark.parametrize(
    "change",
    [{"a": 2}, {"a": 1.0}, {"a": True}, {"b": [1.5, None]}, {"c": {}}, {"f": 1}, {"digest": "0"}, {"e": 0.1000001}],
    ids=str,
)
def test_every_change_is_found(tmp_path: Path, change: dict[str, Any]) -> None:
    write_sealed(tmp_path / "v.json", VALUES)
    assert read_sealed(tmp_path / "v.json", RunError, "mend it") == VALUES
    written = json.loads((tmp_path / "v.json").read_text())
    (tmp_path / "v.json").write_text(json.dumps({**written, **change}))
    with pytest.raises(RunError, match=r"v.json was altered after it was written: .*; mend it\."):
        read_sealed(tmp_path / "v.json", RunError, "mend it")
    del written["a"]
    (tmp_path / "v.json").write_text(json.dumps(written))
    with pytest.raises(RunError, match="was altered"):
        read_sealed(tmp_path / "v.json", RunError, "mend it")


def test_the_order_of_keys_and_spaces_do_not_count(tmp_path: Path) -> None:
    write_sealed(tmp_path / "v.json", VALUES)
    written = json.loads((tmp_path / "v.json").read_text())
    (tmp_path / "v.json").write_text(json.dumps(dict(reversed(written.items()))))
    assert read_sealed(tmp_path / "v.json", RunError, "mend it") == VALUES


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_a_digest_survives_writing_and_reading(value: Any) -> None:
    assert digest_of(json.loads(json.dumps(value))) == digest_of(value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"nul", b'{"a": 1' + b"0" * 5000 + b"}"],
    ids=["empty", "half", "a list", "no text", "deep", "deep objects", "a word", "a long number"],
)
def test_what_is_no_object_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.json").write_bytes(content)
    with pytest.raises(RunError, match=r"v.json (cannot be read as JSON|does not hold a JSON object); mend it\."):
        read_json(tmp_path / "v.json", RunError, "mend it")
    with pytest.raises(RunError, match="w.json is missing; mend it"):
        read_json(tmp_path / "w.json", RunError, "mend it")
