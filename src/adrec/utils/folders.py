"""Atomic writing of folders: a folder appears whole, or not at all; and checks of outputs before any work."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock, Timeout

from adrec.utils.errors import RunError, UserError
from adrec.utils.files import (
    TEMPORARY,
    abandoned,
    beside,
    hidden,
    place_of,
    remove,
    temporary_for,
    unwritable,
)
from adrec.utils.platforms import LOCK as FOLDER_LOCK
from adrec.utils.platforms import locked_folder, sync

DATASET, RUN = "dataset.json", "run.json"  # the files by which a folder is known; they are put in place last
KINDS = {DATASET: "prepared data set", RUN: "run"}
OWN = {  # the names of their files
    DATASET: (
        *(DATASET, "items.npy", "offsets.npy", "times.npy", "weights.npy", "test_users.npy", "validation_users.npy"),
        *("users.parquet", "items.parquet", "waiting.parquet"),
    ),
    RUN: (
        *(RUN, "config.json", "metrics.jsonl", "weights.safetensors", "stage1.safetensors", "prefixes.safetensors"),
        *(
            "state-*.safetensors",
            "augment-*.safetensors",
            "ranks-*.parquet",
            "index-*.usearch",
            "taken.json",
            "evaluation.json",
            ".lock",
        ),
    ),
}
PARTS = frozenset({DATASET, RUN, "config.json", "metrics.jsonl", "users.parquet", "items.parquet"})
PART_SUFFIXES = frozenset({".npy", ".safetensors"})
LOCK = ".lock"  # in a folder that only one process at a time may use
OF_THE_SYSTEM = frozenset({"lost+found", FOLDER_LOCK})  # in an empty volume
MOUNTED = (errno.EBUSY, errno.EXDEV)  # what renaming a mount point fails with


def check_side_output(path: Path | None, option: str) -> None:
    """Raise :class:`UserError` if the output file of ``option`` would be inside a run or a prepared data set."""
    if path is None or not (path.name in PARTS or path.suffix in PART_SUFFIXES):
        return
    if any((path.parent / own).is_file() for own in KINDS):
        raise UserError(f"{option} {path} would replace a part of {path.parent}; name another file.")


def check_no_file(path: Path) -> None:
    """Raise :class:`UserError` if the path of an output folder is a file."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a folder; choose another --out.")


def check_folder(path: Path, *, overwrite: str | None = None, overwriting: str = "", kind: str = DATASET) -> None:
    """Raise :class:`UserError`, before any work, if :func:`atomic_folder` cannot write ``path``.

    Args:
        path: the output folder.
        overwrite: the kind of folder that may be replaced, :data:`DATASET` or :data:`RUN`; None for none.
        overwriting: the hint how to overwrite a folder of the ``kind``, if the command allows it.
        kind: the kind of folder that the hint is for.
    """
    try:
        recover(path)
        _check_empty(path, overwrite=overwrite, overwriting=overwriting, hinted=kind)
    except OSError as error:  # a folder above it cannot be read
        raise unwritable(path, error) from error


def _check_empty(path: Path, *, overwrite: str | None, overwriting: str = "", hinted: str = DATASET) -> None:
    check_no_file(path)
    if not _content(path):
        return
    kind = next((kind for kind in KINDS if (path / kind).is_file()), None)
    if kind is None or kind != overwrite:
        hint = f", or {overwriting}" if kind == hinted and overwriting and overwrite is None else ""
        what = f" (it is a {KINDS[kind]})" if kind is not None else ""
        raise UserError(f"{path} exists already and is not empty{what}; choose another folder{hint}.")
    foreign = next((each for each in _content(path) if _is_foreign(each, kind)), None)
    if foreign is not None:
        what = KINDS[kind]
        raise UserError(
            f"{foreign} is no part of the {what} that would be replaced; move it, or choose another folder."
        )


def _content(path: Path) -> list[Path]:
    """Return what is in a folder, but for what a volume has of its own and writers' temporary files."""
    if not path.is_dir() or _is_half_filled(path):
        return []
    return [
        each for each in sorted(path.iterdir()) if each.name not in OF_THE_SYSTEM and not TEMPORARY.search(each.name)
    ]


def _is_half_filled(path: Path) -> bool:
    """Return whether a writer was killed while it filled a mount point."""
    return not any((path / kind).exists() for kind in KINDS) and any(
        each.name.endswith(".tmp") and abandoned(each) and any((each / kind).exists() for kind in KINDS)
        for each in path.iterdir()
    )


