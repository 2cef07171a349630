"""The prepared data set: memory-mapped flat arrays on disk, with the vocabularies.

====================  =====================================================================
``items.npy``         item numbers, int32 [n], user after user, oldest first
``offsets.npy``       start of each user's interactions, and end of the last one's, int64 [U + 1]
``times.npy``         times, int64 or float64 [n]
``weights.npy``       with event weights: how much each interaction counts as a target, float32 [n]
``users.parquet``     the users' own ids, in the order of their index
``items.parquet``     the items' own ids; item number = position + 1, number 0 is padding
``test_users.npy``    users that a ``users:`` split holds out, int64; also ``validation_users.npy``
``dataset.json``      counts, filters, source, sizes of the files, format version
====================  =====================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adrec._version import __version__
from adrec.data.seen import Seen
from adrec.data.vocab import Vocabulary
from adrec.utils.errors import ConfigError, DataError
from adrec.utils.files import sha256
from adrec.utils.folders import DATASET, atomic_folder, recover
from adrec.utils.sealed import check_seal, read_json, write_sealed
from adrec.utils.tables import write_parquet
from adrec.utils.text import check_name

FORMAT_VERSION = 4
ARRAYS = ("items", "offsets", "times")
AGAIN = "prepare the data set again"
# What NumPy raises for a header that is none.
UNREADABLE = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, MemoryError),
    *(SyntaxError, RecursionError, TokenError),
)
WRITTEN = ("history", "similar_item", "score", "rank", "source", "confidence", "name")  # columns of recommendations
WAITING, WEIGHTS = "waiting.parquet", "weights.npy"
HELD_OUT_PARTS = ("test", "validation")


@dataclass(frozen=True)
class DatasetInfo:
    """The content of ``dataset.json``.

    Attributes:
        name: name of the data set.
        num_users: U.
        num_items: V.
        num_interactions: n, those that were kept.
        num_read: rows of the source: the kept ones and those in ``left_out``.
        left_out: for each reason, the number of rows left out, and the first examples.
        preparation: the preparation options.
        sources: the files, or the kind of frame.
        sha256: SHA-256 of each file.
        columns: the source's column for each role.
        guesses: guesses about the source, one sentence each.
        time_unit: unit of the times: ``s``, ``ms``, ``us`` or ``ns`` since 1970, or ``none`` if they are only an order.
        split: name of the split.
        seen: whether the items of a history are recommended and ranked: ``keep`` or ``leave-out``.
        returning: the share of interactions that return to an item (:func:`adrec.data.seen.returning`).
        notes: further notes, one sentence each.
        extended: rows of the older data set that it extends, which ``num_read`` counts too.
        events: the number of the last event of each store of live events that is in it (:mod:`adrec.live.store`).
        recipe: name of the recipe it was read with.
        fingerprint: hash of items, offsets, times, ids, the split and what is done with seen items; equal fingerprints
            mean equal data sets.
        files: size of each file, in bytes.
        digests: SHA-256 of each table among them, checked before it is read; the arrays are in the fingerprint.
        format_version: version of the folder's format.
        adrec_version: version of adrec that wrote it.
    """

    name: str
    num_users: int
    num_items: int
    num_interactions: int
    num_read: int
    left_out: Sequence[Mapping[str, Any]]
    preparation: Mapping[str, Any]
    sources: Sequence[str]
    sha256: Sequence[str | None]
    columns: Mapping[str, str]
    guesses: Sequence[str]
    time_unit: str
    split: str
    seen: Seen = "leave-out"
    returning: float = 0.0
    notes: Sequence[str] = ()
    extended: int = 0
    events: Mapping[str, int] = field(default_factory=dict)
    recipe: str | None = None
    fingerprint: str = ""
    files: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    adrec_version: str = __version__

    def named(self, role: str) -> str:
        """Return the name of the column for ``role`` in what adrec writes: the one in the table that was prepared."""
        name = self.columns.get(role, role)
        return role if name in WRITTEN else name


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions of U users with V items, in flat arrays; ids exist only in the two vocabularies.

    Attributes:
        items: item numbers 1..V, int32 [n], user after user, oldest first.
        offsets: user u has ``items[offsets[u] : offsets[u + 1]]``, int64 [U + 1].
        times: int64 or float64 [n].
        weights: how much each interaction counts as a target of training, float32 [n]; None if all count the same.
        users: index 0..U-1 of each user's id.
        catalogue: index 0..V-1 of each item's id; the item number is one more.
        info: metadata: sources, preparation and counts.
        held_out: indices of the users that a ``users:`` split holds out: ``test``, ``validation``.
        path: the folder it was opened from.
        left_out: what ``min_user`` or ``min_item`` left out, which waits for an extension
            (:func:`adrec.data.extend.waiting_rows`).
    """

    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    times: NDArray[np.int64] | NDArray[np.float64]
    users: Vocabulary
    catalogue: Vocabulary
    info: DatasetInfo
    held_out: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    path: Path | None = None
    left_out: pl.DataFrame | None = None
    weights: NDArray[np.float32] | None = None

    def waiting(self) -> pl.DataFrame | None:
        """Return the interactions that wait for an extension, None without any."""
        if self.left_out is not None or self.path is None or WAITING not in self.info.files:
            return self.left_out
        try:
            _check_table(self.path / WAITING, self.info)
            return pl.read_parquet(self.path / WAITING)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{self.path / WAITING} cannot be read; {AGAIN}.") from error

    @property
    def num_users(self) -> int:
        """The number of users, U."""
        return len(self.users)

    @property
    def num_items(self) -> int:
        """The number of items, V."""
        return len(self.catalogue)

    @property
    def num_interactions(self) -> int:
        """The number of interactions, n."""
        return len(self.items)

    @property
    def fingerprint(self) -> str:
        """The hash that identifies this data set."""
        return self.info.fingerprint

    def history(self, user: int) -> NDArray[np.int32]:
        """Return the item numbers of the user with this index, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @cached_property
    def popularity(self) -> NDArray[np.int64]:
        """The number of interactions of each item number, int64 [V + 1]."""
        return np.bincount(self.items, minlength=self.num_items + 1)

    def catalogue_digest(self, num_items: int) -> str:
        """Return the hash that identifies the first ``num_items`` items."""
        return Vocabulary(self.catalogue.ids.head(num_items)).digest()

    def verify(self) -> None:
        """Check the content that a model depends on. Raises :class:`DataError` if it was altered."""
        if self.with_fingerprint().fingerprint != self.fingerprint:
            raise DataError(
                f"the data set {self.path or self.info.name} was altered after it was prepared; prepare it again."
            )

    def with_fingerprint(self) -> Dataset:
        """Return the data set with its fingerprint computed."""
        hasher = hashlib.blake2b(digest_size=16)
        weights = () if self.weights is None else (self.weights,)
        for array in (
            self.items,
            self.offsets,
            self.times,
            *weights,
            *(self.held_out[part] for part in sorted(self.held_out)),
        ):
            hasher.update(np.ascontiguousarray(array).data)
        kept = ["seen items kept"] if self.info.seen == "keep" else []
        for text in (self.users.digest(), self.catalogue.digest(), self.info.split, *kept):
            hasher.update(text.encode())
        return replace(self, info=replace(self.info, fingerprint=hasher.hexdigest()))


def write_dataset(dataset: Dataset, path: Path, *, overwrite: bool = False) -> None:
    """Write ``dataset`` to the folder ``path`` atomically.

    Raises :class:`UserError` if the path already has content and ``overwrite`` is false.
    """
    with atomic_folder(Path(path), overwrite=DATASET if overwrite else None) as folder:
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(dataset, name), allow_pickle=False)
        if dataset.weights is not None:
            np.save(folder / WEIGHTS, dataset.weights, allow_pickle=False)
        for part, users in dataset.held_out.items():
            np.save(folder / f"{part}_users.npy", users, allow_pickle=False)
        dataset.users.write(folder / "users.parquet")
        dataset.catalogue.write(folder / "items.parquet")
        waiting = dataset.waiting()
        if waiting is not None:
            write_parquet(waiting, folder / WAITING)
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        digests = {name: sha256(folder / name) for name in files if name.endswith(".parquet")}
        write_sealed(folder / DATASET, asdict(replace(dataset.info, files=files, digests=digests)))


def open_dataset(path: Path) -> Dataset:
    """Open a prepared data set; its arrays are memory-mapped, not read.

    Raises:
        DataError: if there is no data set, a file is missing or truncated, or a newer adrec wrote it.
    """
    path = Path(path)
    recover(path)
    info = _read_info(path)
    for name, size in info.files.items():
        file = path / name
        if not file.is_file():
            raise DataError(f"{file} is missing; prepare the data set again.")
        if file.stat().st_size != size:
            raise DataError(
                f"{file} has {file.stat().st_size} bytes where {size} were written: it was cut short or altered; "
                "prepare the data set again."
            )
    try:
        arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
        weights = np.load(path / WEIGHTS, mmap_mode="r", allow_pickle=False) if WEIGHTS in info.files else None
        held_out = {
            part: np.load(path / f"{part}_users.npy", allow_pickle=False)
            for part in HELD_OUT_PARTS
            if f"{part}_users.npy" in info.files
        }
    except UNREADABLE as error:
        raise DataError(f"the arrays of {path} cannot be read; prepare the data set again.") from error
    for name in ("users.parquet", "items.parquet"):
        _check_table(path / name, info)
    users, catalogue = Vocabulary.read(path / "users.parquet"), Vocabulary.read(path / "items.parquet")
    items, offsets, times = (arrays[name] for name in ARRAYS)
    lengths = (len(users), len(catalogue), len(items), len(times), len(offsets) - 1)
    expected = (info.num_users, info.num_items, info.num_interactions, info.num_interactions, info.num_users)
    if lengths != expected or items.dtype != np.int32 or offsets.dtype != np.int64 or offsets[-1] != len(items):
        raise DataError(f"the files of {path} do not fit together; prepare the data set again.")
    if weights is not None and (weights.dtype, weights.shape) != (np.float32, items.shape):
        raise DataError(f"the files of {path} do not fit together; prepare the data set again.")
    return Dataset(**arrays, users=users, catalogue=catalogue, info=info, held_out=held_out, path=path, weights=weights)


def _check_table(path: Path, info: DatasetInfo) -> None:
    """Raise :class:`DataError` if a table is not the one that was written."""
    if sha256(path) != info.digests.get(path.name):
        raise DataError(f"{path} was altered: its content does not match its digest; {AGAIN}.")


def _read_info(path: Path) -> DatasetInfo:
    if not path.exists():
        raise DataError(f"there is no prepared data set {path}; `adrec prepare INPUT --out {path}` makes one.")
    if path.is_file():
        raise DataError(
            f"{path} is a file, not a prepared data set; `adrec prepare {path} --out DATA` makes one of it."
        )
    file = path / "dataset.json"
    if not file.is_file():
        what = "is a run folder" if (path / "run.json").is_file() else "has no dataset.json"
        raise DataError(f"{path} {what}, so it is not a prepared data set; name a folder that `adrec prepare` wrote.")
    values = read_json(file, DataError, AGAIN)
    version = values.get("format_version")
    if not isinstance(version, int):
        raise DataError(f"{file} has no format_version; {AGAIN}.")
    if version > FORMAT_VERSION:
        raise DataError(f"{path} was written by a newer adrec ({values.get('adrec_version')}); upgrade adrec.")
    if version < FORMAT_VERSION:
        raise DataError(f"{path} was written by an older adrec ({values.get('adrec_version')}); prepare it again.")
    content = check_seal(file, values, DataError, AGAIN)
    try:
        info = DatasetInfo(**content)
        check_name(info.name)
        if not {f"{name}.npy" for name in ARRAYS} <= info.files.keys() or info.seen not in get_args(Seen):
            raise ValueError("the list of files or the treatment of seen items is unknown")
    except (TypeError, AttributeError, ValueError, ConfigError) as error:
        raise DataError(f"{file} does not describe a prepared data set ({error}); {AGAIN}.") from error
    return info
