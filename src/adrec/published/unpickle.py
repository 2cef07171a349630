"""The only module that unpickles, run as a separate process by :mod:`adrec.published.importing`.

``python -m adrec.published.unpickle dataset SOURCE TARGET`` writes the sequences of a published ``dataset.pkl`` as
Parquet; with ``weights`` in place of ``dataset``, the tensors of a published ``.pth`` as safetensors. The input may
name only plain containers and NumPy's numbers (or, in weights, what PyTorch's own restricted reader allows). Any other
name ends the process before it is called.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

MOST_ITEMS = 1 << 24  # every number up to the largest becomes an item, so a single huge number would exhaust the memory
PARTS = ("train", "val", "test")
KNOWN = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("builtins", "list"),
    ("_codecs", "encode"),  # used by protocol 2 for the bytes of NumPy's numbers
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
}


class UnreadableError(Exception):
    """The file is invalid; the message is the rest of a sentence that starts with its name."""


class Restricted(pickle.Unpickler):
    """Unpickles plain containers of numbers and texts."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of :data:`KNOWN`; anything else is refused."""
        if (module, name) not in KNOWN:
            raise UnreadableError(f"asks for {module}.{name}, which no published data set needs; it is not read")
        return super().find_class(module, name)


def read_dataset(path: Path) -> pl.DataFrame:
    """Return the sequences of a published data set: ``user``, ``item`` and ``time`` (the position in the sequence).

    The items are the published numbers. Raises :class:`UnreadableError` if the file is not in the published format.
    """
    with path.open("rb") as file:
        content = Restricted(file).load()
    if not isinstance(content, dict) or not set(PARTS) <= content.keys():
        raise UnreadableError(f"is no published data set: it has no {', '.join(PARTS)}")
    parts = [dict(_by_user(content[part])) for part in PARTS]
    if not parts[0].keys() == parts[1].keys() == parts[2].keys():
        raise UnreadableError("has other users in train than in val or test")
    users: list[Any] = []
    items: list[int] = []
    times: list[int] = []
    for user, trained in parts[0].items():
        held_out = [parts[1][user], parts[2][user]]
        if any(len(each) != 1 for each in held_out):
            raise UnreadableError(f"has not one validation and one test item for user {user!r}")
        sequence = [*trained, *held_out[0], *held_out[1]]
        users += [user] * len(sequence)
        items += [_number(item, "item", MOST_ITEMS) for item in sequence]
        times += range(len(sequence))
    return pl.DataFrame({"user": users, "item": items, "time": times}, schema_overrides={"item": pl.Int64})


def _by_user(part: Any) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Yield each user's items; users given as a list are numbered from 0."""
    pairs: Iterable[tuple[Any, Any]] = part.items() if isinstance(part, Mapping) else enumerate(part)
    for user, items in pairs:
        if not isinstance(items, list):
            raise UnreadableError(f"has no list of items for user {user!r}")
        yield user if isinstance(user, str) else _number(user, "user", 2**63 - 1), items


def _number(value: Any, role: str, most: int) -> int:
    number = value.item() if hasattr(value, "item") else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise UnreadableError(f"has {value!r} where a number is expected")
    if number > most:
        raise UnreadableError(f"has {role} {number:,}, and at most {most:,} is read; number them from 1")
    return number


def write_weights(path: Path, target: Path) -> None:
    """Write the tensors of a state dictionary as safetensors. Raises :class:`UnreadableError` for other content."""
    import torch  # noqa: PLC0415 - takes seconds, which reading a data set should not cost
    from safetensors.torch import save_file  # noqa: PLC0415

    weights = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UnreadableError("is no state dictionary of tensors")
    save_file({str(name): value.float().contiguous().clone() for name, value in weights.items()}, target)


def main(kind: str, source: str, target: str) -> None:
    """Read ``source`` and write ``target``; errors go to standard error, with exit code 3."""
    try:
        if kind == "dataset":
            read_dataset(Path(source)).write_parquet(target)
        else:
            write_weights(Path(source), Path(target))
    except UnreadableError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
    except MemoryError:
        print("needs more memory than there is; free some", file=sys.stderr)
        sys.exit(3)
    except Exception as error:  # a damaged or hostile pickle can raise anything
        print(f"cannot be read ({type(error).__name__}); get it again", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
