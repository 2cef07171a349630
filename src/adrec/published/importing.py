"""Import of the published repository's files as prepared data sets and runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from safetensors.torch import load_file

from adrec.config.adrec import Config, preset
from adrec.config.base import DEFAULT_SEED
from adrec.data.dataset import Dataset, open_dataset
from adrec.data.prepare import prepare
from adrec.data.split import make_split
from adrec.data.vocab import Vocabularies, Vocabulary
from adrec.models.adrec import ADRecModel
from adrec.published.weights import from_published
from adrec.runs.folder import Run
from adrec.runs.info import RunInfo
from adrec.utils.errors import ConfigError, DataError, RunError
from adrec.utils.files import sha256
from adrec.utils.text import as_name


def check_trusted(path: Path, trusted: bool) -> None:
    """Raise :class:`UserError` if a pickle does not exist, or is not declared as trusted."""
    if not path.is_file():
        raise DataError(f"{path} is no file; name a dataset.pkl or a .pth file of the published repository.")
    if not trusted:
        raise ConfigError(
            f"{path} is a pickle, which can hold code of whoever made it; adrec reads it in a process that refuses "
            "code, and asks all the same: pass --trust if you know where it is from."
        )


@contextmanager
def _unpickled(kind: str, path: Path) -> Iterator[Path]:
    """Yield a temporary file with the content of ``path``, read by a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / kind
        command = [sys.executable, "-m", "adrec.published.unpickle", kind, str(path), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["ended without a word"])[-1]
            raise DataError(f"{path} {said}.")
        yield target


def import_dataset(path: Path, name: str | None = None) -> Dataset:
    """Return the prepared data set of a published ``dataset.pkl``, with its own item numbers and leave-one-out split.

    Raises :class:`DataError` if the file is not one.
    """
    with _unpickled("dataset", path) as parquet:
        table = pl.read_parquet(parquet)
    if table.height == 0 or table["item"].min() == 0:
        raise DataError(f"{path} has no interactions, or an item 0, which is padding.")
    numbers = range(1, int(table["item"].max()) + 1)  # type: ignore[arg-type]
    known = Vocabularies(Vocabulary.from_column(table["user"]), Vocabulary.from_column(pl.Series(numbers)))
    dataset = prepare(table, vocabulary=known, name=name or as_name(path.absolute().parent.name))
    info = replace(dataset.info, sources=(str(path),), sha256=(sha256(path),), guesses=(), notes=())
    return replace(dataset, info=info)


def import_weights(path: Path, data: Path, out: Path, changes: Mapping[str, Any]) -> Run:
    """Write a run with published weights, on the data set imported from the ``dataset.pkl`` they were trained on.

    Settings that weights do not determine (timesteps, heads, lambda, length) are those of the preset ``published`` with
    ``changes``.

    Raises:
        DataError: if the file is not one, or the data set numbers its items differently.
        RunError: if the weights do not fit the published network.
    """
    dataset = open_dataset(data)
    with _unpickled("weights", path) as file:
        published = load_file(file)
    try:
        weights = from_published(published)
        num_items = len(weights["item_embedding.weight"]) - 1
    except KeyError as error:
        raise RunError(f"{path} has no weights of the published network: {error} is not of it.") from error
    if not dataset.catalogue.ids.equals(pl.Series("id", range(1, num_items + 1), dtype=pl.Int64)):
        raise DataError(
            f"{path} numbers {num_items:,} items, and {data} does not have them as 1, 2, 3 ..; give the data set "
            "imported from the dataset.pkl that it was trained on."
        )
    kind, config = _told_by(weights, published, changes)
    model = ADRecModel(config)
    try:
        model.restore(weights, num_items, kind=kind, seed=DEFAULT_SEED)
    except RuntimeError as error:
        raise RunError(f"{path} does not fit the configuration; say what is different with --set.") from error
    info = RunInfo.of(dataset, make_split(dataset, None), out=out, seed=DEFAULT_SEED, device="cpu")
    return Run.create(out, model, info).finish(model, ())


def _told_by(
    weights: Mapping[str, Any], published: Mapping[str, Any], changes: Mapping[str, Any]
) -> tuple[str, Config]:
    """Return the kind of network, and the configuration as far as the weights determine it."""
    kind = "sasrec" if any(name.startswith("blocks.") for name in weights) else "adrec"
    found = {match.groups() for name in weights if (match := re.match(r"(cam|adm|blocks)\.(\d+)\.", name))}
    parts = [part for part, _ in found]
    told: dict[str, Any] = {
        "model.hidden_size": weights["item_embedding.weight"].shape[1],
        "model.num_blocks": parts.count("cam") + parts.count("blocks"),
    }
    if "adm" in parts:
        told["model.diffusion.adm_blocks"] = parts.count("adm")
    if "diffu.net.decoder.0.weight" in published:
        told |= {"model.ablation": True, "model.ablation.decoder": "mlp"}
    return kind, preset("published", {**told, **changes})