def _is_foreign(path: Path, kind: str) -> bool:
    """Return whether ``path`` in a folder of a ``kind`` was put there by somebody else."""
    if path.is_dir():
        return not (kind == RUN and path.name == "data" and (path / DATASET).is_file())
    return not any(fnmatch(path.name, pattern) for pattern in OWN[kind])


def check_apart(output: Path | None, inputs: Iterable[Path | None], option: str) -> None:
    """Raise :class:`UserError` if writing ``output`` would overwrite one of the ``inputs``, files or folders.

    ``option`` is the option that names the output.
    """
    for each in inputs:
        if output is None or each is None or not (output.exists() and each.exists()):
            continue
        if output.samefile(each):
            raise UserError(f"{output} is read, and would be overwritten; choose another {option}.")
        if output.resolve() in each.resolve().parents:
            raise UserError(f"{each}, which is read, is in {output}, which is replaced; choose another {option}.")


@contextmanager
def atomic_folder(path: Path, *, overwrite: str | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder. If the block succeeds, it is renamed to ``path``.

    A link stays, and the folder it leads to is written. A mount point cannot be renamed: it is filled, and the file by
    which a folder is known comes last. Raises :class:`UserError` if ``path`` exists and is not empty, unless it is of
    the kind ``overwrite`` (:data:`DATASET` or :data:`RUN`). Of two concurrent writers the second is refused; with
    ``overwrite``, the last to finish wins. If the block raises, the temporary folder is removed.
    """
    check_folder(Path(path), overwrite=overwrite)
    target = place_of(Path(path))
    inside = target.is_dir() and os.path.ismount(target)
    temporary = target / hidden("new", "tmp") if inside else temporary_for(target)
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        put_in_place(temporary, target, overwrite=overwrite)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(temporary: Path, target: Path, *, overwrite: str | None) -> None:
    """Rename a folder to ``target``, under a lock. Raises :class:`UserError` like :func:`check_folder`."""
    target = place_of(target)
    if temporary.parent == target:
        _fill(temporary, target, overwrite)
        return
    if temporary.parent != target.parent:  # it may be on another disk, and cannot be renamed then
        near = temporary_for(target)
        try:
            shutil.copytree(temporary, near)
            put_in_place(near, target, overwrite=overwrite)
        finally:
            shutil.rmtree(near, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)
        return
    with locked_folder(target.parent):
        _check_empty(target, overwrite=overwrite)
        old = beside(target, "old")
        if target.exists():
            try:
                target.replace(old)
            except OSError as error:
                if error.errno not in MOUNTED:
                    raise
                _fill(temporary, target, overwrite)
                return
        try:
            temporary.replace(target)
        except OSError:
            if old.exists():
                old.replace(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
        for left in filter(abandoned, _replaced(target)):
            remove(left)


def _fill(temporary: Path, target: Path, overwrite: str | None) -> None:
    """Replace the content of ``target`` by that of ``temporary``, the file by which it is known last."""
    with locked_folder(target):
        if not _is_half_filled(target):
            _check_empty(target, overwrite=overwrite)
        for kind in KINDS:
            (target / kind).unlink(missing_ok=True)
        others = (each for each in target.iterdir() if each.name not in OF_THE_SYSTEM and each != temporary)
        for each in others:
            if abandoned(each) or not TEMPORARY.search(each.name):
                remove(each)
        for each in sorted(temporary.iterdir(), key=lambda path: path.name in KINDS):
            shutil.move(each, target / each.name)
            sync(target)
    shutil.rmtree(temporary, ignore_errors=True)


def _replaced(path: Path) -> list[Path]:
    """Return the folders beside ``path`` that it replaced and that were not removed, the latest first."""
    found = path.parent.glob(f".{glob.escape(path.name[:200])}.*.old")
    ours = (each for each in found if TEMPORARY.search(each.name) and each.is_dir())
    return sorted(ours, key=lambda each: each.lstat().st_mtime, reverse=True)


def recover(path: Path) -> None:
    """Restore a folder whose overwriting was interrupted between two renames, and remove what else that left."""
    target = place_of(Path(path))
    if not target.parent.is_dir() or not _replaced(target):
        return
    with locked_folder(target.parent):  # a writer holds it between its two renames
        for old in _replaced(target):
            if not target.exists() and any((old / kind).is_file() for kind in KINDS):
                old.replace(target)
            elif abandoned(old):
                remove(old)


@contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Lock a ``folder`` against other processes. Raises :class:`RunError` with ``refusal`` if it is locked."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise RunError(refusal) from error
