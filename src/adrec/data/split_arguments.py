"""Arguments of splits: shares, and lists of users."""

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adrec.data.spans import Int64s
from adrec.utils.errors import ConfigError, DataError
from adrec.utils.text import counted

if TYPE_CHECKING:
    from adrec.data.dataset import Dataset


def shares(text: str) -> str:
    """Return the three shares in full: ``0.8,0.1,0.1``."""
    try:
        each = [float(part) for part in text.split(",")]
    except ValueError:
        each = []
    if len(each) == 1:
        each += [round((1 - each[0]) / 2, 9)] * 2
    if len(each) != 3 or not math.isclose(sum(each), 1) or each[0] <= 0 or min(each) < 0 or each[2] <= 0:
        raise ConfigError(
            "the split ratio takes the shares that train, validate and test, which make 1, such as ratio:0.8,0.1,0.1; "
            f"it was given {text!r}."
        )
    return ",".join(f"{share:.9g}" for share in each)


def listed_users(text: str, dataset: Dataset) -> tuple[str, dict[str, Int64s]]:
    """Return the names of the lists with their hashes, and the users in them."""
    from adrec.data.lists import read_ids  # noqa: PLC0415 - avoids a circular import

    paths = [part.strip() for part in text.split(",") if part.strip()]
    if not 1 <= len(paths) <= 2:
        raise ConfigError(
            "the split users takes a list of test users and, if you like, one of validation users: "
            "users:TEST.csv,VALIDATION.csv."
        )
    held_out: dict[str, Int64s] = {}
    names = []
    for part, path in zip(("test", "validation"), paths, strict=False):
        users = read_ids(Path(path), "user", dataset.info.columns)
        found = dataset.users.encode(users)
        indices = np.unique(found[found >= 0])
        if unknown := int((found < 0).sum()):
            warnings.warn(f"{counted(unknown, 'user')} of {path} not in the data.", UserWarning, stacklevel=2)
        if len(indices) == 0:
            raise DataError(f"none of the users in {path} is in the data; give a list of their ids.")
        held_out[part] = indices
        digest = hashlib.blake2b(indices.tobytes(), digest_size=4).hexdigest()
        names.append(f"{Path(path).name}({len(indices)} users, {digest})")
    if len(held_out) == 2 and len(np.intersect1d(held_out["test"], held_out["validation"])):
        raise DataError(f"the lists {' and '.join(paths)} have users in common; a user tests or validates.")
    return ",".join(names), held_out
