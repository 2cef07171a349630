"""Loading of embeddings from runs, NumPy and safetensors files, with metadata of their items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from adrec.data.dataset import UNREADABLE, Dataset, open_dataset
from adrec.data.lists import read_attribute
from adrec.data.split import Split, make_split
from adrec.diagnose.diagnosis import Space
from adrec.diagnose.measures import MOST_FOLLOWERS, check
from adrec.evaluate.protocol import training_popularity
from adrec.nn.spectrum import Matrix
from adrec.runs.folder import Run
from adrec.utils.errors import ConfigError, DataError, did_you_mean
from adrec.utils.text import counted

FILES = (".npy", ".safetensors")


def open_space(path: Path, *, name: str | None = None, data: Path | None = None, tensor: str | None = None) -> Space:
    """Open an embedding.

    Args:
        path: a run folder, a ``.npy`` file (which is mapped, not read) or a ``.safetensors`` file.
        name: in tables and pictures; the path's own by default.
        data: a prepared data set whose items the rows are, in the order of its catalogue, with or without a padding row
            before them; for a run, where its own is now.
        tensor: which one of a safetensors file with several matrices.

    Raises:
        DataError: for a file that cannot be read, or is no matrix of finite numbers.
        ConfigError: for a tensor that is not there, rows that are not the data set's items, or a model without vectors.
        RunError: for a run that is not finished.
    """
    name = name or path.stem
    if path.suffix in FILES and not path.exists():
        raise DataError(f"there is no file {path}; name an embedding that is there.")
    if path.is_dir() or not path.exists():
        return _of_run(Run.open(path), name, data)
    matrix = _read(path, tensor)
    if data is None:
        check(matrix, str(path))
        return Space(name, matrix)
    dataset = open_dataset(data)
    dataset.verify()
    split = make_split(dataset, None)
    if len(matrix) not in (split.num_items, split.num_items + 1):
        raise ConfigError(
            f"{path} has {len(matrix):,} rows and {data} {split.num_items:,} items: give the data set that it is of."
        )
    return with_items(name, matrix[len(matrix) - split.num_items :], dataset, split)


def _of_run(run: Run, name: str, data: Path | None) -> Space:
    model = run.model()
    vectors = model.item_vectors
    if vectors is None:
        raise ConfigError(f"{model.name} has no item vectors, so there is no embedding space to diagnose.")
    dataset = run.dataset(data, newer=True)
    stage_1 = run.stage_1()
    before = None if stage_1 is None else stage_1.float().numpy()[1 : model.num_items + 1]
    return with_items(name, vectors[1 : model.num_items + 1], dataset, run.split(dataset), stage_1=before)


def with_items(
    name: str,
    rows: Matrix,
    dataset: Dataset,
    split: Split,
    *,
    stage_1: Matrix | None = None,
    accuracy: Mapping[str, float] | None = None,
) -> Space:
    """Return the space of rows that are the first items of a data set, with what its training part tells of them."""
    check(rows, f"the embedding of {name}")
    popularity = training_popularity(dataset, split)[1 : len(rows) + 1]
    ids = dataset.catalogue.ids.head(len(rows))
    return Space(name, rows, ids, popularity, _followers(dataset, split, len(rows)), stage_1, accuracy or {})


def _followers(dataset: Dataset, split: Split, num_items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return rows of items that follow each other in training; None where none do."""
    items, starts = dataset.items, np.asarray(dataset.offsets[:-1])
    lengths = np.maximum(np.asarray(split.train_ends) - starts - 1, 0)
    firsts = np.repeat(starts, lengths) + np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    if len(firsts) > MOST_FOLLOWERS:
        firsts = np.sort(np.random.default_rng(0).choice(firsts, MOST_FOLLOWERS, replace=False))
    one, other = items[firsts].astype(np.int64) - 1, items[firsts + 1].astype(np.int64) - 1
    known = (one != other) & (np.maximum(one, other) < num_items)
    return (one[known], other[known]) if known.any() else None


def _read(path: Path, tensor: str | None) -> Matrix:
    if path.suffix == ".npy":
        return _numbers(path, _mapped(path))
    if path.suffix == ".safetensors":
        return _numbers(path, _tensor(path, tensor))
    raise ConfigError(f"{path} is no run folder, .npy or .safetensors file; an embedding is read from one of these.")


def _mapped(path: Path) -> NDArray[np.generic]:
    try:
        array: object = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as a NumPy array; write it with numpy.save.") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive of several arrays; write the one that is meant with numpy.save.")
    return array


def _tensor(path: Path, name: str | None) -> NDArray[np.generic]:
    try:
        with safe_open(path, framework="numpy") as file:
            matrices = [key for key in file.keys() if len(file.get_slice(key).get_shape()) == 2]  # noqa: SIM118
            if name is None and "item_embedding.weight" in matrices:
                name = "item_embedding.weight"
            if name is None and len(matrices) == 1:
                name = matrices[0]
            if name is None or name not in matrices:
                known = ", ".join(matrices) or "none"
                asked = "which matrix" if name is None else f"no matrix {name!r}{did_you_mean(name, matrices)}"
                raise ConfigError(f"{path} does not say {asked}; name one with --tensor: {known}.")
            array: NDArray[np.generic] = file.get_tensor(name)
    except (TypeError, AttributeError) as error:  # NumPy has no bfloat16, and no numbers of 8 bits
        raise DataError(f"{path} holds numbers that NumPy does not know ({error}); write them as float32.") from error
    except (OSError, SafetensorError, ValueError, LookupError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as safetensors; restore it from a copy.") from error
    return array


def _numbers(path: Path, array: NDArray[np.generic]) -> Matrix:
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path} holds {array.dtype}, not real numbers.")
    matrix: Matrix = array  # type: ignore[assignment]  # whatever its precision: it is read in blocks of float64
    return matrix


def attribute_of(space: Space, path: Path, column: str) -> tuple[list[str | None], tuple[str, ...]]:
    """Return the attribute of each row of a space, and notes on what the table and the space do not share.

    Where the space's items have no ids, the table's items are row numbers from 0. Raises :class:`DataError` where no
    item of the table is in the space.
    """
    table = read_attribute(path, column)
    rows = pl.DataFrame({"item": _ids(space).cast(pl.String)})
    told = table.with_columns(pl.col("item").cast(pl.String))
    unknown = told.join(rows, on="item", how="anti")
    if unknown.height == told.height:
        raise DataError(f"no item of {path.name}, such as {told['item'][0]!r}, is among those of {space.name}.")
    values = rows.join(told, on="item", how="left", maintain_order="left")["value"].to_list()
    notes = []
    if unknown.height:
        items = counted(unknown.height, "item")
        notes.append(f"{items} of {path.name} unknown and left out, such as {unknown['item'][0]!r}.")
    missing = sum(value is None for value in values)
    if missing:
        notes.append(f"{missing:,} of {len(values):,} items without {column} in {path.name}.")
    return values, tuple(notes)


def named(space: Space, path: Path, column: str) -> Space:
    """Return a space whose items have the names that a column of a table gives them, in place of their ids."""
    values, _ = attribute_of(space, path, column)
    ids = _ids(space).cast(pl.String)
    return replace(space, ids=pl.Series("id", [name or known for name, known in zip(values, ids, strict=True)]))


def _ids(space: Space) -> pl.Series:
    return space.ids if space.ids is not None else pl.Series("id", range(len(space.embedding)))


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path: its last part, with those before it where two would be alike."""
    for parts in range(1, max(len(path.resolve().parts) for path in paths) + 1):
        names = ["/".join(path.resolve().parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ConfigError("the same embedding is named twice; name each once.")
