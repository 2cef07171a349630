"""The HTML report: all there is, nothing from elsewhere, and no id can break out of its place."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from adrec.diagnose import verdict
from adrec.diagnose.attributes import Attribute
from adrec.diagnose.charts import ticks
from adrec.diagnose.diagnosis import Space, diagnose
from adrec.diagnose.maps import PCA, TSNE, draw_maps
from adrec.diagnose.measure_table import number, shown
from adrec.diagnose.measures import DEFINITIONS, Value
from adrec.diagnose.report import page
from adrec.train import bounds
from diagnose.spaces import known, space

VOID = {"meta", "input", "br", "line", "rect", "path", "polyline"}
HOSTILE = [
    '</script><script>alert("x")</script>',
    "<!--<script>",
    "&amp;'\"",
    "<img src=x onerror=alert(1)>",
    "日本\u2028",
]


class Page(HTMLParser):
    """The elements of a page: each is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def shown(self) -> str:
        return " ".join(text for tag, text in self.texts if tag not in ("script", "style"))

    def data(self) -> dict:
        scripts = [text for tag, text in self.texts if tag == "script"]
        return json.loads(scripts[0])


@pytest.fixture(scope="module")
def hostile() -> str:
    ids = [*HOSTILE, *(f"item {k}" for k in range(35))]
    spaces = [known("plain", ids=ids), known(HOSTILE[0], seed=2, ids=ids), known(HOSTILE[3], seed=4, ids=ids)]
    attribute = [Attribute("<i>kind", [None, *HOSTILE, *(f"kind {k % 9}" for k in range(34))])] * 3
    return page([diagnose(each) for each in spaces], attribute=attribute)


def test_everything_is_there(hostile: str) -> None:
    found = Page(hostile)
    said = found.shown()
    for definition in DEFINITIONS.values():
        assert definition.title in said
        assert definition.meaning in said
        assert definition.source in said
    for part in ("plain", "gaussian", "shuffled", "stage 1", "ndcg@10", "0.0213", "as published"):
        assert part in said
    for bound in (bounds.STRUCTURE, bounds.RANK, verdict.FADED):
        assert f"{bound:.0%}" in said
    badges = [attrs for _, attrs in found.tags if (attrs.get("class") or "").startswith("badge")]
    assert len(badges) == 3
    assert sum(tag == "canvas" for tag, _ in found.tags) == 4
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_and_nothing_breaks_out(hostile: str) -> None:
    assert "http:" not in hostile
    assert "https:" not in hostile
    assert not re.search(r"@import|url\(", hostile)
    found = Page(hostile)
    assert not any({"src", "href"}.intersection(attrs) for _, attrs in found.tags)
    assert not any(name.startswith("on") for _, attrs in found.tags for name in attrs)
    assert sum(tag == "script" for tag, _ in found.tags) == 2
    assert not any(tag in ("img", "i") for tag, _ in found.tags)
    assert HOSTILE[0] in found.shown()  # as text
    assert "<i>kind" in found.shown()


def test_data_of_the_maps(hostile: str) -> None:
    data = Page(hostile).data()
    assert [each["name"] for each in data["maps"]] == ["plain", HOSTILE[0], HOSTILE[3], "gaussian"]
    first, second, _, random = data["maps"]
    assert data["arrays"][first["ids"]][: len(HOSTILE)] == HOSTILE
    assert second["ids"] == first["ids"]  # once for all
    assert (random["ids"], random["counts"], random["values"]) == (None, None, None)
    assert data["methods"] == [TSNE, PCA]
    for each in data["maps"]:
        for method in data["methods"]:
            assert len(each["at"][method]) == 80
            assert all(0 <= place <= data["scale"] for place in each["at"][method])
            assert all(re.fullmatch(r"(M-?\d[\d L-]*Z ?)+", path) for path in each["contours"][method])
    values = data["arrays"][first["values"]]
    assert values[0] == -1
    assert data["values"][values[1]] == HOSTILE[0]


def test_values_of_an_attribute_that_are_on_no_map_are_left_out() -> None:
    diagnosed = [diagnose(space(n=30))]
    attribute = [Attribute("title", [None, *(f"common {k % 4}" for k in range(20)), *(f"own {k}" for k in range(9))])]
    maps = draw_maps([diagnosed[0].space], most=12)
    data = Page(page(diagnosed, attribute=attribute, maps=maps)).data()
    rows = maps[0].rows
    told = [data["values"][k] if k >= 0 else None for k in data["arrays"][data["maps"][0]["values"]]]
    assert told == [attribute[0].values[row] for row in rows]
    assert data["values"][:8] == ["common 0", "common 1", "common 2", "common 3", "own 0", "own 1", "own 2", "own 3"]
    assert set(data["values"][8:]) == {each for each in told if each is not None} - set(data["values"][:8])


def test_an_attribute_that_nobody_knows() -> None:
    found = Page(page([diagnose(space(n=12))], attribute=[Attribute("title", [None] * 12)]))
    assert found.data()["values"] == []
    assert "unknown" in found.shown()


def test_the_same_again() -> None:
    diagnosed = [diagnose(space(n=20))]
    assert page(diagnosed) == page(diagnosed)
    assert page(diagnosed) != page(diagnosed, seed=1)


def test_where_little_is_known() -> None:
    own = space(n=30).embedding
    own[:, 3:] = 2
    few = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    few[4] = 0
    for embedding in (own, few):
        found = Page(page([diagnose(Space("bare", embedding))]))
        assert found.data()["maps"][0]["counts"] is None
        assert found.data()["arrays"][0][1] == "row 1"
        assert "Norm and popularity:" not in found.shown()
        assert "stage 1 what" not in found.shown()
        assert "–" in found.shown()


def test_spaces_with_different_knowledge() -> None:
    found = Page(page([diagnose(each) for each in (space("bare"), known("known", n=25))]))
    assert "Norm and popularity: known" in found.shown()
    assert "Norm and popularity: bare" not in found.shown()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.18, "0.180"),
        (25.0, "25"),
        (1234.5, "1,234"),
        (-0.000508, "-0.000508"),
        (36.94, "36.9"),
        (3e-7, "3.00e-07"),
        (float("-inf"), "-∞"),
    ],
)
def test_numbers(value: float, said: str) -> None:
    assert number(value) == said


def test_errors_of_sampling() -> None:
    assert shown(Value(0.603148, 0.00008)) == '0.60315 <span class="error">± 0.00008</span>'
    assert shown(Value(2.5, 0.0)) == "2.50"
    assert shown(Value(None)) == "–"


@pytest.mark.parametrize(("least", "most"), [(0, 4.4), (-0.21, 0.38), (1, 128), (0, 0), (0, 1e-7)])
def test_ticks_are_round_and_inside(least: float, most: float) -> None:
    found = ticks(least, most)
    assert 1 <= len(found) <= 8
    assert all(least - 1e-9 <= at <= most + 1e-9 for at, _ in found)
    assert len({label for _, label in found}) == len(found)
