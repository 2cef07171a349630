"""The ledger of a benchmark: a folder of small jobs, each with its configuration, cost and results.

==============================  ================================================================================
``datasets/NAME.json``          a data set: its fingerprint, split, sizes
``datasets/NAME.parquet``       its test users: length of the history, training interactions of the held-out item
``jobs/KEY/job.json``           what was computed: data set, model, configuration, seed
``jobs/KEY/result.json``        what came out: metrics, costs, machine; or the error
``jobs/KEY/embedding..``        the item embedding, where it was asked for (safetensors); not kept in git
``jobs/KEY/ranks.parquet``      each test user's rank, seen items ranked too, and left out (final jobs)
``work/``, ``shared/``          runs that are not finished, and what jobs share; not kept
==============================  ================================================================================

``KEY`` is the hash of everything that determines the result, so a finished job is not computed again, unless its
embedding is requested later. A result is sealed, and has the digests of its job and ranks. A damaged result is told,
and computed again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock, Timeout
from torch import Tensor

from adrec.data.dataset import Dataset
from adrec.data.split import Split
from adrec.evaluate.protocol import training_popularity
from adrec.evaluate.ranking import held_out
from adrec.train.checkpoint import Snapshot, read_snapshot, write_snapshot
from adrec.utils.errors import ConfigError, DataError, RunError
from adrec.utils.files import atomic_file, sha256, write_bytes, write_json
from adrec.utils.sealed import digest_of, read_json, read_sealed, write_sealed
from adrec.utils.tables import write_parquet
from adrec.utils.text import check_name

EMBEDDING = "embedding.safetensors"
JOB, RANKS, USERS = "job_digest", "ranks_sha256", "users_sha256"  # in results and notes on data sets
AGAIN = "remove its folder, and adrec benchmark computes it again"
PROTOCOL = 1  # version of training and evaluation; incremented when the same job would give other results
IGNORED = f"work/\nshared/\n*.lock\n{EMBEDDING}\n"


@dataclass(frozen=True)
class Job:
    """One model, configured and seeded, on one data set.

    Attributes:
        data: the data set's name.
        fingerprint: the data set's.
        split: the split's name.
        label: of the entry.
        model: its name.
        config: its whole configuration.
        seed: the random seed.
        trial: the number of the tuning trial; None for a final model. A trial never uses the test part.
        source: the digest of the code of a user's own model; empty for built-in models.
        tuned: whether trials chose its settings; such a job differs from one with the same settings set by hand.
        protocol: version of training and evaluation, :data:`PROTOCOL`.
    """

    data: str
    fingerprint: str
    split: str
    label: str
    model: str
    config: Mapping[str, Any]
    seed: int
    trial: int | None = None
    source: str = ""
    tuned: bool = False
    protocol: int = PROTOCOL

    @property
    def key(self) -> str:
        """The hash of everything that determines the result, without the label and the trial's number."""
        decisive = asdict(self)
        for name in ("data", "label"):
            del decisive[name]
        decisive["config"] = self.settings
        decisive["trial"] = self.trial is not None
        return hashlib.blake2b(json.dumps(decisive, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The part of the configuration that determines the result: all except the preset's name."""
        return {key: value for key, value in self.config.items() if key != "preset"}

    @property
    def words(self) -> str:
        """A short description of the job."""
        what = f"seed {self.seed}" if self.trial is None else f"trial {self.trial}"
        return f"{self.data}: {self.label}, {what}"


@dataclass(frozen=True)
class Finished:
    """A job of the ledger with its result.

    Attributes:
        job: what was computed.
        result: what came out.
        folder: where its files are.
    """

    job: Job
    result: Mapping[str, Any]
    folder: Path

    @property
    def error(self) -> str | None:
        """The error message, if the job failed."""
        return self.result.get("error")

    @property
    def is_cut(self) -> bool:
        """Whether time ended the training of a stage."""
        return any(stage.get("cut") for stage in self.result.get("stages", ()))

    @property
    def has_embeddings(self) -> bool:
        """Whether the item embedding was kept."""
        return (self.folder / EMBEDDING).exists()

    def embeddings(self) -> Mapping[str, Tensor]:
        """Return ``item_embedding`` and, where there was one, ``stage_1``, [V + 1, D]; empty where none was kept."""
        return read_snapshot(self.folder / EMBEDDING).tensors if self.has_embeddings else {}

    def ranks(self) -> pl.DataFrame:
        """Return ``rank`` and ``rank_unseen`` of each test user, from 1.

        Raises :class:`RunError` if they are damaged.
        """
        return _read_frame(self.folder / "ranks.parquet", self.result.get(RANKS))


class Ledger:
    """A ledger's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> Ledger:
        """Open the ledger at ``path``; create it if missing. Raises :class:`RunError` for another kind of folder."""
        path = path.resolve() if path.is_symlink() else path
        foreign = path.is_dir() and not (path / "jobs").is_dir() and any(path.iterdir())
        if path.is_file() or foreign:
            raise RunError(f"{path} is not a ledger; name a new folder, or one that adrec benchmark wrote.")
        for name in ("jobs", "datasets"):
            (path / name).mkdir(parents=True, exist_ok=True)
        write_bytes(path / ".gitignore", IGNORED.encode())
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Open an existing ledger. Raises :class:`RunError` if there is none."""
        if (path / "dataset.json").is_file():
            raise RunError(
                f"{path} is a prepared data set; `adrec benchmark {path} --out ledger` makes a ledger of it."
            )
        if not (path / "jobs").is_dir():
            raise RunError(f"there is no ledger in {path}; `adrec benchmark DATA --out {path}` makes one.")
        return cls(path)

    def folder(self, job: Job) -> Path:
        """Return where a job's files are."""
        return self.path / "jobs" / job.key

    def work(self, job: Job) -> Path:
        """Return where a job's run is while it is not finished."""
        return self.path / "work" / job.key

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Lock ``key`` against other processes; yield false if another process holds it."""
        (self.path / "work").mkdir(exist_ok=True)
        try:
            with FileLock(self.path / "work" / f"{key}.lock", timeout=0):
                yield True
        except Timeout:
            yield False

    def add_dataset(self, dataset: Dataset, split: Split) -> None:
        """Record a data set and its test users. Raises :class:`DataError` if its name belongs to another data set."""
        name = dataset.info.name
        about = {
            "name": name,
            "fingerprint": dataset.fingerprint,
            "split": split.name,
            "users": dataset.num_users,
            "items": split.num_items,
            "interactions": dataset.num_interactions,
            "test_users": len(np.unique(split.test.users)),
        }
        (self.path / "work").mkdir(exist_ok=True)
        with FileLock(self.path / "work" / "datasets.lock"):  # processes begin on a data set together
            self._note(about, dataset, split)

    def _note(self, about: Mapping[str, Any], dataset: Dataset, split: Split) -> None:
        name = about["name"]
        path = self.path / "datasets" / f"{name}.json"
        if path.exists():
            before = self._about(path)
            if before["fingerprint"] != about["fingerprint"] or before["split"] != about["split"]:
                raise DataError(
                    f"the data set {name} is not the one that {self.path} began with (it has changed, or is split in "
                    "another way); begin a new ledger, or prepare it under another --name."
                )
            return
        if len(split.test.users) == 0:
            raise DataError(f"{name} holds nothing out to test on: its split is {split.name}.")
        histories, items = held_out(dataset, split.test)
        popularity = training_popularity(dataset, split)
        users = pl.DataFrame(
            {
                "user": split.test.users.astype(np.int32),
                "length": (histories.ends - histories.starts).astype(np.int32),
                "popularity": popularity[items].astype(np.int32),
            }
        )
        table = self.path / "datasets" / f"{name}.parquet"
        write_frame(users, table)
        write_sealed(path, {**about, USERS: sha256(table)})

    def datasets(self) -> dict[str, dict[str, Any]]:
        """Return what is noted of each data set, by name."""
        return {path.stem: self._about(path) for path in sorted((self.path / "datasets").glob("*.json"))}

    def _about(self, path: Path) -> dict[str, Any]:
        """Return what is noted of a data set. Raises :class:`RunError` if it is damaged, or names another file."""
        about = read_sealed(path, RunError, "remove it, and adrec benchmark makes it again")
        if about.get("name") != path.stem:
            raise RunError(f"{path} is of another data set; remove it, and adrec benchmark makes it again.")
        return about

    def test_users(self, name: str) -> pl.DataFrame:
        """Return ``user``, ``length`` and ``popularity`` of a data set's test users."""
        check_name(name)
        about = self._about(self.path / "datasets" / f"{name}.json")
        remedy = f"remove {name}.json beside it, and adrec benchmark makes both again"
        return _read_frame(self.path / "datasets" / f"{name}.parquet", about[USERS], remedy)

    def result(self, job: Job) -> Finished | None:
        """Return the result of a job, if it is there and not an error."""
        folder = self.folder(job)
        if not (folder / "result.json").exists():
            return None
        try:
            found = _read(folder)
        except RunError:
            return None
        return None if found.error else Finished(job, found.result, folder)

    def keep(self, job: Job, result: Mapping[str, Any], ranks: pl.DataFrame | None = None) -> Finished:
        """Write a job's result, after its ranks, so that an existing result is complete."""
        folder = self.folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        values = json.loads(json.dumps(asdict(job)))
        write_json(folder / "job.json", values)
        result = {**result, JOB: digest_of(values)}
        if ranks is not None:
            write_frame(ranks, folder / "ranks.parquet")
            result[RANKS] = sha256(folder / "ranks.parquet")
        write_sealed(folder / "result.json", result)
        return Finished(job, result, folder)

    def fail(self, job: Job, error: str) -> Finished:
        """Note why a job failed, unless a good result is there (of a job that was computed again for its embedding)."""
        failed = {"error": error}
        return self.keep(job, failed) if self.result(job) is None else Finished(job, failed, self.folder(job))

    def keep_embedding(self, job: Job, embedding: Tensor, stage_1: Tensor | None) -> None:
        """Write a job's item embedding [V + 1, D], before its result."""
        self.folder(job).mkdir(parents=True, exist_ok=True)
        tensors = {"item_embedding": embedding, **({} if stage_1 is None else {"stage_1": stage_1})}
        write_snapshot(self.folder(job) / EMBEDDING, Snapshot(tensors, {}))

    def forget(self, job: Job) -> None:
        """Delete a job's result and its run."""
        shutil.rmtree(self.folder(job), ignore_errors=True)
        self.forget_work(job)

    def forget_work(self, job: Job) -> None:
        """Delete the run of a finished job."""
        shutil.rmtree(self.work(job), ignore_errors=True)

    def finished(self) -> list[Finished]:
        """Return every job with a whole result, failed ones too, in a fixed order."""
        return self._read_all()[0]

    def damaged(self) -> list[str]:
        """Return what is wrong with each damaged or missing result, one sentence each."""
        return self._read_all()[1]

    def _read_all(self) -> tuple[list[Finished], list[str]]:
        found, damaged = [], []
        for folder in sorted((self.path / "jobs").iterdir()):
            if not (folder / "job.json").is_file():  # somebody else's, or only an embedding yet
                continue
            if not (folder / "result.json").is_file():
                damaged.append(f"{folder} has no result; adrec benchmark computes it.")
                continue
            try:
                found.append(_read(folder))
            except RunError as error:
                damaged.append(str(error))
        return sorted(found, key=lambda each: (each.job.data, each.job.label, each.job.seed, each.job.key)), damaged


def _read(folder: Path) -> Finished:
    """Return the job in a folder with its result. Raises :class:`RunError` if a file is damaged."""
    result = read_sealed(folder / "result.json", RunError, AGAIN)
    values = read_json(folder / "job.json", RunError, AGAIN)
    if result.get(JOB) != digest_of(values):
        raise RunError(f"{folder / 'job.json'} is not the job of its result; {AGAIN}.")
    try:
        job = Job(**values)
        check_name(job.data)
    except (TypeError, ConfigError) as error:
        raise RunError(f"{folder / 'job.json'} is no job ({error}); {AGAIN}.") from error
    if job.key != folder.name:
        raise RunError(f"{folder} holds the job {job.key}; {AGAIN}.")
    if RANKS in result:
        _check_frame(folder / "ranks.parquet", result[RANKS])
    return Finished(job, result, folder)


def _read_frame(path: Path, digest: str | None, remedy: str = AGAIN) -> pl.DataFrame:
    """Read a table. Raises :class:`RunError` if it has another digest."""
    _check_frame(path, digest, remedy)
    return pl.read_parquet(path)


def _check_frame(path: Path, digest: str | None, remedy: str = AGAIN) -> None:
    if not path.is_file() or sha256(path) != digest:
        raise RunError(f"{path} is damaged: its content does not match its digest; {remedy}.")


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Write a table as compressed Parquet, whole or not at all."""
    with atomic_file(path) as temporary:
        write_parquet(frame, temporary, compression="zstd", compression_level=19)
