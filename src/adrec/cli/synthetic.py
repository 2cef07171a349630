"""The command synth."""

from __future__ import annotations

from typing import Annotated

import typer

from adrec.cli.console import counter
from adrec.cli.options import Out, Quiet, console_for
from adrec.utils.text import counted


def synth(
    out: Out,
    users: Annotated[int, typer.Option(help="Number of users.")] = 10_000,
    items: Annotated[int, typer.Option(help="Number of items.")] = 5_000,
    interactions: Annotated[int, typer.Option(help="Number of interactions; each user has three at least.")] = 100_000,
    repeats: Annotated[float, typer.Option(help="Share of steps that repeat one of the user's last five items.")] = 0.1,
    markov: Annotated[
        float, typer.Option(help="Share of steps within a session that follow from the item before.")
    ] = 0.5,
    exponent: Annotated[float, typer.Option(help="Exponent of Zipf's law of popularity.")] = 1.0,
    drift: Annotated[
        float, typer.Option(help="Share of items whose popularity changes in each tenth of the time.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Write synthetic interactions as Parquet shards, from a process whose best NDCG is known."""
    from adrec.data.synth import Process, synthesise

    process, console = Process(users, items, interactions, repeats, markov, exponent, drift, seed), console_for(quiet)
    with counter(console) as progress:
        task = progress.add_task("users", total=users)
        found = synthesise(process, out, on_shard=lambda done: progress.advance(task, done))
    best = ", ".join(f"{name.upper()} {value:.4f}" for name, value in found.best.items())
    console.print(
        f"{interactions:,} interactions with {found.items_met:,} of {counted(items, 'item')} in "
        f"{counted(found.shards, 'shard')}: {out}"
    )
    console.print(f"Best attainable on each user's last interaction, all items ranked: {best}")
    console.print(f"Next: adrec prepare {out} --seen keep --out DATA")
