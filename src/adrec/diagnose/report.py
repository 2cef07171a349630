"""HTML report of a diagnosis, usable offline: verdicts, interactive maps, charts and all measures."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from adrec.diagnose import verdict
from adrec.diagnose.attributes import (
    GREY,
    GREY_ON_DARK,
    NOISE,
    NOISE_ON_DARK,
    ON_DARK,
    PALETTE,
    Attribute,
    Colouring,
    colouring,
)
from adrec.diagnose.charts import colour, cosines_chart, norms_chart, spectrum_chart
from adrec.diagnose.diagnosis import Diagnosed
from adrec.diagnose.maps import PCA, TSNE, Map, check_drawing, draw_maps
from adrec.diagnose.measure_table import measure_table
from adrec.diagnose.payload import payload
from adrec.diagnose.pictures import write_pictures
from adrec.train import bounds
from adrec.utils.files import write_bytes, write_json


def page(
    diagnosed: Sequence[Diagnosed],
    *,
    attribute: Sequence[Attribute] | None = None,
    seed: int = 0,
    maps: Sequence[Map] | None = None,
) -> str:
    """Return the whole page as HTML, which loads nothing from elsewhere.

    Args:
        diagnosed: one space at least.
        attribute: what maps are coloured by, one for each space.
        seed: of the maps.
        maps: what :func:`adrec.diagnose.maps.draw_maps` returned for these spaces, where that is at hand.

    Raises:
        DataError: where the attribute has not a value for each item.
        UserError: where scikit-learn or matplotlib is missing.
    """
    check_drawing()
    coloured = colouring(attribute, [len(each.space.embedding) for each in diagnosed]) if attribute else None
    maps = draw_maps([each.space for each in diagnosed], seed=seed) if maps is None else maps
    names = ", ".join(each.space.name for each in diagnosed)
    parts = [
        "<h1>Diagnosis of embedding collapse</h1>",
        _verdicts(diagnosed),
        _maps(maps, coloured),
        _charts(diagnosed, maps),
        "<h2>All measures</h2>",
        _references(diagnosed),
        measure_table(diagnosed),
        _bounds(),
        f'<script type="application/json" id="maps-data">{payload(diagnosed, maps, coloured)}</script>',
        f"<script>{_asset('page.js')}</script>",
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = html.escape(f"Diagnosis of embedding collapse: {names}")
    head += f"<title>{title}</title><style>{_asset('page.css')}{_colours()}</style>"
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def write_report(
    found: Sequence[Diagnosed],
    folder: Path,
    *,
    kinds: Sequence[str] = (".png",),
    attribute: Sequence[Attribute] | None = None,
    seed: int = 0,
) -> Path:
    """Write ``report.html``, ``diagnosis.json`` and the pictures into a folder; return the page's path.

    Raises as :func:`page` and :func:`adrec.diagnose.pictures.write_pictures`.
    """
    maps = draw_maps([each.space for each in found], seed=seed)
    write_pictures(found, folder, kinds=kinds, attribute=attribute, seed=seed, maps=maps)
    write_json(folder / "diagnosis.json", {each.space.name: each.to_dict() for each in found})
    path = folder / "report.html"
    write_bytes(path, page(found, attribute=attribute, seed=seed, maps=maps).encode())
    return path


def _asset(name: str) -> str:
    return files("adrec.diagnose").joinpath(name).read_text(encoding="utf-8")


def _colours() -> str:
    """Return the palette as variables of the style sheet, for light and dark, and a class for each."""
    names = [*(f"c{k}" for k in range(len(PALETTE))), "grey", "noise"]
    light, dark = (
        ";".join(f"--{name}:{each}" for name, each in zip(names, colours, strict=True))
        for colours in ((*PALETTE, GREY, NOISE), (*ON_DARK, GREY_ON_DARK, NOISE_ON_DARK))
    )
    classes = "".join(f".{name}{{color:var(--{name})}}" for name in (*names, "ink"))
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{classes}"


def _verdicts(diagnosed: Sequence[Diagnosed]) -> str:
    cards = []
    for each in diagnosed:
        found, measures = each.verdict, each.measures
        signs = f" · {', '.join(found.signs)}" if found.signs and found.state == "collapsed" else ""
        sentences = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in found.sentences)
        notes = "".join(f'<p class="soft">{html.escape(note)}</p>' for note in measures.notes)
        cards.append(
            f'<section class="card"><h3>{html.escape(each.space.name)}</h3>'
            f'<span class="badge {found.state}">{found.state}{signs}</span>'
            f'<p class="soft">{measures.items:,} items, {measures.size} dimensions</p>'
            f"{sentences}{notes}</section>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _maps(maps: Sequence[Map], coloured: Colouring | None) -> str:
    figures = []
    for index, each in enumerate(maps):
        first, second = each.shares
        name = html.escape(each.name)
        figures.append(
            f'<figure><figcaption><b>{name}</b><br><span class="soft by-pca">PCA: {first:.1%} and {second:.1%} of the '
            'variance</span><span class="soft by-tsne">t-SNE</span></figcaption>'
            f'<canvas id="map-{index}" role="img" aria-label="map of {name}"></canvas></figure>'
        )
    choices = "".join(
        f'<label><input type="radio" name="method" value="{each}"{" checked" * (each == TSNE)}> {each}</label>'
        for each in (TSNE, PCA)
    )
    most = max(len(each.rows) for each in maps)
    return (
        f'<h2>Maps</h2><p class="soft">A point is an item, {most:,} at most on a map; contours enclose 30, 60 and 90 % '
        "of them. Point at an item, or tap it, to see which it is, here and in the other maps. Each map has its own "
        "scale; t-SNE shows who is near whom, not how far apart groups are.</p>"
        f'<fieldset><legend class="soft">map by</legend>{choices}<label>item <input type="search" id="find" '
        f'autocomplete="off" placeholder="an item\'s id"></label></fieldset>{_legend(coloured)}'
        f'<div class="maps">{"".join(figures)}</div><noscript><p>The maps need JavaScript.</p></noscript>'
    )


def _legend(coloured: Colouring | None) -> str:
    if coloured is None:
        return ""
    keys = [
        f'<li><button type="button" data-value="{index}" aria-pressed="false"><span class="dot {colour(index)}"></span>'
        f"{html.escape(label)}</button></li>"
        for index, label in enumerate(coloured.labels)
    ]
    if coloured.rest:
        keys.append(f'<li><span class="dot grey"></span>{coloured.rest}</li>')
    return f'<ul class="legend"><li><b>{html.escape(coloured.name)}</b></li>{"".join(keys)}</ul>'


def _charts(diagnosed: Sequence[Diagnosed], maps: Sequence[Map]) -> str:
    figures = [
        f"<figure><h3>Spectrum</h3>{spectrum_chart(diagnosed)}"
        '<figcaption class="soft">A flat curve is noise; one that falls at once is a subspace.</figcaption></figure>',
        f"<figure><h3>Cosines of pairs of items</h3>{cosines_chart(diagnosed)}"
        '<figcaption class="soft">From the 5 to the 95 % quantile; the bar holds the middle half. All far right of 0 '
        "is a cone.</figcaption></figure>",
    ]
    for index, each in enumerate(diagnosed):
        if each.space.popularity is None:
            continue
        found = each.measures["norm_popularity"]
        said = "" if found is None else f"; rank correlation {found:+.2f}"
        figures.append(
            f"<figure><h3>Norm and popularity: {html.escape(each.space.name)}</h3>"
            f"{norms_chart(each, index, maps[index].rows)}"
            f'<figcaption class="soft">A point is an item, the line a running median{said}.'
            "</figcaption></figure>"
        )
    return f'<h2>Charts</h2><div class="charts">{"".join(figures)}</div>'


def _references(diagnosed: Sequence[Diagnosed]) -> str:
    """Return the explanation of the table's columns."""
    before = any(verdict.STAGE_1 in each.references for each in diagnosed)
    stage_1 = f", <b>{verdict.STAGE_1}</b> what its training started from" * before
    return (
        '<p class="soft">A measure opens to what it is and who defined it. References have the shape of the space: '
        f"<b>{verdict.GAUSSIAN}</b> is random noise of its variance, <b>{verdict.SHUFFLED}</b> its own columns, each "
        f"in another order of items{stage_1}. ± is the standard error of sampling; “as published” is the authors' "
        "variant, where theirs is another.</p>"
    )


def _bounds() -> str:
    """Return the explanation of the verdict's criteria."""
    signs = {
        "noise": f"less than {bounds.STRUCTURE:.0%} of the spectrum is beyond that of random directions: "
        f"a noise share above {1 - bounds.STRUCTURE:g}. Items are as if never trained.",
        "cone": f"the mean cosine is above {bounds.COMMON:g}: items point the same way.",
        "subspace": f"the effective rank is below {bounds.RANK:.0%} of that of the Gaussian: items use few of the "
        "dimensions.",
        "copies": f"fewer than {bounds.OWN:.0%} of the items have a row of their own.",
    }
    listed = "".join(f"<li><b>{sign}</b>: {meaning}</li>" for sign, meaning in signs.items())
    return (
        "<h2>What the verdict goes by</h2><p>A space is <b>collapsed</b> where it has one of four signs, which are "
        f"measured against references and tuned to no result:</p><ul>{listed}</ul><p>It is <b>fading</b> where it has "
        f"none of them, but less than {verdict.FADED:.0%} of the structure beyond noise that stage 1 had, where that "
        "embedding is at hand. Else it is <b>alive</b>.</p>"
    )
