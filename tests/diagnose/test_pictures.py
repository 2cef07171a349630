"""Pictures of embedding spaces: valid files, the same again, coloured by an attribute, with whatever is known."""

from __future__ import annotations

import struct
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from adrec.diagnose.attributes import PALETTE, Attribute, colouring
from adrec.diagnose.curves import medians, norm_points, popularity_ticks, spectra
from adrec.diagnose.diagnosis import Diagnosed, Space, diagnose
from adrec.diagnose.maps import Map, draw_maps
from adrec.diagnose.pictures import write_pictures
from adrec.utils.errors import ConfigError, DataError
from diagnose.spaces import known, space

NAMES = ["maps", "spectrum", "norms", "cosines"]


@pytest.fixture(scope="module")
def two() -> list[Diagnosed]:
    return [diagnose(each) for each in (known("one"), known("costs $5 & <more>", seed=3))]


@pytest.fixture(scope="module")
def two_maps(two: list[Diagnosed]) -> list[Map]:
    return draw_maps([each.space for each in two])


def test_files_of_both_kinds(two: list[Diagnosed], two_maps: list[Map], tmp_path: Path) -> None:
    attribute = [Attribute("kind $", [None, *(f"kind ${k % 11} & <b>" for k in range(39))])] * 2
    files = write_pictures(two, tmp_path / "new", kinds=(".png", ".svg"), attribute=attribute, maps=two_maps)
    assert files == [tmp_path / "new" / (name + kind) for name in NAMES for kind in (".png", ".svg")]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in files)
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".svg":
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
            assert min(struct.unpack(">II", content[16:24])) > 200
    again = write_pictures(two, tmp_path / "again", kinds=(".svg",), attribute=attribute, maps=two_maps)
    assert all(path.read_bytes() == (tmp_path / "new" / path.name).read_bytes() for path in again)


def test_where_little_is_known(two: list[Diagnosed], tmp_path: Path) -> None:
    (tmp_path / "norms.png").write_bytes(b"of an earlier call")
    (tmp_path / "other.png").write_bytes(b"not ours")
    files = write_pictures([diagnose(space(n=5, size=9))], tmp_path)
    assert [path.name for path in files] == ["maps.png", "spectrum.png", "cosines.png"]
    assert not (tmp_path / "norms.png").exists()
    assert (tmp_path / "other.png").read_bytes() == b"not ours"


def test_no_other_ending(two: list[Diagnosed], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot end in \.bmp; take one of \.png, \.svg"):
        write_pictures(two, tmp_path / "new", kinds=(".bmp",))
    assert not (tmp_path / "new").exists()


def test_the_most_frequent_values_have_the_colours() -> None:
    values = [f"v{k}" for k in range(10) for _ in range(20 - k)]
    found = colouring([Attribute("a", values), Attribute("a", ["v3", None] * 50)], [len(values), 100])
    assert found.labels == ("v3", "v0", "v1", "v2", "v4", "v5", "v6", "v7")
    assert len(found.labels) == len(PALETTE)
    assert found.rest == "other or unknown"
    assert found.rows[1].tolist() == [0, -1] * 50
    assert [found.values[row] for row in found.rows[0]] == values
    assert colouring([Attribute("a", ["x", "y"])], [2]).rest == ""
    with pytest.raises(DataError, match=r"the attribute has \[2\] values for spaces of \[3\] items"):
        colouring([Attribute("a", ["x", "y"])], [3])


def test_spectra_have_their_references(two: list[Diagnosed]) -> None:
    curves = spectra(two)
    assert [(each.label, each.dash, each.colour) for each in curves] == [
        ("one", "solid", 0),
        ("costs $5 & <more>", "solid", 1),
        ("gaussian", "dashed", None),
        ("shuffled of one", "dotted", 0),
        ("stage 1 of one", "dash-dot", 0),
        ("shuffled of costs $5 & <more>", "dotted", 1),
        ("stage 1 of costs $5 & <more>", "dash-dot", 1),
    ]
    assert all(each.values.mean() == pytest.approx(1) for each in curves)
    other_shape = spectra([diagnose(each) for each in (space("a"), space("b", n=30))])
    assert [each.label for each in other_shape if each.colour is None] == ["gaussian, 40 x 6", "gaussian, 30 x 6"]


def test_norms_and_popularity_by_hand() -> None:
    own = Space("s", np.array([[3, 4], [1, 0], [0, 2]], np.float32), popularity=np.array([100, 0, 1]))
    x, y = norm_points(own, np.array([0, 1, 2]))
    assert x == pytest.approx([2, np.log10(0.5), 0])
    assert y.tolist() == [5, 1, 2]
    assert [label for _, label in popularity_ticks(x)] == ["0", "1", "3", "10", "30", "100"]
    places, middles = medians(np.repeat([1.0, 2], [40, 20]), np.repeat([0.0, 4, 8, 9], [15, 10, 15, 20]))
    assert (places.tolist(), middles.tolist()) == ([1, 2], [4, 9])
